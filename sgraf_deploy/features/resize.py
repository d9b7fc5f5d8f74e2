"""A picture as a model's input, and what lies where on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.features.base import Picture
from sgraf_deploy.features.pillow import import_pillow
from sgraf_deploy.features.recipe import Filter, Pixels, Resizing


@dataclass(frozen=True)
class Frame:
    """Where a picture lies in a model's input.

    A point (x, y) of the input, in pixels, is (left + x · across, top + y · down) of the picture,
    whose size is `width` × `height`.
    """

    left: float
    top: float
    across: float
    down: float
    width: int
    height: int

    def to_picture(self, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Boxes (…, 4) of the input, x1, y1, x2, y2, as boxes of the picture, cut at its edges."""
        sizes = np.array([self.across, self.down] * 2)
        found = np.asarray(boxes, dtype=np.float64) * sizes + [self.left, self.top] * 2
        most = [self.width, self.height] * 2
        cut: NDArray[np.float32] = np.clip(found, 0, most).astype(np.float32)
        return cut

    def to_input(self, boxes: NDArray[np.floating]) -> NDArray[np.float32]:
        """Boxes (…, 4) of the picture as boxes of the input, which they may leave."""
        sizes = np.array([self.across, self.down] * 2)
        found = (np.asarray(boxes, dtype=np.float64) - [self.left, self.top] * 2) / sizes
        inside: NDArray[np.float32] = found.astype(np.float32)
        return inside


def resize(picture: Picture, resizing: Resizing) -> tuple[Picture, Frame]:
    """Resize a picture to (height, width, 3) uint8, as `resizing` says; and where it then lies."""
    rows, columns = picture.shape[:2]
    width, height = resizing.width, resizing.height
    if resizing.fit == "pad":
        scale = min(width / columns, height / rows)
        across = min(max(round(columns * scale), 1), width)
        down = min(max(round(rows * scale), 1), height)
        made = np.full((height, width, 3), resizing.fill, np.uint8)
        made[:down, :across] = _resampled(picture, (across, down), resizing.filter)
        return made, Frame(0.0, 0.0, columns / across, rows / down, columns, rows)
    left, top, inside, tall = 0.0, 0.0, float(columns), float(rows)
    if resizing.fit == "crop":
        inside = min(columns, rows * width / height)
        tall = min(rows, columns * height / width)
        left, top = (columns - inside) / 2, (rows - tall) / 2
    box = (left, top, left + inside, top + tall)
    made = _resampled(picture, (width, height), resizing.filter, box)
    return made, Frame(left, top, inside / width, tall / height, columns, rows)


def _resampled(
    picture: Picture,
    size: tuple[int, int],
    resampling: Filter,
    box: tuple[float, float, float, float] | None = None,
) -> Picture:
    """The picture, or a box of it, at (width, height), by a filter of Pillow's."""
    pillow = import_pillow()
    image = pillow.fromarray(np.ascontiguousarray(picture))
    made = image.resize(size, pillow.Resampling[resampling.upper()], box=box)
    return np.asarray(made)


def model_input(picture: Picture, pixels: Pixels) -> NDArray[np.float32]:
    """The numbers of a resized picture: (1, 3, height, width), or (1, height, width, 3)."""
    levels = picture if pixels.order == "RGB" else picture[:, :, ::-1]
    mean, scale = (np.array(part, dtype=np.float32) for part in (pixels.mean, pixels.scale))
    numbers = (levels.astype(np.float32) - mean) / scale
    if pixels.layout == "NCHW":
        numbers = numbers.transpose(2, 0, 1)
    return np.ascontiguousarray(numbers[None])
