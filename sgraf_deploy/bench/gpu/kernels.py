"""Compare the GPU engines' own kernels, gathering rows and counting ranks, with NumPy."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.gpu.job import run_job
from sgraf_deploy.engines.cuda.api import Cuda
from sgraf_deploy.engines.cuda.arrays import GpuArrays
from sgraf_deploy.engines.ensemble import with_ensemble
from sgraf_deploy.engines.ranks import RankCounts, Thresholds

SHAPES: tuple[tuple[tuple[int, ...], str], ...] = (
    ((300, 36, 1024), "float16"),
    ((300, 1024), "float32"),
    ((77, 36, 36), "float32"),
    ((50, 7), "float16"),
    ((50, 3), "int8"),
    ((9,), "int32"),
)
"""Arrays whose rows are gathered: with the paper's widths, and with odd ones."""

IMAGES, PER_IMAGE, TILE = 60, 5, (37, 101)
"""The sizes of the ranks; neither side is a multiple of the tile's."""

ENSEMBLE_SLACK = 1e-6
"""The tolerance for an ensemble's logit on the device, as a share of the largest logit: it is
formed in float64 and rounded there."""


def compare(cuda: Cuda, seed: int = 0) -> dict[str, Any]:
    """The number of cases by kernel, and under `failed` those that differ from NumPy."""
    engine, rng = GpuArrays(cuda, "cuda:0"), np.random.default_rng(seed)
    try:
        gathered, counted = list(_gathers(engine, rng)), list(_ranks(engine, rng))
    finally:
        engine.close()
    return {
        "device": cuda.name,
        "compute_capability": cuda.compute_capability,
        "cases": {"gather": len(gathered), "count_ranks": len(counted)},
        "failed": [name for name, equal in (*gathered, *counted) if not equal],
    }


def _gathers(engine: GpuArrays, rng: np.random.Generator) -> Iterator[tuple[str, bool]]:
    """Each case by name, and whether it is equal to NumPy's."""
    for shape, kind in SHAPES:
        source = rng.integers(0, 256, (*shape, np.dtype(kind).itemsize), np.uint8)
        array = source.view(kind)[..., 0]
        resident = engine.put(array)
        for rows in (rng.integers(0, shape[0], 501), rng.integers(0, shape[0], (11, 13))):
            actual = engine.fetch(engine.gather(resident, rows.astype(np.int32)))
            equal = np.array_equal(actual.view(np.uint8), array[rows].view(np.uint8))
            yield f"gather {rows.shape} rows of {shape} {kind}", equal


def _ranks(engine: GpuArrays, rng: np.random.Generator) -> Iterator[tuple[str, bool]]:
    """The same for ranks of one, two and three members, with ties, counted tile by tile."""
    for members in (1, 2, 3):
        shape = IMAGES, IMAGES * PER_IMAGE
        logits = {
            f"m{index}": np.round(rng.normal(0, 3, shape), 1).astype(np.float32)
            for index in range(members)
        }
        all_logits = with_ensemble(logits)
        thresholds = _thresholds(all_logits)
        counter = engine.rank_counter(thresholds)
        for image in range(0, shape[0], TILE[0]):
            for caption in range(0, shape[1], TILE[1]):
                columns = np.arange(caption, min(caption + TILE[1], shape[1]), dtype=np.int32)
                tile = (slice(image, image + TILE[0]), columns)
                counter.add(image, columns, {n: engine.put(x[tile]) for n, x in logits.items()})
        for name, counts in counter.result().items():
            matrix = all_logits[name]
            slack = 0.0 if name in logits else ENSEMBLE_SLACK * float(np.abs(matrix).max())
            equal = _counts_equal(matrix, thresholds, name, counts, slack)
            yield f"count_ranks of {name}, {members} members", equal


def _thresholds(logits: dict[str, NDArray[np.float32]]) -> Thresholds:
    columns = np.arange(IMAGES * PER_IMAGE)
    truths = {name: matrix[columns // PER_IMAGE, columns] for name, matrix in logits.items()}
    best = {name: truth.reshape(IMAGES, -1).max(axis=1) for name, truth in truths.items()}
    return Thresholds(best, truths, PER_IMAGE)


def _counts_equal(
    logits: NDArray[np.float32], thresholds: Thresholds, name: str, counts: RankCounts, slack: float
) -> bool:
    """Whether every count is equal to NumPy's; logits within `slack` of a threshold may differ."""
    candidates = logits.astype(np.float64)
    columns = np.arange(candidates.shape[1])
    candidates[columns // PER_IMAGE, columns] = -np.inf
    equal = True
    for matrix, threshold, actual in (
        (candidates, thresholds.images[name], counts.image_to_text),
        (candidates.T, thresholds.captions[name], counts.text_to_image),
    ):
        level = threshold[:, None].astype(np.float64)
        fewest = (matrix >= level + slack).sum(axis=1)
        most = (matrix >= level - slack).sum(axis=1)
        equal &= bool(((fewest <= actual) & (actual <= most)).all())
    return equal


def _on_the_device(_: argparse.Namespace) -> dict[str, Any]:
    from sgraf_deploy.engines.cuda.bindings import open_cuda

    return compare(open_cuda())


if __name__ == "__main__":
    sys.exit(run_job(argparse.ArgumentParser(description=__doc__), _on_the_device))
