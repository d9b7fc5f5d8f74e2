"""The rows of features per image: a single one, or one for each of its captions."""

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
"""The largest number of rows per image that is tried."""


def once_per_image(
    stored: NDArray[Any], captions: int, per_image: int, files: tuple[Path, Path]
) -> NDArray[Any]:
    """One row per image, from features that may have a row for each caption.

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
            f"{files[0]} contains its images several times",
            expected="each image once, because each has one caption",
            got=f"{rows} rows and {captions} captions",
            hint=_as_many_rows(stored),
        )
    return stored


def once_in_runs(stored: NDArray[Any], per_image: int) -> NDArray[Any]:
    """One row per image, if every image has a row for each of its captions."""
    rows = len(stored)
    repeated = per_image > 1 and not rows % per_image and _different(stored, per_image) is None
    # Rows that are all equal, such as zeros, do not tell images apart.
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
    hint = "complete the file that lacks entries; rows and captions are matched by their order"
    if rows == captions:
        hint = _as_many_rows(stored)
    elif rows > captions and (repetition := _repetition(stored)) is not None:
        hint = f"each image is stored {repetition[0]} times: store it once"
    elif not captions % rows:
        count = captions // rows
        hint = f"if each image has {count} captions, use --captions-per-image {count}"
    elif lone := lone_returns(files[1].read_bytes()):
        hint = f"CR characters within the lines of {files[1].name}: {lone}; if they end lines, "
        hint += "replace them with LF"
    return DataError(
        f"{files[0]} and {files[1]} do not match",
        expected=expected,
        got=f"{rows} rows and {captions} captions",
        hint=hint,
    )


def _as_many_rows(stored: NDArray[Any]) -> str:
    """The hint for as many rows as captions."""
    repetition = _repetition(stored)
    if repetition is None:
        return "if each row is a different image, use --captions-per-image 1"
    times, in_runs = repetition
    if in_runs:
        return f"each image is in {times} consecutive rows: use --captions-per-image {times}"
    return (
        f"rows 0 … {len(stored) // times - 1} are repeated {times} times as a whole: store each "
        "image once, and the captions of an image one after the other"
    )


def _repetition(stored: NDArray[Any]) -> tuple[int, bool] | None:
    """How often each image is stored, and whether in consecutive rows; None if stored once.

    Otherwise the whole sequence of images is repeated.
    """
    rows = len(stored)
    if _same(stored, 0, rows - 1):  # all rows are equal, or they do not tell images apart
        return None
    for times in range(min(_MOST_REPEATS, rows), 1, -1):
        if rows % times:
            continue
        if _different(stored, times) is None:
            return times, True
        images = rows // times
        sample = spread(images, _SAMPLED_IMAGES).tolist()
        again = ((row, row + turn * images) for row in sample for turn in range(1, times))
        if all(_same(stored, first, other) for first, other in again):
            return times, False
    return None


def _different(stored: NDArray[Any], times: int) -> tuple[int, int] | None:
    """Two rows that differ although runs of `times` rows should be equal, or None; by a sample."""
    for first in (spread(len(stored) // times, _SAMPLED_IMAGES) * times).tolist():
        for row in range(first + 1, first + times):
            if not _same(stored, row, first):
                return first, row
    return None


def _same(stored: NDArray[Any], first: int, second: int) -> bool:
    return np.array_equal(stored[first], stored[second], equal_nan=True)
