"""A whole evaluation of random images and captions with counted ranks, in one memory budget.

Regions are made while they are encoded, because those of 5,000 images take 1.5 GB. The ranks are
meaningless, because weights and captions are random.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sgraf_deploy.bench.gpu.job import engine_parser, run_job
from sgraf_deploy.bench.gpu.machine import device_bytes
from sgraf_deploy.bench.measure import resident
from sgraf_deploy.bench.random_ids import random_token_ids
from sgraf_deploy.bench.run import SEED
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.scorer import Scorer, load

CAPTIONS_PER_IMAGE = 5
IMAGES_AT_A_TIME = 500
FEWEST, MOST = 8, 20
"""The range of words per caption, counting `<start>` and `<end>`: 14 on average."""

LONGEST_FIRST = 120.0
"""An evaluation that takes more seconds than this is not run a second time."""

_GIB = 2**30


def evaluate_random(
    bundle: Bundle,
    scorer: Scorer,
    images: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Encode once, score and count ranks twice; return the seconds of each and the tiling.

    The first time includes everything that an engine compiles, chooses and captures for these
    tiles; `score` is the second time, or null if the first took too long for a second.
    """
    lengths = np.random.default_rng(SEED).integers(FEWEST, MOST + 1, images * CAPTIONS_PER_IMAGE)
    encoded, captions, encode = _encoded(bundle, scorer, images, lengths.tolist(), clock)
    tiling = scorer.tiling(encoded, captions)
    seconds: dict[str, float | None] = {"encode": encode, "score": None}
    begin = clock()
    counts = scorer.count_ranks(encoded, captions)
    seconds["first_score"] = first = clock() - begin
    if first <= LONGEST_FIRST:
        begin = clock()
        counts = scorer.count_ranks(encoded, captions)
        seconds["score"] = clock() - begin
    pairs = images * len(captions)
    return {
        "module": bundle.manifest.module,
        "engine": scorer.engine_name,
        "executed": scorer.executed,
        "device": scorer.device,
        "images": images,
        "captions": len(captions),
        "mean_words": float(lengths.mean()),
        "seed": SEED,
        "tiles": len(tiling),
        "tile_bytes": tiling.tile_bytes,
        "seconds": seconds,
        "pairs_per_second": pairs / (seconds["score"] or first),
        "device_memory_bytes": scorer.device_memory(),
        "resident_bytes": resident(),
        "mean_rank": {
            name: {
                "image_to_text": float(ranks.image_to_text.mean()) + 1,
                "text_to_image": float(ranks.text_to_image.mean()) + 1,
            }
            for name, ranks in counts.items()
        },
    }


def _encoded(
    bundle: Bundle, scorer: Scorer, images: int, lengths: list[int], clock: Callable[[], float]
) -> tuple[EncodedImages, EncodedCaptions, float]:
    """The encoded images and captions, and the seconds that encoding both took."""
    rng = np.random.default_rng(SEED)
    token_ids = random_token_ids(bundle, lengths, rng)
    shape = bundle.manifest.regions, bundle.manifest.img_dim
    parts, spent = [], 0.0
    for start in range(0, images, IMAGES_AT_A_TIME):
        count = min(IMAGES_AT_A_TIME, images - start)
        regions = rng.standard_normal((count, *shape), dtype=np.float32)
        begin = clock()
        parts.append(scorer.encode_images(regions))
        spent += clock() - begin
    begin = clock()
    encoded = EncodedImages.concatenate(parts)
    captions = scorer.encode_captions(token_ids)
    return encoded, captions, spent + clock() - begin


def usable_budget(gib: int, device: int | None) -> int:
    """Bytes of a tile: `gib` GiB, but at most half of the device's memory, if that is known."""
    return gib * _GIB if device is None else min(gib * _GIB, device // 2)


def _job(given: argparse.Namespace) -> dict[str, Any]:
    bundle = Bundle.open(given.bundle)
    budget = usable_budget(given.gib, device_bytes())
    with load(bundle, given.engine, given.precision, memory_budget=budget) as scorer:
        result = evaluate_random(bundle, scorer, given.images)
    return {"asked_gib": given.gib, "memory_budget": budget, **result}


def _parser() -> argparse.ArgumentParser:
    parser = engine_parser(__doc__ or "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--gib", type=int, default=1, help="largest size of a tile, in GiB")
    return parser


if __name__ == "__main__":
    sys.exit(run_job(_parser(), _job))
