"""A photograph as it goes into a page: its bytes as they are, and its upright size."""

from __future__ import annotations

import struct
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from sgraf_deploy.data.files import read_bytes
from sgraf_deploy.errors import DataError

MOST_BYTES = 32 * 2**20
"""Of a picture, which stands in the page as text of 4/3 that size."""

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""JPEG's markers of a frame, which holds the size."""
_SCAN, _EXIF = 0xDA, 0xE1
_TURNED = range(5, 9)
"""Exif's orientations whose upright picture has width and height exchanged."""


@dataclass(frozen=True)
class Picture:
    """A JPEG or PNG file; width and height are those of the upright picture, in pixels."""

    width: int
    height: int
    uri: str = field(repr=False)


def read_picture(path: Path) -> Picture:
    """Read a JPEG or PNG file.

    DataError for another file, for one of more than MOST_BYTES, and one that ends before its size.
    """
    content = read_bytes(path, "picture", at_most=MOST_BYTES)
    if len(content) > MOST_BYTES:
        raise DataError(
            f"picture {path}",
            expected=f"at most {MOST_BYTES} bytes",
            got="more",
            hint="scale it down, for example with ImageMagick: magick FILE -resize 50% picture.jpg",
        )
    try:
        if content.startswith(_PNG):
            kind, (width, height) = "png", struct.unpack(">II", content[16:24])
        elif content.startswith(_JPEG):
            kind, (width, height) = "jpeg", _jpeg_size(content)
        else:
            raise DataError(
                f"picture {path}",
                expected="a JPEG or PNG file",
                got=f"a file that begins with {content[:8]!r}",
                hint="convert it, for example with ImageMagick: magick FILE picture.jpg",
            )
    except (struct.error, IndexError) as error:
        raise DataError(
            f"picture {path} is damaged", expected="its size", got="the end of the file"
        ) from error
    if not width or not height:
        raise DataError(f"picture {path}", expected="a size", got=f"{width}×{height}")
    data = b64encode(content).decode("ascii")
    return Picture(width, height, f"data:image/{kind};base64,{data}")


def _jpeg_size(content: bytes) -> tuple[int, int]:
    orientation = 1
    for marker, body in _segments(content):
        if marker == _EXIF and body.startswith(b"Exif\0\0"):
            orientation = _orientation(body[6:])
        elif marker in _FRAMES:
            height, width = struct.unpack(">HH", body[1:5])
            return (height, width) if orientation in _TURNED else (width, height)
    raise IndexError("no frame")


def _segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    """JPEG's segments before the image data; IndexError or struct.error where they end early."""
    place = 2
    while True:
        while content[place + 1] == 0xFF:  # Fill bytes.
            place += 1
        if content[place] != 0xFF or content[place + 1] == _SCAN:
            return
        (length,) = struct.unpack(">H", content[place + 2 : place + 4])
        yield content[place + 1], content[place + 4 : place + 2 + length]
        place += 2 + max(2, length)


def _orientation(exif: bytes) -> int:
    """Exif's orientation, 1 for upright or where there is none."""
    order = ">" if exif.startswith(b"MM") else "<"
    try:
        (start,) = struct.unpack(f"{order}I", exif[4:8])
        (count,) = struct.unpack(f"{order}H", exif[start : start + 2])
        for entry in range(count):
            place = start + 2 + 12 * entry
            tag, _, _, value = struct.unpack(f"{order}HHIH", exif[place : place + 10])
            if tag == 0x0112:
                return int(value)
    except struct.error:
        return 1
    return 1
