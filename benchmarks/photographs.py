"""Photographs per second, stage by stage, and the memory of a long run.

One thread takes photographs through decoding, resizing, the backbone, the pooling into regions and
the writing of them. Memory is flat: what the process itself holds must not grow by more than 50 MB
after the first photographs. With a bundle, also the extractor's share of photograph to score.

    python benchmarks/photographs.py PHOTOS --extractor SPEC --json FILE
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from sgraf_deploy.bench.measure import ResidentPeak, resident
from sgraf_deploy.bench.run import processor
from sgraf_deploy.features.decode import decode_photo
from sgraf_deploy.features.grid import GridExtractor
from sgraf_deploy.features.recipe import BACKBONE
from sgraf_deploy.features.resize import resize
from sgraf_deploy.features.spec import open_extractor
from sgraf_deploy.files.writer import staged_array, write_json
from sgraf_deploy.runtime.scorer import load
from sgraf_deploy.versions import tool_versions

PACKAGES = (("Pillow", "pillow"), ("ONNX Runtime", "onnxruntime"))
MACHINE = {
    "processor": processor(),
    "versions": tool_versions(),
    "photographs": [f"{name} {version(package)}" for name, package in PACKAGES],
}
MOST_GROWTH = 50_000_000
CAPTION = "two dogs play in the snow near a fence"
WARM = 20
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}


class Stages:
    """Wall seconds by stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Add the block's time to a stage."""
        start = time.perf_counter()
        yield
        self.seconds[name] += time.perf_counter() - start


def run(
    photos: list[Path], extractor: GridExtractor, target: Path, stages: Stages
) -> dict[str, int]:
    """Write the regions of photographs, timed by stage; the memory after the first and the peak."""
    recipe, before = extractor.spec, resident()
    rows = (len(photos), extractor.regions * extractor.img_dim)
    with staged_array(target, rows) as written, ResidentPeak() as peak:
        for row, path in enumerate(photos):
            with stages("decode"):
                picture = decode_photo(path, recipe.decoding)
            with stages("resize"):
                made, frame = resize(picture, recipe.resizing[BACKBONE])
            with stages("backbone"):
                output = extractor.run(made)
            with stages("pool"):
                regions, _ = extractor.pool(output, frame)
            with stages("write"):
                written[row] = regions.reshape(-1)
            if row + 1 == min(WARM, len(photos)):
                before = resident()
                peak.values = dict(before)
    return {"before": before["RssAnon"], "peak": peak.values["RssAnon"]}


def share_of_extractor(
    photos: list[Path], extractor: GridExtractor, bundle: Path
) -> dict[str, Any]:
    """Wall seconds of photograph to score, against one caption; all but the first photograph."""
    stages = Stages()
    with load(bundle, engine="native") as scorer:
        caption = scorer.encode_captions([CAPTION])
        for place, path in enumerate(photos):
            if place == 1:
                stages = Stages()
            with stages("extract"):
                picture = decode_photo(path, extractor.spec.decoding)
                regions = extractor.extract([picture]).regions
            with stages("encode"):
                encoded = scorer.encode_images(regions)
            with stages("score"):
                scorer.score(encoded, caption)
    total = sum(stages.seconds.values())
    return {name: seconds / total for name, seconds in stages.seconds.items()}


@click.command()
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--extractor", "spec", required=True, help="A SPEC of kind grid.")
@click.option("--count", default=200, show_default=True, help="Photographs; a folder is repeated.")
@click.option("--bundle", type=click.Path(exists=True, path_type=Path))
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(
    *, photos: Path, spec: str, count: int, bundle: Path | None, json_file: Path | None
) -> None:
    """Take photographs of a folder through every stage, and report rates and memory."""
    found = sorted(path for path in photos.rglob("*") if path.suffix.lower() in SUFFIXES)
    chosen = list(islice(cycle(found), count))
    extractor = open_extractor(spec)
    if not isinstance(extractor, GridExtractor):
        raise click.UsageError("--extractor: a grid is measured")
    stages = Stages()
    with tempfile.TemporaryDirectory() as folder:
        memory = run(chosen, extractor, Path(folder) / "regions.npy", stages)
    total = sum(stages.seconds.values())
    growth = memory["peak"] - memory["before"]
    report = {
        "command": f"python benchmarks/photographs.py {' '.join(sys.argv[1:])}",
        "machine": MACHINE,
        "photographs": count,
        "files": len(found),
        "mean_pixels": float(np.mean([decode_photo(path).size // 3 for path in found])),
        "regions": [extractor.regions, extractor.img_dim],
        "per_second": {name: count / seconds for name, seconds in stages.seconds.items()},
        "per_second_together": count / total,
        "share": {name: seconds / total for name, seconds in stages.seconds.items()},
        "rss_anon_after_first": memory["before"],
        "rss_anon_peak": memory["peak"],
        "rss_anon_growth": growth,
        "within_bound": growth <= MOST_GROWTH,
    }
    if bundle is not None:
        report["share_of_photograph_to_score"] = share_of_extractor(chosen, extractor, bundle)
    click.echo(json.dumps(report, indent=1))
    if json_file is not None:
        write_json(json_file, report)
    raise SystemExit(0 if report["within_bound"] else 1)


if __name__ == "__main__":
    main()
