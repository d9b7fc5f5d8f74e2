"""Estimates the memory of encoding and scoring, from the sizes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import image_row


@dataclass(frozen=True)
class Estimate:
    """The bytes of encoded inputs, of the tiles scored at the same time, and of the result."""

    encoded: int
    tiles: int
    matrix: int


def estimate(context: Context, images: int, lengths: NDArray[np.int32]) -> Estimate:
    """Estimate the bytes for so many images, and captions (captions,) of these lengths."""
    origin, tiling = context.origin, context.tiling(images, lengths)
    image = sum(
        math.prod(image_row(spec)) * np.dtype(spec.dtype).itemsize
        for member in origin.configs
        for spec in origin.engine.open(member, "image_encoder").signature.outputs
    )
    vectors = int(lengths.sum(dtype=np.int64)) + 1 + len(lengths)
    word = sum(config.embed for config in origin.configs.values()) * origin.dtype.itemsize
    # A caption has a length and an offset besides its words and its global vector.
    encoded = images * image + vectors * word + 2 * lengths.nbytes
    return Estimate(encoded, tiling.workers * tiling.tile_bytes, tiling.result_bytes)
