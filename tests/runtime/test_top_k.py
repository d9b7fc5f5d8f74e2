"""The best candidates of every query, from any parts: those of the whole matrix, ties by row."""

from __future__ import annotations

from collections.abc import Iterator
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from support.parts import IMAGES, PER_IMAGE, TILE, assert_best, tied_inputs
from support.refusals import naming, refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.ensemble import ensemble_logits
from sgraf_deploy.engines.tallies import Touched
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import PartialTopK, Scorer, load
from sgraf_deploy.runtime.top_k import BestFinder, ListedWhole

CAPTIONS = IMAGES * PER_IMAGE
AWKWARD = np.array([-np.inf, -3.5, -1e-30, -0.0, 0.0, 1e-30, 1, 1 + 2**-23, np.inf], np.float32)


@pytest.fixture(params=["native", "ort", "torch"])
def scorer(request: pytest.FixtureRequest, exported: Bundle) -> Iterator[Scorer]:
    with load(exported, engine=request.param, tile=TILE) as made:
        yield made


@pytest.mark.parametrize("k", [1, 3, 7, 1000])
def test_parts_merge_to_the_best_of_the_matrix(scorer: Scorer, k: int) -> None:
    regions, captions = tied_inputs()
    inputs = scorer.encode_images(regions), scorer.encode_captions(captions)
    matrix = ensemble_logits(scorer.logits(*inputs))
    tiling = scorer.tiling(*inputs)
    parts = [
        scorer.top_k_tiles(*inputs, k, tiles, tiling=tiling)
        for tiles in (range(1, len(tiling), 3), range(0, len(tiling), 3), range(2, len(tiling), 3))
    ]
    best = reduce(add, parts).result()
    assert_best(best["image_to_text"], matrix, min(k, CAPTIONS))
    assert_best(best["text_to_image"], matrix.T, min(k, IMAGES))
    whole = scorer.top_k_tiles(*inputs, k)
    assert PartialTopK.merge(parts[::-1]).digest == whole.digest


def test_the_best_are_those_of_rerank(scorer: Scorer) -> None:
    regions, captions = tied_inputs()
    images, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
    best = scorer.top_k_tiles(images, texts, 4).result()["text_to_image"]
    for row in range(5):
        assert scorer.rerank(texts[row], images, 4).indices[0] in best.indices[row]


@settings(max_examples=60, deadline=None)
@given(
    arrays(np.float32, (4, 6), elements=st.sampled_from(list(AWKWARD))),
    st.integers(1, 7),
    st.lists(st.integers(0, 2), min_size=6, max_size=6),
)
def test_awkward_logits_are_listed_as_in_the_matrix(matrix: Any, k: int, owners: list[int]) -> None:
    """Equal, infinite, tiny and zeros of both signs; six tiles of 2 x 2 in up to three parts."""
    whole = ListedWhole("b", "fake", "fp32", "fp32", "cpu", "t", 6, 4, 6, k)
    tiles = [(first, np.array(columns)) for first in (0, 2) for columns in ([5, 0], [1, 4], [3, 2])]
    parts = []
    for part in set(owners):
        numbers = np.array([tile for tile, owner in enumerate(owners) if owner == part])
        rows = np.unique([tiles[tile][0] + row for tile in numbers for row in (0, 1)])
        columns = np.unique([tiles[tile][1] for tile in numbers])
        finder = BestFinder(Touched(rows, columns, columns[:0]), 4, 6, k)
        for first, places in (tiles[tile] for tile in numbers):
            finder.add(first, places, matrix[first : first + 2][:, places])
        parts.append(PartialTopK(whole, numbers, {"sgr": 1}, rows, columns, *finder.found()))
    best = PartialTopK.merge(parts).result()
    assert_best(best["image_to_text"], matrix, min(k, 6))
    assert_best(best["text_to_image"], matrix.T, min(k, 4))


def test_long_lists_are_in_order() -> None:
    """A list so long that finding its candidates does not put them in order on the way."""
    k, captions = 700, 3000
    whole = ListedWhole("b", "fake", "fp32", "fp32", "cpu", "t", 2, 2, captions, k)
    matrix = np.random.default_rng(0).integers(-500, 500, (2, captions)).astype(np.float32)
    parts = []
    for number, columns in enumerate(np.split(np.random.default_rng(1).permutation(captions), 2)):
        finder = BestFinder(Touched(np.arange(2), np.sort(columns), columns[:0]), 2, captions, k)
        finder.add(0, columns, matrix[:, columns])
        own = np.arange(2), np.sort(columns)
        parts.append(PartialTopK(whole, np.array([number]), {"sgr": 1}, *own, *finder.found()))
    best = PartialTopK.merge(parts).result()
    assert_best(best["image_to_text"], matrix, k)
    assert_best(best["text_to_image"], matrix.T, 2)


def test_foreign_parts_and_missing_tiles_are_refused(exported: Bundle) -> None:
    inputs = tied_inputs()
    with load(exported, engine="native", tile=TILE) as scorer:
        thresholds = scorer.rank_thresholds(*inputs)
        first, second, of_two = (
            scorer.top_k_tiles(*inputs, k, [tile]) for k, tile in ((3, 0), (3, 1), (2, 1))
        )
        ranks = scorer.count_tiles(*inputs, thresholds, [1])
        total = first.whole.tiles
        with refused(InputError, "k", expected=3, got="2"):
            first + of_two
        with refused(InputError, 0, got=naming(2)):
            first + first
        with refused(InputError, expected="PartialTopK", got="PartialRanks"):
            PartialTopK.merge([first, ranks])  # type: ignore[list-item]
        with pytest.raises(TypeError):
            first + ranks  # type: ignore[operator]
        with refused(InputError, expected=naming(total), got=naming(total - 2)):
            (first + second).result()
        for k in (0, True, 2.5, None):
            with refused(InputError, "k", expected=naming(1)):
                scorer.top_k_tiles(*inputs, k)  # type: ignore[arg-type]
