"""Where the regions of an image lie: boxes, cells of a grid, or nothing but numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.pictures import open_boxes
from sgraf_deploy.errors import DataError, InputError

Size = tuple[int, int]
"""Width and height in pixels, of the upright picture."""

_CELL = 40
"""Pixels of a grid's cell where there is no picture."""

_SLACK = 2.0
"""Pixels by which a box may leave its picture, for the rounding of who made it."""


@dataclass(frozen=True, eq=False)
class RegionLayout:
    """The names of an image's regions and, unless they are numbers alone, their places.

    `boxes` (regions, 4) float32 are x1, y1, x2, y2 in pixels of a picture of `size`; `cells` says
    that they are those of a grid, which do not overlap.
    """

    names: tuple[str, ...]
    boxes: NDArray[np.float32] | None = None
    size: Size | None = None
    cells: bool = False


def numbered(regions: int) -> RegionLayout:
    """Regions of which nobody says where they lie, counted from 0."""
    return RegionLayout(tuple(f"#{region}" for region in range(regions)))


def grid(text: str, regions: int, size: Size | None = None) -> RegionLayout:
    """The cells of a grid `ROWSxCOLUMNS`, row by row: r1c1 is the upper left one.

    Raises InputError for another text, or a grid with more or fewer cells than there are regions.
    """
    match = re.fullmatch(r"(\d{1,4})[x×](\d{1,4})", text)
    rows, columns = (int(match[1]), int(match[2])) if match else (0, 0)
    if rows * columns != regions:
        expected = f"ROWSxCOLUMNS with {regions} cells, the model's regions"
        raise InputError("--grid", expected=expected, got=text)
    width, height = size or (_CELL * columns, _CELL * rows)
    places = [(row, column) for row in range(rows) for column in range(columns)]
    boxes = np.array(
        [
            (
                c * width / columns,
                r * height / rows,
                (c + 1) * width / columns,
                (r + 1) * height / rows,
            )
            for r, c in places
        ],
        dtype=np.float32,
    )
    names = tuple(f"r{row + 1}c{column + 1}" for row, column in places)
    return RegionLayout(names, boxes, (width, height), cells=True)


def boxes_of(
    path: Path, row: int, shape: tuple[int, int], size: Size | None = None
) -> RegionLayout:
    """The boxes of one image, from `{split}_boxes.npy` (images, regions, 4) of any real numbers.

    `shape` is (images, regions) of the split, and `size` that of the upright picture; without it
    the picture ends where the last box does. Raises DataError for a file that does not fit, and for
    boxes that leave the picture.
    """
    name, stored = f"boxes {path}", open_boxes(path, *shape)
    with np.errstate(over="ignore"):
        boxes = np.asarray(stored[row], dtype=np.float32)
    if not np.isfinite(boxes).all():
        region = int(np.argmin(np.isfinite(boxes).all(axis=1)))
        got = stored[row, region].tolist()
        raise DataError(f"{name}, image {row}, region {region}", expected="finite numbers", got=got)
    right, lower = boxes[:, 2:].max(axis=0).tolist()
    width, height = size or (max(1, int(np.ceil(right))), max(1, int(np.ceil(lower))))
    ordered = (boxes[:, :2] >= -_SLACK).all() and (boxes[:, 2:] >= boxes[:, :2]).all()
    if not ordered or right > width + _SLACK or lower > height + _SLACK:
        raise DataError(
            f"{name}, image {row}",
            expected=f"x1, y1, x2, y2 within a picture of {width}×{height} pixels",
            got=f"boxes within {boxes.min():g} … {boxes.max():g}",
            hint="give the picture that the boxes were found in, upright and in its full size",
        )
    return RegionLayout(numbered(len(boxes)).names, boxes, (width, height))


def region_layout(
    boxes: Path, row: int, shape: tuple[int, int], cells: str | None, size: Size | None
) -> RegionLayout:
    """The grid that was asked for, else the boxes if there is such a file, else numbers alone.

    `shape` is (images, regions) of the split, `size` that of the picture, if there is one. Raises
    InputError for a picture on which nobody says where the regions lie.
    """
    if cells is not None:
        return grid(cells, shape[1], size)
    if boxes.exists():
        return boxes_of(boxes, row, shape, size)
    if size is not None:
        raise InputError(
            "--picture",
            expected=f"{boxes.name} beside the data, or --grid ROWSxCOLUMNS",
            got="neither",
            hint="SCAN's published features have no boxes; for grid features give --grid 6x6",
        )
    return numbered(shape[1])
