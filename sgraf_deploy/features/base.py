"""What an extractor is: photographs in, regions, boxes and confidence out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.features.recipe import Recipe

Picture = NDArray[np.uint8]
"""A decoded photograph, upright: (height, width, 3) uint8, RGB."""


@dataclass(frozen=True, eq=False)
class Features:
    """What an extractor finds in photographs.

    `regions` (images, regions, img_dim) float32; `boxes` (images, regions, 4) float32, x1, y1, x2,
    y2 in the upright photograph's pixels; `confidence` (images, regions) float32 in 0 … 1, None
    where the regions are cells of a grid.
    """

    regions: NDArray[np.float32]
    boxes: NDArray[np.float32]
    confidence: NDArray[np.float32] | None

    @classmethod
    def joined(cls, features: Sequence[Features]) -> Features:
        """Features of some pictures after others, of which there is one at least."""
        confidence = [each.confidence for each in features if each.confidence is not None]
        return cls(
            np.concatenate([each.regions for each in features]),
            np.concatenate([each.boxes for each in features]),
            np.concatenate(confidence) if len(confidence) == len(features) else None,
        )


class RegionExtractor(Protocol):
    """Turns decoded photographs into regions. Threads may share one; it needs no PyTorch."""

    @property
    def regions(self) -> int:
        """The number of regions of every photograph."""

    @property
    def img_dim(self) -> int:
        """The size of one region's features."""

    @property
    def spec(self) -> Recipe:
        """All that decides the output, which is written as JSON beside it."""

    def extract(self, images: Sequence[Picture]) -> Features:
        """Extract the regions of pictures; equal pictures give equal bytes, whatever is beside."""

    def close(self) -> None:
        """Release the models."""
