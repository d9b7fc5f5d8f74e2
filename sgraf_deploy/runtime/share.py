"""Some tiles of a matrix: what one of several workers scores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.tallies import Touched
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.tiles import Tile, Tiling

TileNumbers = range | Sequence[int] | NDArray[Any]
"""Numbers of tiles, from 0, in any order, each once."""


@dataclass(frozen=True, eq=False)
class Share:
    """The tiles of some rising `numbers`; the images that are there begin at `first_image`."""

    tiling: Tiling
    numbers: NDArray[np.int64]
    first_image: int = 0

    @classmethod
    def whole(cls, tiling: Tiling) -> Share:
        """All tiles."""
        return cls(tiling, np.arange(len(tiling)))

    def __iter__(self) -> Iterator[Tile]:
        return self.tiling.select(self.numbers.tolist())

    @property
    def pairs(self) -> int:
        """The number of pairs in the tiles."""
        if len(self.numbers) == len(self.tiling):
            return self.tiling.pairs
        return sum(tile.units for tile in self)

    def touched(self, captions_per_image: int | None = None) -> Touched:
        """The images and captions of the tiles; the captions whose image is there, if there are."""
        images = np.zeros(self.tiling.images, bool)
        captions, truths = np.zeros((2, self.tiling.captions), bool)
        for tile in self:
            columns = self.tiling.order[tile.captions]
            images[tile.images], captions[columns] = True, True
            if captions_per_image is not None:
                owners = columns // captions_per_image
                truths[columns[(owners >= tile.first_image) & (owners < tile.end_image)]] = True
        return Touched(*map(np.flatnonzero, (images, captions, truths)))


def check_share(
    tiling: Tiling,
    numbers: TileNumbers | None,
    images: EncodedImages,
    captions: EncodedCaptions,
    first_image: int,
) -> Share:
    """The tiles of these numbers, or all if they are None; `images` are a tiling's from a row on.

    Raises InputError for numbers that are none of the tiling's, for captions of other lengths than
    its own, and for images that its tiles need and that are not there.
    """
    first: object = first_image
    if isinstance(first, bool) or not isinstance(first, int) or first < 0:
        raise InputError("first_image", expected="a row of the tiling's images", got=first)
    if not np.array_equal(tiling.lengths, captions.lengths):
        raise InputError(
            "captions",
            expected=f"the {tiling.captions:,} of the tiling, of the same lengths",
            got=f"{len(captions):,}, or of other lengths",
            hint="make a tiling for these images and captions",
        )
    share = Share(tiling, _numbers(numbers, len(tiling)), first_image)
    rows = [row for tile in share for row in (tile.first_image, tile.end_image)]
    end = first_image + len(images)
    if min(rows) < first_image or max(rows) > end or end > tiling.images:
        expected = f"rows {min(rows)} … {max(rows) - 1} of {tiling.images}, which the tiles hold"
        raise InputError("images", expected=expected, got=f"rows {first_image} … {end - 1}")
    return share


def _numbers(numbers: TileNumbers | None, tiles: int) -> NDArray[np.int64]:
    if numbers is None:
        numbers = range(tiles)
    given = np.asarray(numbers)
    if given.ndim != 1 or not given.size or given.dtype.kind not in "iu":
        expected = "numbers of tiles: a range or a list of integers, at least one"
        raise InputError("tiles", expected=expected, got=f"{given.dtype} of shape {given.shape}")
    found, times = np.unique(given.astype(np.int64), return_counts=True)
    for number in (found[0], found[-1]):
        if not 0 <= number < tiles:
            raise InputError("tiles", expected=f"numbers 0 … {tiles - 1}", got=int(number))
    if times.max() > 1:
        what = f"tile {found[times.argmax()]} of the tiles to score"
        raise InputError(what, expected="once", got=f"{times.max()} times")
    return found
