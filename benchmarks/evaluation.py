"""A whole evaluation of random images and captions at the bundle's dimensions, ranks counted.

    python benchmarks/evaluation.py BUNDLE --engine trt --images 5000 --json FILE

Regions are made as they are encoded, since 5,000 images of them take 1.5 GB. The ranks say nothing:
the weights may be random, and the captions are.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import click
import numpy as np

from sgraf_deploy.bench.measure import resident
from sgraf_deploy.bench.random_ids import random_token_ids
from sgraf_deploy.bench.run import SEED, processor
from sgraf_deploy.bundle import Bundle
from sgraf_deploy.files import write_json
from sgraf_deploy.runtime.encoded import EncodedImages
from sgraf_deploy.runtime.engine import ENGINES
from sgraf_deploy.runtime.scorer import load
from sgraf_deploy.versions import tool_versions

CAPTIONS_PER_IMAGE = 5
IMAGES_AT_A_TIME = 500
FEWEST, MOST = 8, 20
"""Words of a caption, `<start>` and `<end>` included: 14 on average."""


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True), metavar="BUNDLE")
@click.option("--engine", type=click.Choice(list(ENGINES)), required=True)
@click.option("--images", default=5000, show_default=True)
@click.option("--json", "json_file", type=click.Path(path_type=Path))
def main(path: Path, engine: str, images: int, json_file: Path | None) -> None:
    """Encode, score, count ranks, and say how long each took."""
    rng = np.random.default_rng(SEED)
    bundle = Bundle.open(path)
    lengths = rng.integers(FEWEST, MOST + 1, images * CAPTIONS_PER_IMAGE)
    token_ids = random_token_ids(bundle, lengths.tolist(), rng)
    regions = bundle.manifest.regions, bundle.manifest.img_dim
    seconds = {}
    with load(bundle, engine) as scorer:
        parts, spent = [], 0.0
        for start in range(0, images, IMAGES_AT_A_TIME):
            count = min(IMAGES_AT_A_TIME, images - start)
            made = rng.standard_normal((count, *regions), dtype=np.float32)
            begin = time.perf_counter()
            parts.append(scorer.encode_images(made))
            spent += time.perf_counter() - begin
        begin = time.perf_counter()
        encoded = EncodedImages.concatenate(parts)
        captions = scorer.encode_captions(token_ids)
        seconds["encode"] = spent + time.perf_counter() - begin
        scorer.count_ranks(encoded[:50], captions[: 50 * CAPTIONS_PER_IMAGE])  # warms up
        begin = time.perf_counter()
        counts = scorer.count_ranks(encoded, captions)
        seconds["score"] = time.perf_counter() - begin
        report = {
            "command": f"python benchmarks/evaluation.py {path.name} --engine {engine}"
            f" --images {images}",
            "module": bundle.manifest.module,
            "engine": scorer.engine_name,
            "executed": scorer.executed,
            "device": scorer.device,
            "processor": processor(),
            "versions": tool_versions(),
            "images": images,
            "captions": len(captions),
            "mean_words": float(lengths.mean()),
            "seed": SEED,
            "seconds": seconds,
            "pairs_per_second": images * len(captions) / seconds["score"],
            "device_memory_bytes": scorer.device_memory(),
            "resident_bytes": resident(),
            "mean_rank": {
                name: {
                    "image_to_text": float(found.image_to_text.mean()) + 1,
                    "text_to_image": float(found.text_to_image.mean()) + 1,
                }
                for name, found in counts.items()
            },
        }
    text = json.dumps(report, indent=1)
    sys.stdout.write(text + "\n")
    if json_file is not None:
        write_json(json_file, report)


if __name__ == "__main__":
    main()
