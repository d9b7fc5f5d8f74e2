"""Maps the array of a `.npy` file, whose header this package has read itself."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from sgraf_deploy.data.npy import Header
from sgraf_deploy.errors import DataError

Mapped = TypeVar("Mapped", bound=np.memmap[Any, np.dtype[Any]])


def map_array(file: Path, header: Header, name: str, kind: type[Mapped]) -> Mapped:
    """Map the numbers that a header describes, read-only, as an array of class `kind`.

    The header's dtype is one of numbers. Raises DataError, which begins with `name`, for a size of
    them that NumPy does not know and for a file that holds less than its header says; an OSError is
    not translated.
    """
    try:
        dtype = np.dtype(header.dtype)
    except TypeError as error:
        raise DataError(name, expected="numbers that NumPy knows", got=header.dtype) from error
    needed, size = end_of(header, dtype), file.stat().st_size
    if size < needed:
        raise DataError(
            f"{name} is truncated",
            expected=f"{needed} bytes for {header.shape}",
            got=size,
            hint="copy or download it again",
        )
    order: Literal["F", "C"] = "F" if header.fortran_order else "C"
    return kind(file, dtype, "r", header.offset, header.shape, order)


def end_of(header: Header, dtype: np.dtype[Any]) -> int:
    """The byte after the last of an array's data."""
    return header.offset + math.prod(header.shape) * dtype.itemsize
