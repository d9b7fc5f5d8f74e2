"""Ranks counted by tiles are the matrix's to the bit, though pairs are rounded in another way."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.small_models import random_captions, random_regions

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines import near_counts as near
from sgraf_deploy.engines.near_counts import SLACK, NearCounts
from sgraf_deploy.engines.ranks import HostRankCounter, RankCounts, Thresholds
from sgraf_deploy.evaluation.recall import rank_matrix
from sgraf_deploy.runtime import TileShape, load, pairs

IMAGES, PER_IMAGE = 7, 5

Matrix = NDArray[np.float32]


class OnTheHost:
    """An engine whose buffers are arrays."""

    def fetch(self, buffer: Any) -> Any:
        return buffer


def count(matrix: Matrix, thresholds: NDArray[Any]) -> RankCounts:
    """Counted in tiles of 3 images x 4 captions; thresholds (captions,) are rounded otherwise."""
    thresholds = thresholds.astype(np.float32)
    best = thresholds.reshape(-1, PER_IMAGE).max(axis=1)
    counter = HostRankCounter(
        OnTheHost().fetch, Thresholds({"sgr": best}, {"sgr": thresholds}, PER_IMAGE)
    )
    order = np.random.default_rng(3).permutation(matrix.shape[1]).astype(np.int32)
    for first in range(0, len(matrix), 3):
        for start in range(0, len(order), 4):
            columns = order[start : start + 4]
            counter.add(first, columns, {"sgr": matrix[first : first + 3][:, columns]})
    return counter.result()["sgr"]


def check(found: RankCounts, matrix: Matrix) -> None:
    ranks = rank_matrix(matrix, PER_IMAGE)
    np.testing.assert_array_equal(found.image_to_text, ranks.image_to_text)
    np.testing.assert_array_equal(found.text_to_image, ranks.text_to_image)
    assert np.count_nonzero(found.level_image_to_text) == ranks.tied_image_to_text
    assert np.count_nonzero(found.level_text_to_image) == ranks.tied_text_to_image


def truths_of(matrix: Matrix) -> Matrix:
    columns = np.arange(matrix.shape[1])
    truths: Matrix = matrix[columns // PER_IMAGE, columns]
    return truths


def collapsed() -> Matrix:
    return np.full((IMAGES, IMAGES * PER_IMAGE), -3.25, np.float32)


def crowded(scale: float) -> Matrix:
    """Logits of which many are equal and many are the next float to another."""
    steps = np.random.default_rng(4).integers(-4, 5, (IMAGES, IMAGES * PER_IMAGE))
    return (scale * (1 + steps * np.finfo(np.float32).eps)).astype(np.float32)


@pytest.mark.parametrize("matrix", [collapsed(), crowded(1.0), crowded(-700.0), crowded(1e-3)])
@pytest.mark.parametrize("off", [0.0, 2e-6, -2e-6])
def test_rounding_of_the_pairs_moves_no_rank(matrix: Matrix, off: float) -> None:
    truths = truths_of(matrix)
    thresholds = truths * (1 + off)
    check(count(matrix, thresholds), matrix)


@pytest.mark.parametrize("kept", [0, 7, 10**6])
def test_what_is_kept_is_merged(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MOST_KEPT", kept)
    matrix = crowded(1.0)
    check(count(matrix, truths_of(matrix) * (1 + 1e-6)), matrix)


def test_a_collapsed_model_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "MOST_KEPT", 100)
    counts = NearCounts(np.zeros(3, np.float32), SLACK)
    for _ in range(50):
        counts.keep(counts.look(np.arange(3), np.zeros((3, 40), np.float32)))
    assert len(counts._keys) == 3
    assert counts._number <= 100
    reach, level = counts.tally(np.arange(3)).against(np.zeros(3, np.float32))
    assert reach.tolist() == level.tolist() == [2000] * 3


def test_a_bar_out_of_reach_counts_as_the_nearest_in_it() -> None:
    thresholds = np.ones(1, np.float32)
    counts = NearCounts(thresholds, SLACK)
    counts.keep(counts.look(np.arange(1), np.array([[0.5, 1.0, 1.0, 1.5]], np.float32)))
    tally = counts.tally(np.arange(1))
    for far, reached in ((100 * SLACK, 1), (-100 * SLACK, 3)):
        truths = np.array([1 + far], np.float32)
        reach, _ = tally.against(near.within(truths, thresholds, SLACK))
        assert reach.tolist() == [reached]


@pytest.mark.parametrize("engine", ["native", "ort", "torch"])
def test_equal_images_and_captions_tie(
    engine: str, exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a model that collapsed in training, and with data that hold an image twice."""
    config = exported.manifest.members["sgr"].config
    regions = np.repeat(random_regions(config, 1), IMAGES, axis=0)
    captions = random_captions(config, (9,)) * (IMAGES * PER_IMAGE)
    alone, lock = pairs.pair_logits, threading.Lock()

    def rounded_otherwise(*arguments: Any) -> Any:
        with lock:
            return {name: each * np.float32(1 + 3e-6) for name, each in alone(*arguments).items()}

    monkeypatch.setattr(pairs, "pair_logits", rounded_otherwise)
    with load(exported, engine=engine, tile=TileShape(3, 4)) as scorer:
        found = scorer.count_ranks(regions, captions)["sgr"]
        matrix = scorer.logits(regions, captions)["sgr"]

    check(found, matrix)
    assert found.text_to_image.max() > 0
