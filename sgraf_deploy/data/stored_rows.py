"""How many rows of features there are of each image: one, or one for each caption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.foreign_text import lone_returns
from sgraf_deploy.data.regions import spread
from sgraf_deploy.errors import DataError

_SAMPLED_IMAGES = 32
_MOST_REPEATS = 10
"""More rows of one image than this are not looked for."""


def once_per_image(
    stored: NDArray[Any], captions: int, per_image: int, files: tuple[Path, Path]
) -> NDArray[Any]:
    """The rows of each image once, of features that may have a row for each caption.

    `files` are those of the features and the captions. Raises DataError for counts that do not
    match, and for rows that are repeated in another way.
    """
    rows = len(stored)
    if rows == captions and per_image > 1 and not rows % per_image:
        different = _different(stored, per_image)
        if different is None:
            return stored[::per_image]
        raise DataError(
            f"{files[0]} has as many rows as {files[1]} has captions ({rows})",
            expected=f"{per_image} identical rows per image",
            got=f"row {different[1]} differs from row {different[0]} (counted from 0)",
            hint=_as_many_rows(stored),
        )
    if rows * per_image != captions:
        raise _mismatch(stored, captions, per_image, files)
    if per_image == 1 and _repetition(stored) is not None:
        raise DataError(
            f"{files[0]} holds its images several times",
            expected="each once, since each is to have one caption",
            got=f"{rows} rows and {captions} captions",
            hint=_as_many_rows(stored),
        )
    return stored


def once_in_runs(stored: NDArray[Any], per_image: int) -> NDArray[Any]:
    """The rows of each image once where every image has a row for each of its captions."""
    rows = len(stored)
    repeated = per_image > 1 and not rows % per_image and _different(stored, per_image) is None
    # Rows that are all the same, such as zeros, are no images to tell apart.
    if not repeated or (rows > per_image and _same(stored, 0, rows - 1)):
        return stored
    return stored[::per_image]


def _mismatch(
    stored: NDArray[Any], captions: int, per_image: int, files: tuple[Path, Path]
) -> DataError:
    rows = len(stored)
    expected = f"{per_image} captions per row" if per_image > 1 else "1 caption per row"
    if per_image > 1:
        expected += f", or each image in {per_image} rows with one caption each"
    hint = "complete the one that lacks something: both are told by their order"
    if rows == captions:
        hint = _as_many_rows(stored)
    elif rows > captions and (found := _repetition(stored)) is not None:
        hint = f"each image is stored {found[0]} times: store it once"
    elif not captions % rows:
        hint = f"if each image has {captions // rows}: --captions-per-image {captions // rows}"
    elif lone := lone_returns(files[1].read_bytes()):
        hint = f"CRs stand within {lone} of the lines of {files[1].name}, if they end a line, make "
        hint += "LF of them"
    return DataError(
        f"{files[0]} and {files[1]} do not match",
        expected=expected,
        got=f"{rows} rows and {captions} captions",
        hint=hint,
    )


def _as_many_rows(stored: NDArray[Any]) -> str:
    """What to do where there are as many rows as captions."""
    found = _repetition(stored)
    if found is None:
        return "if each row is an image of its own: --captions-per-image 1"
    times, in_runs = found
    if in_runs:
        return (
            f"each image stands in {times} rows, one after the other: --captions-per-image {times}"
        )
    return (
        f"rows 0 … {len(stored) // times - 1} stand there {times} times as a whole: store each "
        "image once, and the captions of an image one after the other"
    )


def _repetition(stored: NDArray[Any]) -> tuple[int, bool] | None:
    """How often each image is stored, and whether in a run or all of them again; None for once."""
    rows = len(stored)
    if _same(stored, 0, rows - 1):  # all of them, or such as do not tell images apart
        return None
    for times in range(min(_MOST_REPEATS, rows), 1, -1):
        if rows % times:
            continue
        if _different(stored, times) is None:
            return times, True
        images = rows // times
        sample = spread(images, _SAMPLED_IMAGES).tolist()
        again = ((row, row + turn * images) for row in sample for turn in range(1, times))
        if all(_same(stored, one, other) for one, other in again):
            return times, False
    return None


def _different(stored: NDArray[Any], times: int) -> tuple[int, int] | None:
    """Two rows that differ though runs of so many should be identical, or None; by a sample."""
    for first in (spread(len(stored) // times, _SAMPLED_IMAGES) * times).tolist():
        for row in range(first + 1, first + times):
            if not _same(stored, row, first):
                return first, row
    return None


def _same(stored: NDArray[Any], one: int, other: int) -> bool:
    return np.array_equal(stored[one], stored[other], equal_nan=True)
