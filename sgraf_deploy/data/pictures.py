"""What a split's folder says about its pictures: where the regions lie, and how large they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError


def open_boxes(path: Path, images: int, regions: int) -> NDArray[Any]:
    """Map `{split}_boxes.npy`: (images, regions, 4) of any real numbers.

    Raises DataError for a file that cannot be read, or has another shape or dtype.
    """
    return _open(path, f"boxes {path}", (images, regions, 4), "iuf")


def open_sizes(path: Path, images: int) -> NDArray[Any]:
    """Map `{split}_sizes.npy`: width and height, (images, 2) integers; raises as `open_boxes`."""
    return _open(path, f"sizes of pictures {path}", (images, 2), "iu")


def _open(path: Path, name: str, shape: tuple[int, ...], kinds: str) -> NDArray[Any]:
    try:
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{name} cannot be read", got=error, hint="write it with numpy.save"
        ) from error
    if (
        not isinstance(stored, np.ndarray)
        or stored.shape != shape
        or stored.dtype.kind not in kinds
    ):
        got = getattr(stored, "shape", "an archive"), getattr(stored, "dtype", "")
        numbers = "integers" if "f" not in kinds else "numbers"
        raise DataError(name, expected=f"{numbers} of shape {shape}", got=f"{got[1]} {got[0]}")
    return stored
