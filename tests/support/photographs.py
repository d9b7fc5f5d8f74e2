"""Photographs of the tests: scikit-image's, and pictures of few colours in files of all kinds."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "motorcycle_left", "rocket")
SHARED_PHOTOGRAPHS = Path("data", "f8k_photos", "photos")


def photograph(name: str) -> Path:
    """The file of a photograph that scikit-image brings."""
    import skimage

    folder = Path(skimage.__file__).parent / "data"
    (found,) = (path for path in folder.iterdir() if path.stem == name)
    return found


def quarters(height: int = 24, width: int = 32) -> Picture:
    """Red, green, blue and dark yellow quarters, from the left of the top to the right below."""
    made = np.zeros((height, width, 3), np.uint8)
    middle, centre = height // 2, width // 2
    made[:middle, :centre] = 250, 10, 20
    made[:middle, centre:] = 10, 240, 30
    made[middle:, :centre] = 30, 20, 230
    made[middle:, centre:] = 120, 110, 5
    return made


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """An image as the content of a file of Pillow's format `kind`."""
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture_file(made: Picture, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as the content of a file."""
    return saved(Image.fromarray(made), kind, **options)


def png(header: tuple[int, ...], rows: bytes, more: bytes = b"", *, packed: bool = False) -> bytes:
    """A PNG file by hand: width, height, bits, colour type; its rows with their filters."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    first = struct.pack(">IIBBBBB", *header, 0, 0, 0)
    body = chunk(b"IHDR", first) + more + chunk(b"IDAT", rows if packed else zlib.compress(rows))
    body += chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def bomb(side: int = 30_000) -> bytes:
    """A PNG of side × side black pixels, one bit each: 900 million of them in 110 KB."""
    packer, row = zlib.compressobj(9), bytes(1 + side // 8)
    rows = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    return png((side, side, 1, 0), rows, packed=True)


def turned(made: Picture, orientation: int) -> Picture:
    """A picture as a camera stores it that states this EXIF orientation."""
    stored: dict[int, Callable[[Picture], Picture]] = {
        1: lambda x: x,
        2: lambda x: x[:, ::-1],
        3: lambda x: x[::-1, ::-1],
        4: lambda x: x[::-1],
        5: lambda x: x.transpose(1, 0, 2),
        6: lambda x: np.rot90(x, 1),
        7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
        8: lambda x: np.rot90(x, -1),
    }
    return np.ascontiguousarray(stored[orientation](made))


def exif(orientation: int) -> bytes:
    """EXIF that states an orientation and nothing else."""
    made = Image.Exif()
    made[0x0112] = orientation
    return made.tobytes()
