"""Photographs: their size from the header alone, upright."""

from __future__ import annotations

import struct
from base64 import b64decode
from pathlib import Path

import pytest
from support.refusals import ANY, naming, refused

from sgraf_deploy.errors import DataError
from sgraf_deploy.explanation import picture
from sgraf_deploy.explanation.picture import read_picture


def png(width: int, height: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height) + bytes(9)


def segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def exif(orientation: int, order: str) -> bytes:
    mark = b"MM\0*" if order == ">" else b"II*\0"
    entries = struct.pack(f"{order}HHHIHxx", 2, 0x0100, 3, 1, 7)
    entries += struct.pack(f"{order}HHIHxx", 0x0112, 3, 1, orientation)
    return segment(0xE1, b"Exif\0\0" + mark + struct.pack(f"{order}I", 8) + entries)


def jpeg(width: int, height: int, *before: bytes, frame: int = 0xC0) -> bytes:
    body = struct.pack(">BHHB", 8, height, width, 3) + bytes(9)
    tables = segment(0xDB, bytes(65)) + segment(0xC4, bytes(20))
    return b"\xff\xd8" + b"".join(before) + tables + b"\xff" + segment(frame, body) + b"\xff\xda"


@pytest.mark.parametrize(
    ("content", "kind", "size"),
    [
        (png(640, 480), "png", (640, 480)),
        (jpeg(640, 480), "jpeg", (640, 480)),
        (jpeg(640, 480, frame=0xC2), "jpeg", (640, 480)),
        (jpeg(640, 480, exif(1, "<")), "jpeg", (640, 480)),
        (jpeg(640, 480, exif(3, ">")), "jpeg", (640, 480)),
        (jpeg(640, 480, exif(6, "<")), "jpeg", (480, 640)),
        (jpeg(640, 480, exif(8, ">")), "jpeg", (480, 640)),
        (jpeg(640, 480, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0")), "jpeg", (640, 480)),
        (jpeg(640, 480, segment(0xE1, b"Exif\0\0II*\0")), "jpeg", (640, 480)),
    ],
)
def test_a_picture_is_as_large_as_it_is_upright(
    tmp_path: Path, content: bytes, kind: str, size: tuple[int, int]
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(content)

    found = read_picture(path)

    assert (found.width, found.height) == size
    head, _, data = found.uri.partition(",")
    assert head == f"data:image/{kind};base64"
    assert b64decode(data) == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"GIF89a" + bytes(20),
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        png(640, 480)[:20],
        png(0, 480),
        jpeg(640, 480)[:30],
        b"\xff\xd8\xff\xda",
        b"\xff\xd8" + b"\xff" * 10,
        b"\xff\xd8\0\0\0\0",
    ],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "picture"
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read_picture(path)
    assert "picture" in str(caught.value)


def test_a_picture_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with refused(DataError, got=ANY):
        read_picture(tmp_path / "none.jpg")


def test_a_picture_that_is_too_large_is_refused_and_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture"
    path.write_bytes(png(640, 480))
    size = path.stat().st_size
    monkeypatch.setattr(picture, "MOST_BYTES", size)
    assert read_picture(path).width == 640
    monkeypatch.setattr(picture, "MOST_BYTES", size - 1)
    with refused(DataError, path, expected=naming(size - 1), got=ANY, hint=ANY):
        read_picture(path)
