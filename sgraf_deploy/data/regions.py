"""Region features: `.npy` files of shape (images, regions, img_dim), memory-mapped and checked."""

from __future__ import annotations

import math
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.files import PathLike
from sgraf_deploy.errors import DataError

CHUNK_BYTES = 32 * 2**20
"""How much of the features a check or a statistic looks at in one go."""

_AXES = ("images", "regions", "img_dim")
_DTYPES = (np.dtype("<f4"), np.dtype("<f2"))
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}
# What NumPy's header parser lets through on bytes that are no header; nesting too deep for
# Python's parser is a MemoryError or a RecursionError, depending on its version.
_HEADER_ERRORS = (
    ValueError,
    TypeError,
    SyntaxError,
    tokenize.TokenError,
    RecursionError,
    MemoryError,
)


def open_regions(path: PathLike) -> NDArray[Any]:
    """Map a `.npy` file read-only: (images, regions, img_dim), float32 or float16.

    Raises DataError for a missing or truncated file, one that is not `.npy`, a wrong number of
    axes, another dtype (objects are never unpickled) and an axis of length 0.
    """
    name = f"region features {path}"
    try:
        with Path(path).open("rb") as file:
            shape, order, dtype = _read_header(file, name)
            offset = file.tell()
        _check_layout(shape, dtype, name)
        needed = offset + math.prod(shape) * dtype.itemsize
        size = Path(path).stat().st_size
        if size < needed:
            raise DataError(
                f"{name} is truncated", expected=f"{needed} bytes for {shape}", got=size
            )
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape, order=order)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{name} cannot be read", got=reason) from error


@dataclass(frozen=True)
class RegionSurvey:
    """What one pass over region features saw.

    `zero_regions` are those whose every value is zero, `zero_images` the images of nothing else;
    `mean_norm` is the mean l2 norm of the other regions, 0 if there are none.
    """

    images: int
    regions: int
    zero_regions: int
    zero_images: int
    mean_norm: float


def check_regions(
    regions: NDArray[Any], config_regions: int, config_img_dim: int, name: str
) -> RegionSurvey:
    """Refuse features that do not fit the model or are not finite, and survey them in that pass.

    regions: (images, regions, img_dim) float32 or float16, read a bounded chunk at a time. Raises
    DataError that begins with `name` and gives the shapes, or the first image with a NaN or an
    infinity.
    """
    _check_layout(regions.shape, regions.dtype, name)
    model = (config_regions, config_img_dim)
    if regions.shape[1:] != model:
        raise DataError(
            f"{name} do not fit the model",
            expected=f"(images, regions, img_dim) = (any, {model[0]}, {model[1]})",
            got=regions.shape,
        )
    zero_regions = zero_images = 0
    norms = 0.0
    for start, chunk in _chunks(regions):
        # In float64 no square of a finite value overflows, and none of another than zero is zero.
        squares = np.einsum("ijk,ijk->ij", chunk, chunk, dtype=np.float64)  # (images, regions)
        _check_finite(squares, start, name)
        zero = squares == 0
        zero_regions += int(zero.sum())
        zero_images += int(zero.all(axis=1).sum())
        norms += float(np.sqrt(squares).sum())
    count = regions.shape[0] * regions.shape[1]
    mean = norms / (count - zero_regions) if zero_regions < count else 0.0
    return RegionSurvey(len(regions), count, zero_regions, zero_images, mean)


def _check_finite(squares: NDArray[np.float64], start: int, name: str) -> None:
    finite = np.isfinite(squares)
    if not finite.all():
        row, region = (int(index) for index in np.argwhere(~finite)[0])
        raise DataError(
            f"{name}: image {start + row} (counted from 0), region {region}",
            expected="finite values",
            got="a NaN or an infinity",
        )


def region_statistics(regions: NDArray[Any], limit: int = 1000) -> dict[str, int | float]:
    """Statistics of at most `limit` evenly spread images, to recognise foreign features by.

    `images` is how many were looked at, `mean_norm` the mean l2 norm of a region that is not all
    zero, the rest is over all values. Sums are in float64.
    """
    rows = spread(len(regions), limit)
    count = norms = total = squares = 0.0
    filled = 0
    low, high = np.inf, -np.inf
    for _, picked in _chunks(rows, row_bytes=regions[0].size * 8):
        chunk = regions[picked].astype(np.float64)  # (images, regions, img_dim)
        square = np.square(chunk).sum(axis=2)
        count += chunk.size
        total += float(chunk.sum())
        squares += float(square.sum())
        norms += float(np.sqrt(square).sum())
        filled += int(np.count_nonzero(square))
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    mean = total / count
    return {
        "images": len(rows),
        "mean": mean,
        "std": max(0.0, squares / count - mean * mean) ** 0.5,
        "mean_norm": norms / max(1, filled),
        "min": low,
        "max": high,
    }


def spread(length: int, limit: int) -> NDArray[np.int64]:
    """Evenly spread indices below `length`, from the first: at most `limit`, at least one."""
    count = min(length, max(1, limit))
    return np.arange(count, dtype=np.int64) * (length - 1) // max(1, count - 1)


def _chunks(rows: NDArray[Any], row_bytes: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Pieces of about CHUNK_BYTES with the index of their first row."""
    step = max(1, CHUNK_BYTES // (row_bytes or rows[0].nbytes))
    for start in range(0, len(rows), step):
        yield start, rows[start : start + step]


def _read_header(file: BinaryIO, name: str) -> tuple[tuple[int, ...], Any, np.dtype[Any]]:
    """Shape, memory order and dtype from the head of a `.npy` file."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _HEADERS:
            raise DataError(name, expected="format version 1.0 or 2.0", got=version)
        shape, fortran_order, dtype = _HEADERS[version](file)
    except _HEADER_ERRORS as error:
        raise DataError(
            f"{name} is not a .npy file", got=str(error), mend="write it with numpy.save"
        ) from error
    return shape, "F" if fortran_order else "C", dtype


def _check_layout(shape: tuple[int, ...], dtype: np.dtype[Any], name: str) -> None:
    """Refuse what no model can take: axes, dtype, or nothing there."""
    if len(shape) != len(_AXES):
        raise DataError(name, expected=f"{len(_AXES)} axes ({', '.join(_AXES)})", got=shape)
    if dtype not in _DTYPES:
        raise DataError(
            name,
            expected="float32 or float16, little-endian",
            got=dtype.str if dtype.byteorder == ">" else dtype,
            mend="convert them with .astype(numpy.float32)",
        )
    for axis, length in zip(_AXES, shape, strict=True):
        if length < 1:
            raise DataError(f"{name} have no {axis}", got=f"shape {shape}")
