"""The tiles of a matrix, their limits, and the bytes that they take."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.engines.base import CACHED_TILES, TileAdvice
from sgraf_deploy.engines.native.workspace import workspace_bytes
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.schema import Document, decode, encode, parse

PANEL_BYTES = 64 * 2**20
"""The bytes of a panel, which is some rows of the result. A panel is scored with all captions
before the next one begins, so that a memory-mapped result larger than memory is written once."""

_FLOAT = 4


@dataclass(frozen=True)
class TileShape:
    """A fixed size of all tiles, in place of the size that the memory budget gives.

    A tile has at most `images` x `captions` pairs.

    Example:
        >>> tile = sgraf_deploy.TileShape(images=3, captions=1)
        >>> with sgraf_deploy.load("f8k.sgraf", device="cpu", tile=tile) as other:
        ...     other.score(regions, ["a man climbs a rock"]).shape
        (6, 1)
    """

    images: int
    captions: int

    def __post_init__(self) -> None:
        sides: tuple[object, ...] = (self.images, self.captions)
        for count in sides:
            if isinstance(count, bool) or not isinstance(count, int) or count < 1:
                raise InputError("tile shape", expected="integers, at least 1 x 1", got=self)


@dataclass(frozen=True)
class TileLimits:
    """How large a tile may be: its estimated bytes, and the size that suits the engine.

    With `profiles`, the largest sizes by axis that each profile of a plan allows, every tile also
    fits one of them.
    """

    tile_bytes: int = CACHED_TILES.tile_bytes
    advice: TileAdvice = CACHED_TILES
    profiles: tuple[Mapping[str, int], ...] = ()


@dataclass(frozen=True)
class Tile:
    """Some images x some captions, which are scored together.

    The images are the rows first_image … end_image - 1; the captions stand at the places
    first_caption … end_caption - 1 of the tiling's order.
    """

    first_image: int
    end_image: int
    first_caption: int
    end_caption: int
    words: int
    """The length that the captions are padded to, which is that of the longest in the block."""

    @property
    def images(self) -> slice:
        """The tile's rows of the result."""
        return slice(self.first_image, self.end_image)

    @property
    def captions(self) -> slice:
        """The captions' places in the tiling's order."""
        return slice(self.first_caption, self.end_caption)

    @property
    def units(self) -> int:
        """The number of pairs."""
        return (self.end_image - self.first_image) * (self.end_caption - self.first_caption)

    @property
    def cost(self) -> int:
        """Images x captions x words; the memory of a tile is proportional to it."""
        return self.units * self.words

    def halves(self) -> tuple[Tile, ...]:
        """The tile cut in two along its longer side; nothing for a single pair."""
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
    """Captions that share tiles: they stand at the places first … end - 1 of the tiling's order.

    All of them are padded to `words`, and a tile of them has at most `images` images.
    """

    first: int
    end: int
    words: int
    images: int


@dataclass(frozen=True, eq=False, repr=False)
class Tiling:
    """How one matrix is cut into tiles; `order` (captions,) sorts the captions by length.

    Example:
        >>> tiling = scorer.tiling(images, captions)
        >>> tiling.images, tiling.captions, sorted(tiling.order.tolist())
        (6, 2, [0, 1])
        >>> len(tiling), tiling.pairs, tiling.padding < 1
        (1, 12, True)
    """

    images: int
    lengths: NDArray[np.int32]
    order: NDArray[np.int64]
    blocks: tuple[Block, ...]
    configs: tuple[ModelConfig, ...]
    workers: int = 1
    """How many tiles are scored at the same time; the tiles themselves do not depend on it."""
    ragged: bool = False
    """Whether the engine computes no padding, and works on a few hundred words at a time."""
    panel: int = 1
    """The most images of a panel; tiles are numbered panel by panel."""

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
        """The bytes of the float32 result."""
        return self.pairs * _FLOAT

    @cached_property
    def tile_bytes(self) -> int:
        """An estimate of the bytes of the largest tile, for all members together."""
        sizes = (
            members_bytes(
                self.configs, block.images, block.end - block.first, block.words, self.ragged
            )
            for block in self.blocks
        )
        return max(sizes, default=0)

    @property
    def padding(self) -> float:
        """The share of the words in all tiles that is padding, 0 … 1."""
        if self.ragged:
            return 0.0
        padded = sum((block.end - block.first) * block.words for block in self.blocks)
        return 1.0 - float(self.lengths.sum(dtype=np.int64)) / padded if padded else 0.0

    def __repr__(self) -> str:
        matrix = f"{self.images:,} images x {self.captions:,} captions"
        return f"Tiling({matrix}, tiles: {len(self):,} of up to {self.tile_bytes / 1e6:.1f} MB)"

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __iter__(self) -> Iterator[Tile]:
        return self.select(range(len(self)))

    def __getitem__(self, number: int) -> Tile:
        if not 0 <= number < len(self):
            raise IndexError(f"tile {number} of {len(self)}")
        return next(self.select([number]))

    def select(self, numbers: Sequence[int]) -> Iterator[Tile]:
        """Yield the tiles of some numbers, which rise."""
        # The longest captions first: later tiles then fit into the memory that an engine keeps.
        blocks, panel, tiles = self.blocks[::-1], -1, list[Tile]()
        for number in numbers:
            found = int(np.searchsorted(self._ends, number, side="right"))
            if found != panel:
                panel, rows = found, self._panels[found]
                tiles = [
                    Tile(part.start, part.stop, block.first, block.end, block.words)
                    for block in blocks
                    for part in even_ranges(rows.start, rows.stop, block.images)
                ]
            yield tiles[number - int(self._ends[panel])]  # From the end of the panel.

    def split(self, parts: int) -> list[range]:
        """Cut the numbers of all tiles into at most so many ranges, to be shared out.

        They differ by one tile at most, and none is empty.

        Example:
            >>> tiling.split(4)
            [range(0, 1)]
        """
        given: object = parts
        if isinstance(given, bool) or not isinstance(given, int) or given < 1:
            raise InputError("parts", expected="an integer, at least 1", got=parts)
        return list(even_ranges(0, len(self), math.ceil(len(self) / parts))) if len(self) else []

    @cached_property
    def digest(self) -> str:
        """What identifies the tiles and their numbers: a sha256 in hexadecimal digits.

        Example:
            >>> len(tiling.digest), tiling.digest == scorer.tiling(images, captions).digest
            (64, True)
        """
        lengths = hashlib.sha256(self.lengths.astype("<i4").tobytes()).hexdigest()
        content = encode(self._document(())) | {"lengths": lengths}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def save(self, path: PathLike) -> None:
        """Write the tiling as one JSON file, whole or not at all; InputError where it cannot be.

        Example:
            >>> tiling.save("tiling.json")
        """
        lengths = tuple(self.lengths.tolist())
        write_json(path, encode(self._document(lengths)), what="tiling")

    @classmethod
    def load(cls, path: PathLike) -> Tiling:
        """Read a tiling that `save` wrote; it has the same digest.

        Raises:
            DataError: there is no such file, or it is damaged or no tiling.

        Example:
            >>> tiling.save("tiling.json")
            >>> sgraf_deploy.Tiling.load("tiling.json").digest == tiling.digest
            True
        """
        named = f"tiling {path}"
        try:
            value = parse(_DOCUMENT.read(Path(path)), _DOCUMENT)
            found = decode(_Document, value, _DOCUMENT)
            found.check()
        except OSError as error:
            hint = "write one with Tiling.save"
            raise DataError(f"{named} cannot be read", got=error.strerror, hint=hint) from error
        except DataError as error:
            raise error.at(named) from error
        lengths = np.array(found.lengths, np.int32)
        order = np.argsort(lengths, kind="stable")
        sizes = found.images, lengths, order, found.blocks, found.configs
        return cls(*sizes, ragged=found.ragged, panel=found.panel)

    def _document(self, lengths: tuple[int, ...]) -> _Document:
        parts = self.blocks, self.configs, self.ragged, self.panel
        return _Document(1, self.images, lengths, *parts)

    @cached_property
    def _panels(self) -> list[range]:
        return list(even_ranges(0, self.images, self.panel))

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """The number of tiles up to the end of each panel."""
        counts = [
            sum(math.ceil(len(panel) / block.images) for block in self.blocks)
            for panel in self._panels
        ]
        return np.cumsum(counts, dtype=np.int64)


@dataclass(frozen=True)
class _Document:
    """A tiling's file. The order of the captions is not in it: it follows from their lengths."""

    format: Literal[1]
    images: int
    lengths: tuple[int, ...]
    blocks: tuple[Block, ...]
    configs: tuple[ModelConfig, ...]
    ragged: bool
    panel: int

    def check(self) -> None:
        """Raise DataError for tiles that do not cover the matrix once."""
        if min(self.images, self.panel) < 1:
            raise _DOCUMENT.wrong("images, panel", "at least 1", (self.images, self.panel))
        highest, ordered = np.iinfo(np.int32).max, sorted(self.lengths)
        for place in (0, -1) if ordered else ():
            if not 1 <= ordered[place] <= highest:
                raise _DOCUMENT.wrong("lengths", f"1 … {highest}", ordered[place])
        end = 0
        for row, block in enumerate(self.blocks):
            fits = block.first == end < block.end <= len(ordered) and block.images >= 1
            if not fits or block.words != ordered[block.end - 1]:
                expected = f"a block of the captions from place {end} on"
                raise _DOCUMENT.wrong(f"blocks.{row}", expected, encode(block))
            end = block.end
        if end != len(ordered):
            raise _DOCUMENT.wrong("blocks", f"{len(ordered)} captions in them", end)


_DOCUMENT = Document("tiling", DataError, "write it again with Tiling.save", most_bytes=2**30)

TilePlan = Tiling
"""The name that `Tiling` had before; it stays valid."""


def estimate_tile_bytes(config: ModelConfig, images: int, captions: int, words: int) -> int:
    """Estimate the bytes that a tile takes while it is scored, its gathered captions included.

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
    """Estimate the bytes of a tile that engine native scores, a few hundred words at a time.

    They are the captions' global vectors, lengths and offsets as gathered, and the workspace for a
    few hundred words (7.0 MB at embed 1024, sim_dim 256 and usual captions).
    """
    gathered = captions * (config.embed + 4)
    return _FLOAT * gathered + workspace_bytes(config, words)


def members_bytes(
    configs: Collection[ModelConfig], images: int, captions: int, words: int, ragged: bool
) -> int:
    """Add up a tile's bytes for all members: each member keeps its memory for the next tile."""
    if ragged:
        logits = _FLOAT * images * captions
        return sum(logits + estimate_ragged_bytes(config, captions, words) for config in configs)
    return sum(estimate_tile_bytes(config, images, captions, words) for config in configs)


def panel_images(captions: int, blocks: Collection[Block]) -> int:
    """The most images of a panel; at least those of the tallest tile."""
    rows = PANEL_BYTES // (_FLOAT * max(1, captions))
    return max(rows, *(block.images for block in blocks), 1)


def even_ranges(start: int, stop: int, step: int) -> Iterator[range]:
    """Cut a range into as few as possible of at most `step`, which differ by one at most."""
    span = stop - start
    count = math.ceil(span / step)
    for index in range(count):
        yield range(start + span * index // count, start + span * (index + 1) // count)
