"""What is indexed of a split: its images' ids, boxes and sizes, or its captions' ids."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.files import read_lines
from sgraf_deploy.data.pictures import open_boxes, open_sizes
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.split_files import BOXES, NAMES, SIZES
from sgraf_deploy.errors import DataError
from sgraf_deploy.gallery.record import Details

_CHUNK = 4096


def image_ids(folder: Path, split: PrecompSplit) -> list[str]:
    """The names in `{split}_ids.txt`, or else the rows' numbers, counted from 0.

    Raises DataError for a file of names that does not fit the images: under other ids they would be
    indexed again.
    """
    if split.ids is not None:
        return split.ids
    path = folder / f"{split.name}{NAMES}"
    if path.exists():
        wrong = next(found.message for found in split.findings if found.code == "names-left-out")
        raise DataError(
            f"ids of the images in {path}",
            expected=f"a name for each of {split.images} images",
            got=wrong,
            hint="correct the file, or move it away: rows' numbers are then the ids",
        )
    return [str(row) for row in range(split.images)]


@dataclass(frozen=True, eq=False)
class SplitDetails:
    """Boxes and sizes of a split's images, where it has the files; read row by row."""

    boxes: NDArray[Any] | None
    sizes: NDArray[Any] | None

    @classmethod
    def open(cls, folder: Path, split: PrecompSplit) -> SplitDetails:
        """Open the files of a whole split; DataError for one that is wrong."""
        boxes_file, sizes_file = (folder / f"{split.name}{end}" for end in (BOXES, SIZES))
        boxes = sizes = None
        if boxes_file.exists():
            boxes = open_boxes(boxes_file, split.images, split.regions.shape[1])
            _check_rows(boxes, np.isfinite, f"boxes {boxes_file}", "finite numbers")
        if sizes_file.exists():
            sizes = open_sizes(sizes_file, split.images)
            what = f"sizes of pictures {sizes_file}"
            _check_rows(sizes, lambda sides: (sides > 0) & (sides < 2**31), what, "at least 1")
        return cls(boxes, sizes)

    def __getitem__(self, row: int) -> Details:
        """The boxes and the size of one image."""
        boxes = None if self.boxes is None else np.asarray(self.boxes[row], np.float32)
        size = None if self.sizes is None else (int(self.sizes[row, 0]), int(self.sizes[row, 1]))
        return Details(None, boxes, size)


def given_ids(path: Path | None, count: int, what: str, first: int) -> list[str]:
    """The lines of a file of ids, or else numbers from `first` on.

    Raises DataError for a file that has another number of lines.
    """
    if path is None:
        return [str(number) for number in range(first, first + count)]
    ids = read_lines(path, what)
    if len(ids) != count:
        raise DataError(f"{what} {path}", expected=f"{count} lines", got=len(ids))
    return ids


def _check_rows(
    stored: NDArray[Any], fits: Callable[[NDArray[Any]], NDArray[np.bool_]], what: str, wanted: str
) -> None:
    """Compare all values, a part at a time; DataError names the first image with a wrong one."""
    for start in range(0, len(stored), _CHUNK):
        wrong = ~fits(np.asarray(stored[start : start + _CHUNK])).reshape(
            len(stored[start : start + _CHUNK]), -1
        )
        if wrong.any():
            row = start + int(np.argmax(wrong.any(axis=1)))
            raise DataError(f"{what}, image {row}", expected=wanted, got=stored[row].tolist())
