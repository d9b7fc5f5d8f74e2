"""Draws which pairs of the demo its costly member has to score for the ensemble's ranks, as SVG.

python -m tools.pages.pruning writes docs/images/pruning.svg. It exports the demo: some minutes.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.svg import document, rect, text
from tools.pages.architecture import ROOT

PICTURE = ROOT / "docs" / "images" / "pruning.svg"

IMAGES = 24
CELL, LEFT, TOP, BELOW = 6, 70, 40, 50

Cells = NDArray[np.int64]
"""(images, captions): 0 for a pair that the first member decides, 1 for one that it leaves open, 2
for a ground truth."""

KINDS = {1: "b", 2: "c"}


def open_pairs(bundle: Any, split: Any) -> Cells:
    """What the first member of a bundle leaves open of a split's pairs."""
    from sgraf_deploy.engines.ranks import HostRankCounter
    from sgraf_deploy.runtime import load

    with load(bundle, engine="native") as scorer:
        images = scorer.encode_images(np.asarray(split.regions))
        captions = scorer.encode_captions(split.captions)
        values = scorer.rank_thresholds(images, captions, split.captions_per_image).values
        logits, context = scorer.logits(images, captions), scorer._context
        lower, upper = context.rests()[0].bounds([logits[context.by_cost[0]]])
        counter = HostRankCounter(np.asarray, values.only("sgraf"))
    columns = np.arange(len(captions), dtype=np.int32)
    cells = counter.open(0, columns, lower, upper).astype(np.int64)
    cells[columns // split.captions_per_image, columns] = 2
    return cells


def draw(cells: Cells) -> str:
    """The pairs as a matrix of squares, images downwards and captions to the right."""
    images, captions = cells.shape
    width, height = captions * CELL, images * CELL
    share = np.count_nonzero(cells) / cells.size
    elements = [
        text(LEFT, 18, f"Pairs that SGR scores for SGRAF's ranks: {share:.0%}", "title left"),
        text(LEFT + width / 2, TOP - 6, f"{captions} captions", "soft"),
        text(LEFT - 10, TOP + height / 2, f"{images} images", "soft", turned=True),
        *squares(cells),
        rect(LEFT, TOP, width, height, "box"),
        *_legend(TOP + height + 26),
    ]
    return document(LEFT + width + 20, TOP + height + BELOW, elements)


def squares(cells: Cells) -> Iterator[str]:
    """The squares that are not empty; those of a row that follow each other are one rectangle."""
    for row, line in enumerate(cells.tolist()):
        for kind, run in groupby(range(len(line)), key=line.__getitem__):
            columns = list(run)
            if kind:
                x, y = LEFT + columns[0] * CELL, TOP + row * CELL
                yield rect(x, y, len(columns) * CELL, CELL, KINDS[kind])


def _legend(y: float) -> Iterator[str]:
    names = {2: "ground truth: every member", 1: "open after SAF: SGR, too"}
    for place, (kind, name) in enumerate(names.items()):
        x = LEFT + 210 * place
        yield rect(x, y - 9, 10, 10, KINDS[kind])
        yield text(x + 16, y, name, "left")
    yield text(LEFT + 420, y, "empty: decided by SAF alone", "left")


def main() -> None:
    """Write the picture."""
    from sgraf_deploy.demo.assets import demo_split, export_demo

    with tempfile.TemporaryDirectory() as folder:
        bundle = export_demo(Path(folder) / "demo.sgraf").bundle
        cells = open_pairs(bundle, demo_split(IMAGES))
    PICTURE.write_text(draw(cells), encoding="utf-8")


if __name__ == "__main__":
    main()
