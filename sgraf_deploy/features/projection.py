"""A projection of regions, such as a PCA, from an `.npz` file."""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.files import read_bytes
from sgraf_deploy.errors import DataError

MOST_BYTES = 1 << 30
"""Of all arrays together."""

NEEDED, OPTIONAL = ("mean", "matrix"), ("row_norm", "rounding")
_HINT = "write it with numpy.savez(FILE, mean=…, matrix=…, row_norm=…, rounding=…)"
_SMALLEST = 1e-12
_DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError)


@dataclass(frozen=True, eq=False)
class Linear:
    """u = (x − mean) · matrix; then each row to length `row_norm`, then to steps of 1/`rounding`.

    `mean` (channels) and `matrix` (channels, img_dim) float64: sums in float64 do not depend on
    the processor by more than the rounding to float32 hides.
    """

    mean: NDArray[np.float64]
    matrix: NDArray[np.float64]
    row_norm: float | None
    rounding: float | None

    def __call__(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Project rows (…, channels) to (…, img_dim); DataError for another number of channels."""
        if rows.shape[-1] != len(self.mean):
            raise DataError(
                "projection: channels of the model", expected=len(self.mean), got=rows.shape[-1]
            )
        # By einsum, whose sums have a fixed order: a matrix product's threads wait for each other,
        # 100 ms where others use the processors too, and this takes 3.
        found = np.einsum("...c,cd->...d", rows.astype(np.float64) - self.mean, self.matrix)
        if self.row_norm is not None:
            length = np.linalg.norm(found, axis=-1, keepdims=True)
            found *= self.row_norm / np.maximum(length, _SMALLEST)
        if self.rounding is not None:
            found = np.round(found * self.rounding) / self.rounding
        projected: NDArray[np.float32] = found.astype(np.float32)
        return projected


def read_projection(content: bytes, name: str) -> Linear:
    """A projection from the content of an `.npz` file; nothing in it is unpickled.

    Raises DataError for anything but `mean` (channels), `matrix` (channels, img_dim) and, as single
    positive numbers, `row_norm` and `rounding`.
    """
    arrays = _arrays(content, name)
    missing = [key for key in NEEDED if key not in arrays]
    unknown = sorted(set(arrays) - {*NEEDED, *OPTIONAL})
    if missing or unknown:
        raise DataError(
            f"{name}: its arrays",
            expected=f"{', '.join(NEEDED)}, and maybe {', '.join(OPTIONAL)}",
            got=", ".join(arrays) or "none",
            hint=_HINT,
        )
    mean, matrix = (_numbers(arrays[key], f"{name}: {key}") for key in NEEDED)
    if mean.ndim != 1 or matrix.ndim != 2 or len(mean) != len(matrix) or 0 in matrix.shape:
        raise DataError(
            f"{name}: mean and matrix",
            expected="(channels) and (channels, img_dim)",
            got=f"{mean.shape} and {matrix.shape}",
            hint=_HINT,
        )
    row_norm, rounding = (_positive(arrays.get(key), f"{name}: {key}") for key in OPTIONAL)
    return Linear(mean, matrix, row_norm, rounding)


def read_content(path: Path) -> bytes:
    """The content of a projection's file; DataError for one that cannot be read or is too large."""
    content = read_bytes(path, "projection", at_most=MOST_BYTES)
    if len(content) > MOST_BYTES:
        raise DataError(f"projection {path} is too large", expected=f"at most {MOST_BYTES} bytes")
    return content


def content_sha256(content: bytes) -> str:
    """The sha256 of a file's content, in hexadecimal digits."""
    return sha256(content).hexdigest()


def _arrays(content: bytes, name: str) -> dict[str, NDArray[Any]]:
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            size = sum(one.file_size for one in archive.infolist())
        if size > MOST_BYTES:
            expected = f"at most {MOST_BYTES} bytes of arrays"
            raise DataError(f"{name} is too large", expected=expected, got=size)
        with np.load(BytesIO(content), allow_pickle=False) as arrays:
            return {key: arrays[key] for key in arrays.files}
    except (*_DAMAGED, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(name, expected="an .npz file", got=error, hint=_HINT) from error


def _numbers(array: NDArray[Any], what: str) -> NDArray[np.float64]:
    if array.dtype.kind not in "iuf":
        raise DataError(what, expected="numbers", got=array.dtype, hint=_HINT)
    found = array.astype(np.float64)
    if not np.isfinite(found).all():
        raise DataError(what, expected="finite numbers", got="others", hint=_HINT)
    return found


def _positive(array: NDArray[Any] | None, what: str) -> float | None:
    if array is None:
        return None
    found = _numbers(array, what)
    if found.size != 1 or found.item() <= 0:
        raise DataError(what, expected="one positive number", got=found.tolist(), hint=_HINT)
    return float(found.item())
