"""A picture made by code, and the regions that an extractor is expected to find in it.

Whatever changes what photographs become (the order of colours, scaling, a filter, another model or
padding) changes these regions; the norms and the sparsity of regions do not show it.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import sha256
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError, GateError, InputError
from sgraf_deploy.features.base import Picture, RegionExtractor
from sgraf_deploy.features.recipe import Reference

VERSION = 1
LEAST_COSINE = 0.999
"""Bilinear for bicubic, the least of the mistakes, is 0.99; another processor is 0.99999."""

_SIDE = 384
_WIDTH = 480

_checked: set[tuple[str, str]] = set()
"""Recipes and references that passed."""
_lock = Lock()


def reference_picture() -> Picture:
    """The picture of `VERSION`, (384, 480, 3) uint8: computed in integers, the same everywhere."""
    y, x = np.mgrid[0:_SIDE, 0:_WIDTH].astype(np.int64)
    picture = np.stack([x * 255 // _WIDTH, y * 255 // _SIDE, 255 - (x + y) * 255 // 864], axis=-1)
    # Disks and slanted bars of plain colours: large shapes with edges in all directions.
    for step in range(9):
        noise = _hash(np.array([step * 7 + k for k in range(6)]))
        centre_x, centre_y, radius = (
            noise[0] * 480 // 256,
            noise[1] * 384 // 256,
            20 + noise[2] // 5,
        )
        inside = (x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2
        picture[inside] = noise[3:6]
    bars = ((x * 3 + y * 2) // 37) % 6 == 0
    picture[bars] = picture[bars][:, ::-1] * 3 // 4
    # Squares of noise, of grains of 1, 2, 3 … pixels: what filters change.
    for place in range(12):
        top, left, grain = 32 + (place // 4) * 112, 24 + (place % 4) * 112, 1 + place % 4
        rows, columns = y[top : top + 72, left : left + 84], x[top : top + 72, left : left + 84]
        cells = (rows // grain) * 977 + (columns // grain) * 3 + place * 65_537
        coloured = np.stack([_hash(cells + 1_000_003 * channel) for channel in range(3)], axis=-1)
        picture[top : top + 72, left : left + 84] = coloured if place % 3 else coloured[..., :1]
    # Lines of letters, so to say: strokes of one and two pixels, dark on light.
    for line in range(4):
        top = 8 + line * 98
        rows, columns = y[top : top + 14, 16:464], x[top : top + 14, 16:464]
        strokes = _hash((columns // 2) * 31 + (rows // 3) * 7919 + line) > 140
        picture[top : top + 14, 16:464] = np.where(
            strokes[..., None], [20, 24, 60], [250, 244, 225]
        )
    return picture.astype(np.uint8)


def _hash(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """Grey levels 0 … 255 that look random, by integers of 32 bits."""
    found = numbers.astype(np.uint64) * 2_654_435_761 % 2**32
    found ^= found >> 15
    found = found * 2_246_822_519 % 2**32
    found ^= found >> 13
    return (found * 3_266_489_917 % 2**32 >> 24).astype(np.int64)


def expected_reference(extractor: RegionExtractor) -> Reference:
    """What an extractor finds in the picture, to be kept in its recipe; InputError for zeros."""
    regions = extractor.extract([reference_picture()]).regions[0].astype(np.float64)
    if not regions.any():
        raise InputError(
            "the regions of the reference picture",
            expected="numbers of which one at least is not zero",
            got="zeros",
            hint="check the model's output, and the projection",
        )
    # At length 1, as no float16 is large enough for every model; cosines stay what they are.
    regions /= np.maximum(np.linalg.norm(regions, axis=1, keepdims=True), 1e-12)
    content = regions.astype("<f2").tobytes()
    shape = (regions.shape[0], regions.shape[1])
    return Reference(VERSION, shape, base64.b64encode(content).decode("ascii"))


def check_reference(extractor: RegionExtractor, expected: Reference) -> None:
    """Raise GateError where the picture's regions have a mean cosine below `LEAST_COSINE`.

    Raises DataError for a reference that cannot be read. A recipe that passed is remembered in this
    process, in which nothing else changes the regions.
    """
    key = extractor.spec.sha256, sha256(repr(expected).encode()).hexdigest()
    with _lock:
        if key in _checked:
            return
    wanted = _read(expected)
    found = extractor.extract([reference_picture()]).regions[0]
    if found.shape != wanted.shape:
        raise _differs(f"{wanted.shape} regions", str(found.shape))
    cosine = float(cosines(found, wanted).mean())
    if not cosine >= LEAST_COSINE:
        raise _differs(f"a mean cosine of at least {LEAST_COSINE}", f"{cosine:.4f}")
    with _lock:
        _checked.add(key)


def cosines(x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
    """The cosines of rows (regions, img_dim): 1 for two rows of zeros, 0 for one of them."""
    a, b = x.astype(np.float64), y.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    product = lengths[0] * lengths[1]
    found = (a * b).sum(1) / np.where(product > 0, product, 1)
    alike = np.where((lengths[0] == 0) & (lengths[1] == 0), 1.0, found)
    # An angle of zero is one, whatever the roundings.
    return np.clip(alike, -1.0, 1.0)


def _read(reference: Reference) -> NDArray[np.float32]:
    if reference.picture != VERSION:
        raise DataError(
            "reference.picture",
            expected=VERSION,
            got=reference.picture,
            hint="make the recipe again with this version",
        )
    rows, channels = reference.shape
    try:
        content = base64.b64decode(reference.regions, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError("reference.regions", expected="base64", got=error) from error
    if len(content) != rows * channels * 2:
        raise DataError("reference.regions", expected=rows * channels * 2, got=len(content))
    return np.frombuffer(content, "<f2").reshape(rows, channels).astype(np.float32)


def _differs(expected: str, got: str) -> GateError:
    return GateError(
        "the regions of the reference picture are not those of the recipe",
        expected=expected,
        got=got,
        hint="compare the order of colours, mean and scale, filter and fit of resizing, and the "
        "model's padding with those of the features; other versions of Pillow or ONNX Runtime may "
        "do it, too",
    )
