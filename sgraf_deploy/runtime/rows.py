"""Resolves the rows of a gallery or of a matrix that a caller names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError

Rows = int | slice | Sequence[int] | NDArray[Any]
"""A row number, a slice, or row numbers in any order; negative numbers count from the end."""


def resolve_rows(rows: Rows, count: int, what: str) -> slice | NDArray[np.int32]:
    """Return rows of `count` as a slice of step 1 if they are contiguous, else as int32 (rows,).

    Raises DataError, which begins with `what`, for anything but integers in range.
    """
    if isinstance(rows, slice):
        start, stop, step = rows.indices(count)
        if step == 1:
            return slice(start, max(start, stop))
        return np.arange(start, stop, step, dtype=np.int32)
    if isinstance(rows, int | np.integer) and not isinstance(rows, bool):
        index = int(check_index([int(rows)], count, what, negative=True)[0])
        return slice(index, index + 1)
    return check_index(rows, count, what, negative=True)


def check_index(index: Any, count: int, what: str, *, negative: bool = False) -> NDArray[np.int32]:
    """Return row numbers as int32 (rows,); with `negative`, -1 … -count count from the end.

    Raises DataError, which begins with `what` and names the first number that is wrong.
    """
    try:
        numbers = np.asarray(index)
    except ValueError as error:
        raise DataError(what, expected="a list of row numbers", got=error) from error
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        got = f"{numbers.dtype} of shape {numbers.shape}"
        raise DataError(what, expected="integers in one dimension", got=got)
    lowest = -count if negative else 0
    wrong = (numbers < lowest) | (numbers >= count)
    if wrong.any():
        place = int(np.argmax(wrong))
        expected = f"{lowest} … {count - 1}" if count else "nothing, there are no rows"
        raise DataError(f"{what} at place {place}", expected=expected, got=numbers[place])
    numbers = numbers.astype(np.int64)
    return np.where(numbers < 0, numbers + count, numbers).astype(np.int32)
