"""Tiles cover every pair once, stay within their limits and waste little on padding."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.onnx_bundles import small_config
from support.refusals import naming, refused

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.engines.base import LARGEST_TILES, TileAdvice
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import tiles
from sgraf_deploy.runtime.tiles import (
    Tile,
    TileLimits,
    TileShape,
    Tiling,
    estimate_ragged_bytes,
    estimate_tile_bytes,
)
from sgraf_deploy.runtime.tiling import make_tiling

SMALL = small_config()
PAPER = replace(SMALL, embed=1024, sim_dim=256, regions=36, img_dim=2048)
TINY_LIMITS = TileLimits(tile_bytes=40_000, advice=TileAdvice(4_000))


def lengths_of(captions: int, low: int = 8, high: int = 20) -> NDArray[np.int32]:
    return np.random.default_rng(captions).integers(low, high + 1, captions).astype(np.int32)


def counts(tiling: Tiling) -> NDArray[np.int64]:
    """How many tiles cover each pair, in the caller's order."""
    covered = np.zeros((tiling.images, tiling.captions), dtype=np.int64)
    for tile in tiling:
        covered[tile.images, tiling.order[tile.captions]] += 1
    return covered


@pytest.mark.parametrize(
    ("images", "captions"),
    [(1, 1), (1, 50), (50, 1), (7, 13), (64, 64)],
    ids=lambda size: f"{size}",
)
@pytest.mark.parametrize("config", [SMALL, PAPER], ids=["embed-8", "embed-1024"])
@pytest.mark.parametrize("limits", [TINY_LIMITS, TileLimits()], ids=["tiny", "default"])
def test_every_pair_is_in_one_tile(
    images: int, captions: int, config: ModelConfig, limits: TileLimits
) -> None:
    tiling = make_tiling(images, lengths_of(captions), [config], limits)
    assert np.array_equal(counts(tiling), np.ones((images, captions)))
    assert len(tiling) == len(list(tiling))
    assert tiling.pairs == images * captions
    assert tiling.result_bytes == 4 * images * captions


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)], ids=str)
def test_nothing_needs_no_tile(shape: tuple[int, int]) -> None:
    tiling = make_tiling(shape[0], lengths_of(shape[1]), [SMALL], TileLimits())
    assert list(tiling) == []
    assert (len(tiling), tiling.tile_bytes, tiling.padding) == (0, 0, 0.0)


@given(
    st.integers(1, 40),
    st.lists(st.integers(1, 60), min_size=1, max_size=60),
    st.integers(1, 30),
    st.integers(0, 5),
)
def test_a_tile_is_as_long_as_its_longest_caption(
    images: int, lengths: list[int], budget: int, scale: int
) -> None:
    limits = TileLimits(tile_bytes=budget * 10**scale, advice=LARGEST_TILES)
    given_lengths = np.array(lengths, dtype=np.int32)
    tiling = make_tiling(images, given_lengths, [SMALL], limits)
    assert np.array_equal(counts(tiling), np.ones((images, len(lengths))))
    for tile in tiling:
        found = given_lengths[tiling.order[tile.captions]]
        assert found.max() == tile.words
        assert tile.words <= found.min() + max(1, found.min() // 4)
        pairs = (tile.end_image - tile.first_image, tile.end_caption - tile.first_caption)
        fits = estimate_tile_bytes(SMALL, *pairs, tile.words) <= limits.tile_bytes
        assert fits or pairs == (1, 1)


def test_captions_of_one_length_keep_their_order() -> None:
    lengths = lengths_of(500, 5, 6)
    tiling = make_tiling(3, lengths, [SMALL], TileLimits())
    expected = [*np.flatnonzero(lengths == 5), *np.flatnonzero(lengths == 6)]
    assert tiling.order.tolist() == expected


@pytest.mark.parametrize("config", [SMALL, PAPER], ids=["embed-8", "embed-1024"])
def test_the_intermediate_stays_within_its_limit(config: ModelConfig) -> None:
    limits = TileLimits(advice=TileAdvice(2**20))
    tiling = make_tiling(200, lengths_of(200), [SMALL, config], limits)
    sizes = [4 * tile.cost * config.embed for tile in tiling]
    assert max(sizes) <= 2**20
    assert np.median(sizes) > 2**19 or config is SMALL


def test_a_larger_budget_means_fewer_tiles() -> None:
    found = [
        len(make_tiling(300, lengths_of(300), [PAPER], TileLimits(budget, LARGEST_TILES)))
        for budget in (2**20, 2**24, 2**28)
    ]
    assert found[0] > 4 * found[1] > 16 * found[2]


@given(
    st.integers(1, 40),
    st.lists(st.integers(1, 60), min_size=1, max_size=60),
    st.integers(1, 200),
    st.integers(20_000, 10_000_000),
)
def test_where_padding_costs_nothing_captions_of_any_length_share_a_tile(
    images: int, lengths: list[int], words: int, budget: int
) -> None:
    limits = TileLimits(budget, TileAdvice(2**24, words=words))
    given_lengths = np.array(lengths, dtype=np.int32)
    tiling = make_tiling(images, given_lengths, [PAPER], limits)
    assert np.array_equal(counts(tiling), np.ones((images, len(lengths))))
    for tile in tiling:
        assert given_lengths[tiling.order[tile.captions]].max() == tile.words
        captions = tile.end_caption - tile.first_caption
        assert estimate_ragged_bytes(PAPER, captions, tile.words) <= budget or captions == 1
    assert tiling.padding == 0.0


@pytest.mark.parametrize(
    ("images", "captions", "words"), [(1000, 500, 120), (45, 225, 190), (1, 5000, 9000)]
)
def test_such_tiles_have_about_the_same_number_of_words(
    images: int, captions: int, words: int
) -> None:
    lengths = lengths_of(captions)
    advice = TileAdvice(2**25, smallest_flop=2e10, words=120)
    tiling = make_tiling(images, lengths, [PAPER], TileLimits(advice=advice))
    found = [lengths[tiling.order[tile.captions]].sum() for tile in tiling]
    assert max(found) - min(found) <= 2 * lengths.max()
    assert 0.5 * words <= np.mean(found) <= words


def test_a_few_such_tiles_are_a_power_of_two() -> None:
    for captions in (100, 225, 300, 450):
        advice = TileAdvice(2**25, smallest_flop=6e7, words=120)
        tiling = make_tiling(45, lengths_of(captions), [SMALL], TileLimits(advice=advice))
        assert len(tiling) in (1, 2, 4, 8, 16)


def test_every_members_tile_must_fit() -> None:
    limits = TileLimits(tile_bytes=2**20, advice=LARGEST_TILES)
    alone = make_tiling(50, lengths_of(50), [SMALL], limits)
    both = make_tiling(50, lengths_of(50), [SMALL, PAPER], limits)
    assert len(both) > len(alone)
    assert both.tile_bytes <= 2**20
    assert both.tile_bytes > alone.tile_bytes / 2


def test_few_images_meet_more_captions() -> None:
    (*_, tile) = make_tiling(1, np.full(5000, 10, np.int32), [PAPER], TileLimits())
    words = 4 * 2**20 // (4 * 1024)
    assert 0.9 * words // 10 < tile.end_caption - tile.first_caption <= words // 10


@pytest.mark.parametrize(("captions", "pairs"), [(500, 30), (40, 14), (9, 9)])
def test_a_small_job_is_cut_up_for_every_core(captions: int, pairs: int) -> None:
    (*_, tile) = make_tiling(1, np.full(captions, 10, np.int32), [PAPER], TileLimits())
    assert tile.units == pairs


def test_a_single_long_caption_is_a_tile_of_its_own() -> None:
    lengths = np.array([5, 100_000, 5, 5], dtype=np.int32)
    tiling = make_tiling(4, lengths, [PAPER], TINY_LIMITS)
    long_tiles = [tile for tile in tiling if tile.words == 100_000]
    assert [(tile.units, tiling.order[tile.first_caption]) for tile in long_tiles] == [(1, 1)] * 4


def test_padding_is_the_share_of_words_that_are_none() -> None:
    tiling = make_tiling(1, np.array([4, 5, 9], dtype=np.int32), [SMALL], TileLimits())
    assert [(block.first, block.end, block.words) for block in tiling.blocks] == [
        (0, 2, 5),
        (2, 3, 9),
    ]
    assert tiling.padding == pytest.approx(1 - 18 / 19)


def test_captions_of_the_paper_waste_little() -> None:
    tiling = make_tiling(1000, lengths_of(5000), [PAPER], TileLimits())
    assert tiling.padding < 0.01


def test_captions_of_one_length_share_no_tile_with_others_if_there_are_enough() -> None:
    tiling = make_tiling(
        20, np.repeat(np.array([10, 11, 12], np.int32), [40, 40, 3]), [PAPER], TileLimits()
    )
    found = {(tile.words, tile.end_caption <= 80) for tile in tiling}
    assert found == {(10, True), (11, True), (12, False)}
    assert tiling.padding == 0.0


def test_few_captions_of_one_length_are_joined_by_slightly_longer_ones() -> None:
    tiling = make_tiling(
        20, np.repeat(np.array([10, 11], np.int32), [3, 40]), [PAPER], TileLimits()
    )
    assert tiling.blocks[0].words == 11
    assert 4 <= tiling.blocks[0].end <= 10


def test_a_fixed_shape_bounds_both_sides() -> None:
    tiling = make_tiling(10, np.full(9, 4, np.int32), [PAPER], TINY_LIMITS, TileShape(4, 2))
    shapes = {(t.end_image - t.first_image, t.end_caption - t.first_caption) for t in tiling}
    assert shapes == {(4, 2), (3, 2), (4, 1), (3, 1)}
    assert np.array_equal(counts(tiling), np.ones((10, 9)))


@pytest.mark.parametrize("shape", [(0, 1), (1, 0), (-1, 5)], ids=str)
def test_an_empty_shape_is_refused(shape: tuple[int, int]) -> None:
    with refused(InputError, expected=naming(1), got=naming(*shape)):
        TileShape(*shape)


def test_a_result_of_many_rows_is_filled_panel_by_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiles, "PANEL_BYTES", 4 * 6 * 10)  # 10 rows of 6 captions
    tiling = make_tiling(25, np.full(6, 4, np.int32), [SMALL], TileLimits(), TileShape(5, 2))
    starts = [(tile.first_image, tile.first_caption) for tile in tiling]
    panels = [(0, 4), (8, 12), (16, 20)]
    assert starts == [(row, column) for rows in panels for column in (4, 2, 0) for row in rows]
    assert np.array_equal(counts(tiling), np.ones((25, 6)))
    assert len(tiling) == len(list(tiling))


def test_halves_of_a_tile_cover_it() -> None:
    whole = [Tile(3, 8, 10, 13, 7)]
    singles: list[Tile] = []
    while whole:
        tile = whole.pop(0)
        halves = tile.halves()
        assert halves == () or sum(half.units for half in halves) == tile.units
        assert halves == () or sum(half.cost for half in halves) == tile.cost
        (whole if halves else singles).extend(halves or [tile])
    found = {(tile.first_image, tile.first_caption) for tile in singles}
    assert len(singles) == 15
    assert found == {(image, caption) for image in range(3, 8) for caption in range(10, 13)}


def test_the_longer_side_is_halved() -> None:
    assert Tile(0, 4, 0, 3, 5).halves() == (Tile(0, 2, 0, 3, 5), Tile(2, 4, 0, 3, 5))
    assert Tile(0, 3, 0, 4, 5).halves() == (Tile(0, 3, 0, 2, 5), Tile(0, 3, 2, 4, 5))
