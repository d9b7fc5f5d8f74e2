"""How large tiles are: what the docstrings say of their sizes, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from support.onnx_bundles import small_config
from support.refusals import refused

from sgraf_deploy.config import Module
from sgraf_deploy.engines.base import LARGEST_TILES, TileAdvice
from sgraf_deploy.engines.native.workspace import workspace_bytes
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import tiles
from sgraf_deploy.runtime.tiles import (
    TileLimits,
    TileShape,
    Tiling,
    estimate_ragged_bytes,
    estimate_tile_bytes,
)
from sgraf_deploy.runtime.tiling import make_tiling, similar_end

SMALL = small_config()
WORDS = 10
PAIR = 4 * SMALL.embed * WORDS
"""Bytes of one pair's (words, embed) in float32, which is what engines advise tiles by."""
NEVER = 10**9


def tiling_of(images: int, captions: int, limits: TileLimits, lengths: int = WORDS) -> Tiling:
    """The tiling for captions of one length."""
    return make_tiling(images, np.full(captions, lengths, np.int32), [SMALL], limits)


@pytest.mark.parametrize(("module", "floats"), [("SAF", 0), ("SGR", 2 * 2 * 3 * 6**2)])
def test_the_estimate_counts_what_its_docstring_does(module: Module, floats: int) -> None:
    config = replace(SMALL, module=module, embed=1024, sim_dim=256, regions=36)
    floats += 2 * 3 * 5 * (3 * 1024 + 3 * 36)  # images x captions x words
    floats += 2 * 3 * 6 * 4 * 256  # one alignment more, the global one
    floats += 2 * 3 * 6 * 1024  # the captions, twice
    floats += 2 * 37 * 1024  # the images
    assert estimate_tile_bytes(config, images=2, captions=3, words=5) == 4 * floats


def test_the_estimate_without_padding_counts_what_its_docstring_does() -> None:
    config = replace(SMALL, embed=1024, sim_dim=256, regions=36)
    gathered = 4 * 3 * (1024 + 4)
    assert estimate_ragged_bytes(config, 3, 5) == gathered + workspace_bytes(config, 5)
    limits = TileLimits(advice=TileAdvice(None, words=NEVER))
    one = tiling_of(2, 3, limits).tile_bytes
    assert one == 4 * 2 * 3 + estimate_ragged_bytes(SMALL, 3, WORDS)


@pytest.mark.parametrize(("first", "end"), [(0, 2), (2, 5), (5, 7), (6, 8), (8, 9)])
def test_captions_are_similar_within_an_eighth_or_a_word(first: int, end: int) -> None:
    lengths = np.array([1, 2, 16, 17, 18, 19, 20, 22, 40], np.int32)
    assert similar_end(lengths, first) == end


@pytest.mark.parametrize(
    ("pairs", "images", "captions", "tile"),
    [
        pytest.param(10, 20, 1, (10, 1), id="two-tiles"),
        pytest.param(10, 70, 1, (9, 1), id="eight-tiles-where-seven-would-do"),
        pytest.param(10, 80, 1, (10, 1), id="eight-tiles"),
        pytest.param(10, 85, 1, (6, 1), id="sixteen-tiles-where-nine-would-do"),
        pytest.param(10, 161, 1, (10, 1), id="many-tiles"),
        pytest.param(64, 100, 100, (4, 15), id="four-times-as-wide-as-high"),
        pytest.param(38, 3, 38, (3, 10), id="wide-as-images-are-few"),
        pytest.param(1, 5, 5, (1, 2), id="the-smallest"),
        pytest.param(64, 1, 5000, (1, 64), id="one-image"),
    ],
)
def test_a_tile_of_an_engine_that_works_in_caches(
    pairs: int, images: int, captions: int, tile: tuple[int, int]
) -> None:
    advice = TileAdvice(pairs * PAIR, smallest_share=NEVER)
    block = tiling_of(images, captions, TileLimits(advice=advice)).blocks[0]
    assert (block.images, block.end - block.first) == tile


def test_similar_captions_count_as_long_as_the_longest() -> None:
    """Eight pairs of nine words fit, a square of two: as wide as four; nine of eight would, too."""
    lengths = np.array([8] * 11 + [9], np.int32)
    advice = TileAdvice(72 * 4 * SMALL.embed, smallest_share=NEVER)
    tiling = make_tiling(100, lengths, [SMALL], TileLimits(advice=advice))
    assert tiling.blocks[0].end == 4


@pytest.mark.parametrize(("members", "captions"), [(1, 29), (2, 16)])
def test_a_small_job_is_cut_into_so_much_work(members: int, captions: int) -> None:
    """32 pairs of one member are, and 16 of two; 200 captions make even tiles of them."""
    flop = 32 * 2 * SMALL.embed * SMALL.sim_dim * WORDS
    advice = TileAdvice(1000 * PAIR, smallest_share=1, smallest_flop=flop)
    lengths = np.full(200, WORDS, np.int32)
    tiling = make_tiling(1, lengths, [SMALL] * members, TileLimits(advice=advice))
    assert tiling.blocks[0].end == captions


@pytest.mark.parametrize(
    "advice", [LARGEST_TILES, TileAdvice(NEVER, NEVER, words=NEVER)], ids=["padded", "ragged"]
)
def test_a_budget_is_used_up_to_its_last_byte(advice: TileAdvice) -> None:
    whole = tiling_of(100, 60, TileLimits(advice=advice))
    assert (len(whole), len(whole.blocks)) == (1, 1)
    again = tiling_of(100, 60, TileLimits(whole.tile_bytes, advice))
    assert again.blocks == whole.blocks
    less = tiling_of(100, 60, TileLimits(whole.tile_bytes - 1, advice))
    assert len(less) == 2


@pytest.mark.parametrize(
    ("images", "captions", "words", "pairs", "blocks", "high"),
    [
        pytest.param(1, 64, 1, 1, 64, 1, id="a-pair"),
        pytest.param(1, 160, 1, NEVER, 16, 1, id="a-small-job"),
        pytest.param(3, 160, 1, 10, 49, 3, id="a-third-of-its-words-for-each-image"),
        pytest.param(3, 160, 200, 10, 8, 1, id="more-words-than-its-pairs-have"),
        pytest.param(7, 160, 56, 10, 29, 1, id="whole-images"),
        pytest.param(3, 60, 1, 60, 2, 3, id="two-tiles-where-three-would-do"),
    ],
)
def test_a_tile_of_an_engine_without_padding(
    images: int, captions: int, words: int, pairs: int, blocks: int, high: int
) -> None:
    """Of so many pairs at most, and together so many words of captions at least."""
    share = 1 if pairs == NEVER else NEVER
    advice = TileAdvice(pairs * PAIR, smallest_share=share, words=words)
    tiling = tiling_of(images, captions, TileLimits(NEVER, advice))
    assert (len(tiling.blocks), tiling.blocks[0].images) == (blocks, high)


def test_of_several_profiles_the_one_that_takes_most_of_a_tile_counts() -> None:
    profiles = (
        {"images": 9, "captions": 1, "words": 12},
        {"images": 8, "captions": 4, "words": 12},
        {"images": 1, "captions": 10, "words": 12},
    )
    limits = TileLimits(advice=LARGEST_TILES, profiles=profiles)
    tiling = tiling_of(10, 10, limits)
    assert [(block.first, block.end, block.images) for block in tiling.blocks] == [
        *((0, 4, 8), (4, 7, 8), (7, 10, 8)),
    ]


@pytest.mark.parametrize(
    ("captions", "panel", "images", "starts"),
    [(6, 4 * 6 * 10 + 12, 21, [0, 3, 7, 10, 14, 17]), (1, 4 * 10, 12, [0, 3, 6, 9])],
    ids=["whole-rows", "one-caption"],
)
def test_a_panel_has_whole_rows(
    captions: int, panel: int, images: int, starts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten: 21 rows are three panels of seven, and 12 are two of six."""
    monkeypatch.setattr(tiles, "PANEL_BYTES", panel)
    lengths = np.full(captions, WORDS, np.int32)
    tiling = make_tiling(images, lengths, [SMALL], TileLimits(), TileShape(5, captions))
    assert [tile.first_image for tile in tiling] == starts


@pytest.mark.parametrize("side", [True, 1.5, "2"])
def test_a_side_of_a_tile_is_an_integer(side: object) -> None:
    with refused(InputError):
        TileShape(side, 2)  # type: ignore[arg-type]
    with refused(InputError):
        TileShape(2, side)  # type: ignore[arg-type]


def test_a_tiling_is_for_one_worker_by_itself() -> None:
    assert tiling_of(1, 1, TileLimits()).workers == 1
    lengths = np.full(1, WORDS, np.int32)
    assert make_tiling(1, lengths, [SMALL], TileLimits(), workers=3).workers == 3
