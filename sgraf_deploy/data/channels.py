"""The mean and the standard deviation of every channel of regions, in one pass over them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES = 2**18
"""Bytes of float64 that are summed at a time: they stay in a processor's cache."""


@dataclass(frozen=True)
class Channels:
    """What each channel of regions was like, over regions that are not all zero.

    `mean` and `std` are (img_dim,) numbers, `images` the number of images that they are of.
    """

    images: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


class ChannelSums:
    """Sums over the channels of regions, which are added chunk by chunk, in float64."""

    images: int
    """How many images were added."""
    filled: int
    """How many of their regions are not all zero."""

    def __init__(self, img_dim: int) -> None:
        self.images = self.filled = 0
        self._sums, self._squares = np.zeros(img_dim), np.zeros(img_dim)
        rows = max(1, _BLOCK_BYTES // (8 * img_dim))
        self._block = np.empty((rows, img_dim))

    def add(self, chunk: NDArray[Any]) -> NDArray[np.float64]:
        """Add regions (images, regions, img_dim); returns the sums of their squares.

        These are (images, regions), and not finite where a value is not. In float64 the square of a
        finite float32 never overflows, nor does that of a nonzero one become zero.
        """
        rows = chunk.reshape(-1, chunk.shape[-1])  # (images * regions, img_dim)
        squares = np.empty(len(rows))
        with np.errstate(invalid="ignore"):
            for start in range(0, len(rows), len(self._block)):
                part = rows[start : start + len(self._block)]
                block = self._block[: len(part)]
                block[...] = part
                self._sums += block.sum(axis=0)
                np.square(block, out=block)
                self._squares += block.sum(axis=0)
                np.sum(block, axis=1, out=squares[start : start + len(part)])
        self.images += len(chunk)
        self.filled += int(np.count_nonzero(squares))
        return squares.reshape(chunk.shape[:2])

    @property
    def total(self) -> float:
        """The sum of all values."""
        return float(self._sums.sum())

    @property
    def channels(self) -> Channels:
        """The statistics over what was added."""
        count = max(1, self.filled)
        mean = self._sums / count
        std = np.sqrt(np.maximum(0.0, self._squares / count - mean * mean))
        return Channels(self.images, tuple(mean.tolist()), tuple(std.tolist()))
