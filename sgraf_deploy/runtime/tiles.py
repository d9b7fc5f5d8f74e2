"""Cuts images x captions into tiles of captions of similar length, from a memory budget.

The tiles depend on the sizes, the budget and the model alone, never on threads. Captions are
sorted by length (ties in the caller's order), consecutive ones of similar length share a block,
and a block meets the images in as many tiles as the budget asks for.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.engine import CACHED_TILES, TileAdvice
from sgraf_deploy.runtime.native.workspace import workspace_bytes

SHARES = 16
"""On a CPU: captions of one length give at least so many tiles, unless these would be small."""

DEFAULT_TILE_BYTES = 2**30
"""What one tile may take when no memory budget is given."""

PANEL_BYTES = 64 * 2**20
"""All captions meet this much of the result's rows before the next rows are begun, so that a
memory-mapped result larger than memory is written once."""

_FLOAT = 4


@dataclass(frozen=True)
class TileShape:
    """A fixed tile, in place of the one that is planned: at most so many images x captions."""

    images: int
    captions: int

    def __post_init__(self) -> None:
        sides: tuple[object, ...] = (self.images, self.captions)
        for count in sides:
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError("tile shape", expected="integers, at least 1 x 1", got=self)


@dataclass(frozen=True)
class TileLimits:
    """How large a tile may be: its estimated bytes, and what the engine advises.

    With `profiles`, it also fits one of them: the largest sizes by axis of a compiled engine.
    """

    tile_bytes: int = DEFAULT_TILE_BYTES
    advice: TileAdvice = CACHED_TILES
    profiles: tuple[Mapping[str, int], ...] = ()


@dataclass(frozen=True)
class Tile:
    """Images first_image … end_image - 1 x the captions at these places of the plan's order."""

    first_image: int
    end_image: int
    first_caption: int
    end_caption: int
    words: int
    """The longest caption of the block: what all of them are padded to."""

    @property
    def images(self) -> slice:
        """The rows of the result."""
        return slice(self.first_image, self.end_image)

    @property
    def captions(self) -> slice:
        """The places in the plan's order."""
        return slice(self.first_caption, self.end_caption)

    @property
    def units(self) -> int:
        """The number of pairs."""
        return (self.end_image - self.first_image) * (self.end_caption - self.first_caption)

    @property
    def cost(self) -> int:
        """Images x captions x words, which a tile's memory is proportional to."""
        return self.units * self.words

    def halves(self) -> tuple[Tile, ...]:
        """Two tiles along the longer side, or none for a single pair."""
        images = self.end_image - self.first_image
        captions = self.end_caption - self.first_caption
        if images * captions == 1:
            return ()
        if images >= captions:
            middle = self.first_image + images // 2
            return replace(self, end_image=middle), replace(self, first_image=middle)
        middle = self.first_caption + captions // 2
        return replace(self, end_caption=middle), replace(self, first_caption=middle)


@dataclass(frozen=True)
class Block:
    """Captions first … end - 1 of the plan's order, and how many images a tile of them takes."""

    first: int
    end: int
    words: int
    images: int


@dataclass(frozen=True, eq=False, repr=False)
class TilePlan:
    """The tiles of one matrix: `order` (captions,) sorts the captions by length."""

    images: int
    lengths: NDArray[np.int32]
    order: NDArray[np.int64]
    blocks: tuple[Block, ...]
    configs: tuple[ModelConfig, ...]
    workers: int = 1
    """How many tiles are scored at a time; the tiles themselves do not depend on it."""
    ragged: bool = False
    """Whether the engine computes no padding, and a few hundred words at a time."""

    @property
    def captions(self) -> int:
        """The number of captions."""
        return len(self.order)

    @property
    def pairs(self) -> int:
        """The number of pairs."""
        return self.images * self.captions

    @property
    def result_bytes(self) -> int:
        """The size of the float32 result."""
        return self.pairs * _FLOAT

    @cached_property
    def tile_bytes(self) -> int:
        """The estimate for the largest tile, all members together."""
        sizes = (
            _members_bytes(
                self.configs, block.images, block.end - block.first, block.words, self.ragged
            )
            for block in self.blocks
        )
        return max(sizes, default=0)

    @property
    def padding(self) -> float:
        """The share of the words in all tiles that is computed for nothing, 0 … 1."""
        if self.ragged:
            return 0.0
        padded = sum((block.end - block.first) * block.words for block in self.blocks)
        return 1.0 - float(self.lengths.sum(dtype=np.int64)) / padded if padded else 0.0

    def __repr__(self) -> str:
        matrix = f"{self.images:,} images x {self.captions:,} captions"
        return f"TilePlan({matrix}, tiles: {len(self):,} of up to {self.tile_bytes / 1e6:.1f} MB)"

    def __len__(self) -> int:
        return sum(
            math.ceil((panel.stop - panel.start) / block.images)
            for panel in self._panels()
            for block in self.blocks
        )

    def __iter__(self) -> Iterator[Tile]:
        # The longest first: later tiles then fit into the memory that an engine keeps.
        for panel in self._panels():
            for block in reversed(self.blocks):
                for rows in _even_ranges(panel.start, panel.stop, block.images):
                    yield Tile(rows.start, rows.stop, block.first, block.end, block.words)

    def _panels(self) -> Iterator[range]:
        rows = PANEL_BYTES // (_FLOAT * max(1, self.captions))
        tallest = max((block.images for block in self.blocks), default=1)
        yield from _even_ranges(0, self.images, max(rows, tallest))


def plan_tiles(
    images: int,
    caption_lengths: NDArray[np.int32],
    configs: Collection[ModelConfig],
    limits: TileLimits,
    shape: TileShape | None = None,
    *,
    workers: int = 1,
) -> TilePlan:
    """Plan the tiles for so many images and captions (captions,) of these lengths.

    Every tile fits `limits`, all members together, down to a single pair, which is always
    allowed. `shape` replaces the limits by an upper bound on each side.
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
            found = _fitting_shape(images, ordered, first, configs, limits)
        else:
            similar = similar_end(ordered, first) - first
            found = TileShape(min(images, shape.images), min(similar, shape.captions))
        found = _profiled(found, limits.profiles)
        end = first + found.captions
        blocks.append(Block(first, end, int(ordered[end - 1]), found.images))
        first = end
    ragged = limits.advice.words is not None
    return TilePlan(images, caption_lengths, order, tuple(blocks), tuple(configs), workers, ragged)


def estimate_tile_bytes(config: ModelConfig, images: int, captions: int, words: int) -> int:
    """About how many bytes a tile takes while it is scored, its gathered captions included.

    Per image, caption and word, float32: three vectors of `embed` (attended context, its
    difference from the word, one beside them), three of `regions` (attention), four of `sim_dim`
    (alignments) and, for SGR, two rows of edges. Then the captions' words twice, as gathered and
    transposed, and the images once, which float16 graphs convert. ONNX Runtime stays just below
    it (measured: 33 of 40 MB at embed 32, 17 of 37 MB at embed 1024).
    """
    cells = images * captions * words
    edges = 2 * images * captions * (words + 1) ** 2 if config.module == "SGR" else 0
    floats = (
        cells * (3 * config.embed + 3 * config.regions)
        + 4 * images * captions * (words + 1) * config.sim_dim
        + edges
        + 2 * captions * (words + 1) * config.embed
        + images * (config.regions + 1) * config.embed
    )
    return _FLOAT * floats


def estimate_ragged_bytes(config: ModelConfig, captions: int, words: int) -> int:
    """About how many bytes a tile takes that is scored a few hundred words at a time.

    The captions' words as gathered, by rows of which each takes two numbers, and for those few
    hundred what engine native works in (5.6 MB at embed 1024, sim_dim 256 and usual captions).
    """
    gathered = captions * (words + 1) * (config.embed + 2)
    return _FLOAT * gathered + workspace_bytes(config, words)


def _members_bytes(
    configs: Collection[ModelConfig], images: int, captions: int, words: int, ragged: bool
) -> int:
    """A tile's bytes for all members: each keeps what its scorer took for the next tile."""
    if ragged:
        logits = _FLOAT * images * captions
        return sum(logits + estimate_ragged_bytes(config, captions, words) for config in configs)
    return sum(estimate_tile_bytes(config, images, captions, words) for config in configs)


def similar_end(ordered: NDArray[np.int32], first: int) -> int:
    """The end of the captions, by rising length, that may be padded like the one at `first`.

    They have at most an eighth more words than it has, or one more.
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
    """The tile at caption `first`, within the limits: few images x many captions on a CPU."""
    pairs, wide = _similar_tile(images, ordered[first:], configs, limits)
    longest = int(ordered[first + wide - 1])
    high = _even_share(images, max(1, pairs // wide), limits)
    while high * wide > 1 and limits.tile_bytes < _members_bytes(
        configs, high, wide, longest, False
    ):
        high, wide = (high // 2, wide) if high >= wide else (high, wide // 2)
    return TileShape(high, wide)


def _similar_tile(
    images: int, ordered: NDArray[np.int32], configs: Collection[ModelConfig], limits: TileLimits
) -> tuple[int, int]:
    """Pairs and captions of a tile of the first captions, all of about the same length."""
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
    return pairs, math.ceil(similar / math.ceil(similar / wide))  # Or a few would be left over.


def _ragged_blocks(
    images: int, ordered: NDArray[np.int32], configs: Collection[ModelConfig], limits: TileLimits
) -> Iterator[Block]:
    """Blocks of about the same number of words, for an engine that computes no padding."""
    ends = np.cumsum(ordered)
    total, captions = int(ends[-1]), len(ordered)
    most, least = _pairs_at_length(round(total / captions), configs, limits)
    words = _share(images * captions, most, least) * total // captions  # of a tile, image by image
    together = limits.advice.words or 1
    count = math.ceil(total / max(together, words // images))
    high = _even_share(images, max(1, words * count // total), limits)
    tiles = count * math.ceil(images / high)
    if tiles <= SHARES:  # So few tiles are better a power of two.
        count = 1 << (count.bit_length() - 1)
    while True:
        stops = _even_stops(ends, count)
        widest = int(np.diff(stops, prepend=0).max())
        needed = _members_bytes(configs, high, widest, int(ordered[-1]), True)
        if needed <= limits.tile_bytes or count == captions:
            break
        count = min(captions, 2 * count)
    for start, stop in pairwise([0, *stops]):
        yield Block(start, stop, int(ordered[stop - 1]), high)


def _even_stops(ends: NDArray[np.int64], count: int) -> list[int]:
    """Where to cut captions, the words up to the end of each given, into so many even blocks."""
    if count == len(ends):
        return list(range(1, count + 1))
    shares = ends[-1] * np.arange(1, count) / count
    stops: list[int] = np.unique([*(np.searchsorted(ends, shares) + 1), len(ends)]).tolist()
    return stops


def _pairs_at_length(
    words: int, configs: Collection[ModelConfig], limits: TileLimits
) -> tuple[int, int]:
    """The most pairs of a tile of captions of so many words, and the least of a small job."""
    most = _pairs_within(limits.advice.intermediate_bytes or limits.tile_bytes, words, configs)
    return most, _smallest_share(words, configs, limits)


def _share(job: int, most: int, least: int) -> int:
    """At most so many pairs; a small job is cut up, or one core would do it alone."""
    return min(most, max(least, job // SHARES))


def _smallest_share(words: int, configs: Collection[ModelConfig], limits: TileLimits) -> int:
    """The pairs that a small job is cut up into."""
    flop = sum(2 * config.embed * config.sim_dim * words for config in configs)
    return max(limits.advice.smallest_share, round(limits.advice.smallest_flop / flop))


def _even_share(images: int, most: int, limits: TileLimits) -> int:
    """At most so many images per tile; on a CPU in a power of two of tiles, while these are few.

    Seven tiles keep the second of two cores idle for a while, eight do not.
    """
    tiles = math.ceil(images / most)
    if limits.advice.intermediate_bytes is None or tiles > SHARES:
        return min(images, most)
    return math.ceil(images / (1 << (tiles - 1).bit_length()))


def _profiled(shape: TileShape, profiles: Collection[Mapping[str, int]]) -> TileShape:
    """As much of a tile as one profile takes, cut into even parts; all of it without profiles."""
    if not profiles:
        return shape
    best = max(
        profiles,
        key=lambda most: min(shape.images, most["images"]) * min(shape.captions, most["captions"]),
    )
    parts = math.ceil(shape.captions / best["captions"])
    return TileShape(min(shape.images, best["images"]), math.ceil(shape.captions / parts))


def _pairs_within(intermediate: int, words: int, configs: Collection[ModelConfig]) -> int:
    """How many pairs have a (pairs, words, embed) float32 of so many bytes; at least one."""
    widest = max(config.embed for config in configs)
    return max(1, intermediate // (_FLOAT * widest * words))


def _even_ranges(start: int, stop: int, step: int) -> Iterator[range]:
    """Ranges of at most `step` that differ by no more than one, in as few as need be."""
    span = stop - start
    count = math.ceil(span / step)
    for index in range(count):
        yield range(start + span * index // count, start + span * (index + 1) // count)
