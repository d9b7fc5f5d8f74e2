"""What encoding and scoring will hold, from the sizes alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import image_row


@dataclass(frozen=True)
class Estimate:
    """Bytes: encoded inputs, the tiles that are under way at a time, one float32 matrix."""

    encoded: int
    tiles: int
    matrix: int


def estimate(context: Context, images: int, lengths: NDArray[np.int32]) -> Estimate:
    """For so many images, and captions (captions,) of so many words."""
    origin, tiling = context.origin, context.tiling(images, lengths)
    image = sum(
        math.prod(image_row(spec)) * np.dtype(spec.dtype).itemsize
        for member in origin.configs
        for spec in origin.engine.open(member, "image_encoder").signature.outputs
    )
    vectors = int(lengths.sum(dtype=np.int64)) + 1 + len(lengths)
    word = sum(config.embed for config in origin.configs.values()) * origin.dtype.itemsize
    # Beside its words and its global vector, a caption has a length and an offset.
    encoded = images * image + vectors * word + 2 * lengths.nbytes
    return Estimate(encoded, tiling.workers * tiling.tile_bytes, tiling.result_bytes)
