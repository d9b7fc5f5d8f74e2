"""What a split's folder says about its pictures: where the regions lie, and how large they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.mapped import map_array
from sgraf_deploy.data.npy import MAGIC, read_header
from sgraf_deploy.errors import DataError

_WRITE = "write it with numpy.save"


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
        with path.open("rb") as file:
            begin = file.read(len(MAGIC))
            if begin != MAGIC:
                got = f"a file that begins with {begin!r}"
                raise DataError(name, expected="a .npy file", got=got, hint=_WRITE)
            header = read_header(file, name)
        if header.shape != shape or not re.fullmatch(rf"[<>|=]?[{kinds}]\d+", header.dtype):
            numbers = "integers" if "f" not in kinds else "numbers"
            got = f"{header.kind} ({header.dtype}) of shape {header.shape}"
            raise DataError(name, expected=f"{numbers} of shape {shape}", got=got, hint=_WRITE)
        return map_array(path, header, name, np.memmap)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise DataError(f"{name} cannot be read", got=reason) from error
