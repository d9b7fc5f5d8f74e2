"""Matrices of ties and near ties, shared out in parts, and a worker that is killed between two.

Run as a script, `parts.py BUNDLE FOLDER STEP` counts part after part into a folder, and is killed
at a step of writing the third.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from support.small_models import SGR, random_captions, random_regions

import sgraf_deploy
from sgraf_deploy.engines.ensemble import similarities
from sgraf_deploy.engines.ranks import RankCounts
from sgraf_deploy.evaluation.recall import rank_matrix
from sgraf_deploy.runtime import PartialRanks, RankThresholds, Scorer, TileShape, Tiling, TopK, load

IMAGES, PER_IMAGE, PARTS, KILLED = 7, 5, 5, 2
TILE = TileShape(3, 4)

PATHS = Path(sgraf_deploy.__file__).parents[1], Path(__file__).parents[1]


def tied_inputs() -> tuple[Any, Any]:
    """Regions and token ids, of which several images and several captions are the same."""
    regions = random_regions(SGR, IMAGES)
    regions[[2, 5, 6]] = regions[[1, 4, 4]]
    captions = random_captions(SGR, tuple(2 + (5 * row) % 13 for row in range(IMAGES * PER_IMAGE)))
    for row in range(0, len(captions), 3):
        captions[row] = captions[row % 9]
    return regions, captions


def count_into(
    scorer: Scorer, folder: Path, kill: tuple[int, str] | None = None
) -> tuple[PartialRanks, list[int]]:
    """Count the parts that a folder lacks; return all of them merged, and the numbers counted."""
    regions, token_ids = tied_inputs()
    images, captions = scorer.encode_images(regions), scorer.encode_captions(token_ids)
    if not (folder / "thresholds.npz").exists():
        scorer.tiling(images, captions).save(folder / "tiling.json")
        scorer.rank_thresholds(images, captions).save(folder / "thresholds.npz")
    tiling = Tiling.load(folder / "tiling.json")
    thresholds = RankThresholds.load(folder / "thresholds.npz")
    counted = []
    files = [folder / f"part{number}.npz" for number in range(PARTS)]
    for number, tiles in enumerate(tiling.split(PARTS)):
        if files[number].exists():
            continue
        part = scorer.count_tiles(images, captions, thresholds, tiles, tiling=tiling)
        last = kill[1] if kill is not None and kill[0] == number else None
        part.save(files[number], step=lambda name, last=last: _die(name, last))  # type: ignore[misc]
        counted.append(number)
    return PartialRanks.merge([PartialRanks.load(file) for file in files]), counted


def run_killed(bundle: Path, folder: Path, step: str) -> int:
    """Run this file as a script; its exit status."""
    command = [sys.executable, __file__, str(bundle), str(folder), step]
    path = os.pathsep.join(map(str, PATHS))
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def _die(name: str, last: str | None) -> None:
    if name == last:
        os.kill(os.getpid(), signal.SIGKILL)


def near_ties(models: int = 2) -> dict[str, Any]:
    """Logits of which many are equal and many are the next float to another."""
    rng = np.random.default_rng(4)
    shape = IMAGES, IMAGES * PER_IMAGE
    eps = np.finfo(np.float32).eps
    names = ("sgr", "saf", "sgr-2")[:models]
    return {n: (1 + rng.integers(-4, 5, shape) * eps).astype(np.float32) for n in names}


def check_ranks(found: RankCounts, matrix: Any, per_image: int = PER_IMAGE) -> None:
    """The counts are those of the matrix."""
    ranks = rank_matrix(matrix, per_image)
    for direction in ("image_to_text", "text_to_image"):
        np.testing.assert_array_equal(getattr(found, direction), getattr(ranks, direction))
    assert np.count_nonzero(found.level_image_to_text) == ranks.tied_image_to_text
    assert np.count_nonzero(found.level_text_to_image) == ranks.tied_text_to_image


def assert_best(found: TopK, matrix: Any, k: int) -> None:
    """`found` are the best `k` of each row of logits, equal ones in the order of their columns."""
    order = np.argsort(-matrix, axis=1, kind="stable")[:, :k]
    logits = np.take_along_axis(matrix, order, axis=1)
    np.testing.assert_array_equal(found.indices, order)
    np.testing.assert_array_equal(found.logits, logits)
    np.testing.assert_array_equal(found.similarities, similarities(logits))
    assert (found.indices.dtype.name, found.logits.dtype.name) == ("int64", "float32")


if __name__ == "__main__":
    with load(sys.argv[1], engine="native", tile=TILE) as opened:
        count_into(opened, Path(sys.argv[2]), (KILLED, sys.argv[3]))
