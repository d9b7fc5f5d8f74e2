"""Region features: `.npy` files of shape (images, regions, img_dim), memory-mapped and checked."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.channels import Channels, ChannelSums
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.foreign_channels import statistics_of
from sgraf_deploy.data.foreign_regions import in_file, no_regions
from sgraf_deploy.data.layout import Dimensions, Layout, of_array
from sgraf_deploy.data.mapped import end_of, map_array
from sgraf_deploy.data.npy import MAGIC, read_header
from sgraf_deploy.errors import DataError
from sgraf_deploy.files.disk import PathLike

CHUNK_BYTES = 32 * 2**20
"""Bytes of the features that a check or a statistic reads at a time."""

_UNCONVERTED = (np.dtype(np.float32), np.dtype(np.float16))
"""The dtypes that a model reads without a conversion worth a note: native float32, and float16,
which is converted to float32 for a few images at a time."""


class StoredRegions(np.memmap[Any, np.dtype[Any]]):
    """Regions as they are stored in a file; its opener reports the findings about them."""


def open_regions(path: PathLike, model: Dimensions | None = None) -> StoredRegions:
    """Map a `.npy` file read-only: (images, regions, img_dim) of any float dtype of 2 to 8 bytes.

    `model` gives the regions and the img_dim that a model takes. Raises DataError for a missing or
    truncated file, one that is not `.npy`, another layout, another dtype (objects are never
    unpickled) and an axis of length 0.
    """
    file, name = Path(path), f"region features {path}"
    try:
        with file.open("rb") as opened:
            if opened.read(len(MAGIC)) != MAGIC:
                raise no_regions(file, name, model)
            header = read_header(opened, name)
        layout = Layout(header.shape, header.dtype)
        layout.check(name, model, in_file(file))
        layout.check_filled(name)
        mapped = map_array(file, header, name, StoredRegions)
        _check_alone(file, end_of(header, mapped.dtype), name)
        return mapped
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{name} cannot be read", got=reason) from error


def _check_alone(file: Path, end: int, name: str) -> None:
    """Raise DataError for a file with a second array after the first, which would be ignored."""
    with file.open("rb") as opened:
        opened.seek(end)
        if opened.read(len(MAGIC)) == MAGIC:
            raise DataError(
                name,
                expected="one array",
                got=f"a second one after it, at byte {end}",
                hint="read them one after the other with numpy.load, join them with "
                "numpy.concatenate and save the result",
            )


def is_converted(dtype: np.dtype[Any]) -> bool:
    """Whether values of this dtype are converted to float32 before a model reads them."""
    return dtype not in _UNCONVERTED


def readable(regions: NDArray[Any]) -> NDArray[Any]:
    """Regions of any float dtype as a model reads them: float16 and float32 unchanged, other dtypes
    as float32, where values that are too large become infinite."""
    if not is_converted(regions.dtype):
        return np.asarray(regions)
    with np.errstate(over="ignore"):
        return regions.astype(np.float32).view(np.ndarray)


def conversion_findings(regions: NDArray[Any], name: str) -> tuple[Finding, ...]:
    """A note if regions are converted while they are read."""
    if not is_converted(regions.dtype):
        return ()
    how = "they are converted to float32 while they are read, which costs time"
    kind = conversion_name(regions.dtype)
    return (Finding("converted-regions", f"{name} are {kind}; {how}", is_warning=False),)


def conversion_name(dtype: np.dtype[Any]) -> str:
    """A dtype in words, with its byte order if that is not this machine's."""
    other = "" if dtype.isnative else ", big-endian" if dtype.str[0] == ">" else ", little-endian"
    return f"{dtype.newbyteorder('=').name}{other}"


@dataclass(frozen=True)
class RegionSurvey:
    """Counts, a mean and the channels from one pass over region features.

    `zero_regions` counts regions whose values are all zero, `zero_images` images with only such
    regions; `mean_norm` is the mean l2 norm of the other regions, 0 if there are none, and
    `channels` says what these are like.
    """

    images: int
    regions: int
    zero_regions: int
    zero_images: int
    mean_norm: float
    channels: Channels


def check_regions(
    regions: NDArray[Any], config_regions: int, config_img_dim: int, name: str
) -> RegionSurvey:
    """Refuse features that do not fit the model or are not finite, and survey them in one pass.

    regions: (images, regions, img_dim) of any float dtype of 2 to 8 bytes, read a bounded chunk at
    a time. Raises DataError that begins with `name` and gives the shapes, or the first image with a
    value that is not finite in float32.
    """
    check_layout(regions, (config_regions, config_img_dim), name).check_filled(name)
    zero_images = 0
    norms = 0.0
    sums = ChannelSums(regions.shape[2])
    for start, stored in _chunks(regions):
        squares = sums.add(readable(stored))  # (images, regions)
        if not np.isfinite(squares).all():
            raise not_finite(stored, start, name)
        zero_images += int((squares == 0).all(axis=1).sum())
        norms += float(np.sqrt(squares).sum())
    count = regions.shape[0] * regions.shape[1]
    mean = norms / max(1, sums.filled)
    zero_regions = count - sums.filled
    return RegionSurvey(len(regions), count, zero_regions, zero_images, mean, sums.channels)


def check_layout(regions: NDArray[Any], model: Dimensions, name: str) -> Layout:
    """The layout of an array; DataError, beginning with `name`, if a model cannot read it."""
    dtype = regions.dtype.str if regions.dtype.names is None else str(regions.dtype.descr)
    layout = Layout(regions.shape, dtype)
    layout.check(name, model, of_array("regions"))
    return layout


def not_finite(chunk: NDArray[Any], start: int, name: str) -> DataError:
    """The error for the first value of a chunk, whose first image is `start`, that is not finite
    as a model reads it."""
    image, region, value = (int(i) for i in np.argwhere(~np.isfinite(readable(chunk)))[0])
    actual = float(chunk[image, region, value])
    beyond = ", more than float32 can hold" if math.isfinite(actual) else ""
    return DataError(
        f"{name}: image {start + image} (counted from 0), region {region}",
        expected="finite values",
        got=f"{actual:g}{beyond}",
    )


def region_statistics(regions: NDArray[Any], limit: int = 1000) -> dict[str, Any]:
    """Statistics of at most `limit` evenly spread images, to recognise foreign features.

    `images` is the number of images that were read, `mean_norm` the mean l2 norm of the regions
    that are not all zero, `channel_mean` and `channel_std` what these are like in each channel, to
    six digits; the other statistics are over all values. Sums are in float64. Raises DataError for
    a value that is not finite.
    """
    rows = spread(len(regions), limit)
    count = norms = squares = 0.0
    sums = ChannelSums(regions.shape[2])
    low, high = np.inf, -np.inf
    for _, picked in _chunks(rows, row_bytes=regions[0].size * 8):
        stored = regions[picked]  # (images, regions, img_dim)
        chunk = readable(stored).astype(np.float32, copy=False)
        square = sums.add(chunk)  # (images, regions)
        if not np.isfinite(square).all():
            image = int(np.argmin(np.isfinite(square).all(axis=1)))
            raise not_finite(stored[image : image + 1], int(picked[image]), "regions")
        count += chunk.size
        squares += float(square.sum())
        norms += float(np.sqrt(square).sum())
        low, high = min(low, float(chunk.min())), max(high, float(chunk.max()))
    mean = sums.total / count
    return {
        "images": len(rows),
        "mean": mean,
        "std": max(0.0, squares / count - mean * mean) ** 0.5,
        "mean_norm": norms / max(1, sums.filled),
        "min": low,
        "max": high,
        **statistics_of(sums.channels),
    }


def spread(length: int, limit: int) -> NDArray[np.int64]:
    """Evenly spread indices below `length`, beginning with 0: at most `limit`, at least one."""
    count = min(length, max(1, limit))
    return np.arange(count, dtype=np.int64) * (length - 1) // max(1, count - 1)


def _chunks(rows: NDArray[Any], row_bytes: int | None = None) -> Iterator[tuple[int, NDArray[Any]]]:
    """Pieces of about CHUNK_BYTES with the index of their first row."""
    step = max(1, CHUNK_BYTES // (row_bytes or rows[0].nbytes))
    for start in range(0, len(rows), step):
        yield start, rows[start : start + step]
