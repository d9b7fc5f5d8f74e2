"""Cuts images x captions into tiles of captions of similar length, from a memory budget.

The tiles depend on the sizes, the budget and the model alone, never on threads. Captions are
sorted by length (captions of the same length stay in the caller's order), consecutive captions of
similar length share a block, and a block is combined with the images in as many tiles as the
budget asks for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.runtime.tiles import (
    Block,
    TileLimits,
    TileShape,
    Tiling,
    members_bytes,
    panel_images,
)

SHARES = 16
"""On a CPU, captions of one length give at least so many tiles, unless these would be small."""

_FLOAT = 4


def make_tiling(
    images: int,
    caption_lengths: NDArray[np.int32],
    configs: Collection[ModelConfig],
    limits: TileLimits,
    shape: TileShape | None = None,
    *,
    workers: int = 1,
) -> Tiling:
    """Cut the matrix of so many images and captions (captions,) of these lengths into tiles.

    Every tile fits `limits`, for all members together; a single pair is always allowed. `shape`
    replaces the limits by an upper bound on each side.
    """
    order = np.argsort(caption_lengths, kind="stable")
    ordered = caption_lengths[order]
    blocks: list[Block] = []
    first = 0
    if images and len(ordered) and shape is None and limits.advice.words is not None:
        blocks.extend(_ragged_blocks(images, ordered, configs, limits))
        first = len(ordered)
    while images and first < len(ordered):
        if shape is None:
            fitting = _fitting_shape(images, ordered, first, configs, limits)
        else:
            similar = similar_end(ordered, first) - first
            fitting = TileShape(min(images, shape.images), min(similar, shape.captions))
        fitting = _profiled(fitting, limits.profiles)
        end = first + fitting.captions
        blocks.append(Block(first, end, int(ordered[end - 1]), fitting.images))
        first = end
    ragged = limits.advice.words is not None
    panel = panel_images(len(order), blocks)
    return Tiling(
        images, caption_lengths, order, tuple(blocks), tuple(configs), workers, ragged, panel
    )


def similar_end(ordered: NDArray[np.int32], first: int) -> int:
    """Return where the captions end that may be padded together with the caption at `first`.

    `ordered` are lengths (captions,) in rising order. Such captions have at most an eighth more
    words than the first one, or one more.
    """
    shortest = int(ordered[first])
    return int(np.searchsorted(ordered, shortest + max(1, shortest // 8), side="right"))


def _fitting_shape(
    images: int,
    ordered: NDArray[np.int32],
    first: int,
    configs: Collection[ModelConfig],
    limits: TileLimits,
) -> TileShape:
    """Return the largest tile at caption `first` within the limits.

    On a CPU it has few images and many captions.
    """
    pairs, wide = _similar_tile(images, ordered[first:], configs, limits)
    longest = int(ordered[first + wide - 1])
    high = _even_share(images, max(1, pairs // wide), limits)
    while high * wide > 1 and limits.tile_bytes < members_bytes(
        configs, high, wide, longest, False
    ):
        high, wide = (high // 2, wide) if high >= wide else (high, wide // 2)
    return TileShape(high, wide)


def _similar_tile(
    images: int, ordered: NDArray[np.int32], configs: Collection[ModelConfig], limits: TileLimits
) -> tuple[int, int]:
    """Return the pairs and the captions of a tile of the first captions, of similar length."""
    similar = similar_end(ordered, 0)
    longest = int(ordered[similar - 1])
    advised = limits.advice.intermediate_bytes
    if advised is None:
        pairs = _pairs_within(limits.tile_bytes, longest, configs)
        wide = math.isqrt(pairs)
    else:
        most = _pairs_within(advised, longest, configs)
        pairs = _share(images * similar, most, _smallest_share(longest, configs, limits))
        equal = int(np.searchsorted(ordered, ordered[0], side="right"))
        similar = min(similar, max(equal, math.isqrt(pairs)))
        wide = 2 * math.isqrt(pairs)
    wide = min(similar, max(wide, pairs // images))
    return pairs, math.ceil(similar / math.ceil(similar / wide))  # Otherwise a few would be left.


def _ragged_blocks(
    images: int, ordered: NDArray[np.int32], configs: Collection[ModelConfig], limits: TileLimits
) -> Iterator[Block]:
    """Yield blocks of about the same number of words, for an engine that computes no padding."""
    ends = np.cumsum(ordered, dtype=np.int64)
    total, captions = int(ends[-1]), len(ordered)
    most, least = _pairs_at_length(round(total / captions), configs, limits)
    words = _share(images * captions, most, least) * total // captions  # of one tile
    together = limits.advice.words or 1
    count = math.ceil(total / max(together, words // images))
    high = _even_share(images, max(1, words * count // total), limits)
    tiles = count * math.ceil(images / high)
    if tiles <= SHARES:  # See `_even_share`.
        count = 1 << (count.bit_length() - 1)
    while True:
        stops = _even_stops(ends, count)
        widest = int(np.diff(stops, prepend=0).max())
        needed = members_bytes(configs, high, widest, int(ordered[-1]), True)
        if needed <= limits.tile_bytes or count == captions:
            break
        count = min(captions, 2 * count)
    for start, stop in pairwise([0, *stops]):
        yield Block(start, stop, int(ordered[stop - 1]), high)


def count_batches(
    pairs: int, words: int, configs: Collection[ModelConfig], limits: TileLimits
) -> int:
    """Count the batches of single pairs, of captions of so many words, that suit the engine."""
    share = _share(pairs, *_pairs_at_length(words, configs, limits))
    count = math.ceil(pairs / share)
    return 1 << (count.bit_length() - 1) if count <= SHARES else count  # See `_even_share`.


def _even_stops(ends: NDArray[np.int64], count: int) -> list[int]:
    """Return where to cut captions into so many blocks of about as many words.

    `ends` (captions,) are the words up to the end of each caption.
    """
    if count == len(ends):
        return list(range(1, count + 1))
    shares = ends[-1] * np.arange(1, count) / count
    stops: list[int] = np.unique([*(np.searchsorted(ends, shares) + 1), len(ends)]).tolist()
    return stops


def _pairs_at_length(
    words: int, configs: Collection[ModelConfig], limits: TileLimits
) -> tuple[int, int]:
    """Return the most pairs of a tile of captions of so many words, and the least."""
    most = _pairs_within(limits.advice.intermediate_bytes or limits.tile_bytes, words, configs)
    return most, _smallest_share(words, configs, limits)


def _share(job: int, most: int, least: int) -> int:
    """Return the pairs of a tile; a small job is cut, so that every core has a part of it."""
    return min(most, max(least, job // SHARES))


def _smallest_share(words: int, configs: Collection[ModelConfig], limits: TileLimits) -> int:
    """Return the fewest pairs that a small job is cut into."""
    flop = sum(2 * config.embed * config.sim_dim * words for config in configs)
    return max(limits.advice.smallest_share, round(limits.advice.smallest_flop / flop))


def _even_share(images: int, most: int, limits: TileLimits) -> int:
    """Return the images of a tile, at most so many.

    Few tiles on a CPU become a power of two: seven tiles leave the second of two cores without
    work for a while, eight do not.
    """
    tiles = math.ceil(images / most)
    if limits.advice.intermediate_bytes is None or tiles > SHARES:
        return min(images, most)
    return math.ceil(images / (1 << (tiles - 1).bit_length()))


def _profiled(shape: TileShape, profiles: Collection[Mapping[str, int]]) -> TileShape:
    """Return the largest even part of a tile that one profile allows; all of it without any."""
    if not profiles:
        return shape
    best = max(
        profiles,
        key=lambda most: min(shape.images, most["images"]) * min(shape.captions, most["captions"]),
    )
    parts = math.ceil(shape.captions / best["captions"])
    return TileShape(min(shape.images, best["images"]), math.ceil(shape.captions / parts))


def _pairs_within(intermediate: int, words: int, configs: Collection[ModelConfig]) -> int:
    """Return how many pairs have a (pairs, words, embed) float32 of so many bytes, at least 1."""
    widest = max(config.embed for config in configs)
    return max(1, intermediate // (_FLOAT * widest * words))
