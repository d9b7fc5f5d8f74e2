"""Which rows of a gallery or of a matrix a caller means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError

Rows = int | slice | Sequence[int] | NDArray[Any]
"""One row, a slice, or row numbers in any order; negative ones count from the end."""


def resolve_rows(rows: Rows, count: int, what: str) -> slice | NDArray[np.int32]:
    """Rows of `count` as a slice of step 1 where they are contiguous, else as int32 (rows,).

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
    """Row numbers as int32 (rows,); DataError, which begins with `what`, names the first wrong one.

    With `negative`, numbers from -count on count from the end.
    """
    try:
        found = np.asarray(index)
    except ValueError as error:
        raise DataError(what, expected="a list of row numbers", got=error) from error
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        got = f"{found.dtype} of shape {found.shape}"
        raise DataError(what, expected="integers in one dimension", got=got)
    lowest = -count if negative else 0
    wrong = (found < lowest) | (found >= count)
    if wrong.any():
        place = int(np.argmax(wrong))
        expected = f"{lowest} … {count - 1}" if count else "nothing, there are no rows"
        raise DataError(f"{what} at place {place}", expected=expected, got=found[place])
    found = found.astype(np.int64)
    return np.where(found < 0, found + count, found).astype(np.int32)
