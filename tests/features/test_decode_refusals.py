"""What is no photograph, or too large a one, is refused file by file, and unallocated."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.photographs import bomb, photograph, picture_file, quarters
from support.refusals import ANY, holds, naming, refused

from sgraf_deploy.config import MAX_PIXELS, MOST_PIXELS
from sgraf_deploy.errors import DataError, UnavailableError
from sgraf_deploy.features.decode import RULES, decode_photo
from sgraf_deploy.features.pillow import INSTALL
from sgraf_deploy.features.recipe import Decoding

REFUSED: dict[str, tuple[Callable[[], bytes], object]] = {
    "empty": (lambda: b"", naming("empty")),
    "zeros": (lambda: bytes(1000), ANY),
    "text": (lambda: b"no photograph at all, but a text\n" * 20, naming("text")),
    "html": (lambda: b"<!DOCTYPE html><html>not found</html>", naming("HTML")),
    "numpy": (lambda: b"\x93NUMPY" + bytes(200), naming("NumPy")),
    "pdf": (lambda: b"%PDF-1.7\n" + bytes(200), naming("PDF")),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ANY),
    "jpeg, half": (lambda: halved(photograph("astronaut").read_bytes()), ANY),
    "png, half": (lambda: halved(photograph("chelsea").read_bytes()), ANY),
    "webp, half": (lambda: halved(picture_file(quarters(240, 320), "WEBP")), ANY),
    "avif, half": (lambda: halved(picture_file(quarters(240, 320), "AVIF")), ANY),
    "gif, half": (lambda: halved(noise("GIF")), ANY),
    "jpeg, its beginning": (lambda: photograph("astronaut").read_bytes()[:30], ANY),
    "png, a wrong checksum": (lambda: picture_file(quarters()).replace(b"IDAT", b"IDAT\0", 1), ANY),
    # Formats of Pillow's that are not read.
    "ppm": (lambda: picture_file(quarters(), "PPM"), ANY),
    "ico": (lambda: picture_file(quarters(), "ICO"), ANY),
    "jpeg xl": (lambda: b"\xff\x0a" + bytes(50), naming("JPEG XL")),
    "jpeg 2000": (lambda: picture_file(quarters(), "JPEG2000"), naming("JPEG 2000")),
    "raw": (lambda: b"II*\0\x10\0\0\0CR\2\0" + bytes(50), naming("TIFF")),
    "svg": (lambda: b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', ANY),
}


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def noise(kind: str) -> bytes:
    made = np.random.default_rng(1).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    return picture_file(made, kind)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_whole_photograph_is_refused(name: str, tmp_path: Path) -> None:
    make, got = REFUSED[name]
    path = tmp_path / "photograph.jpg"
    path.write_bytes(make())
    with refused(DataError, path, got=got):
        decode_photo(path)
    with refused(DataError, "upload", got=got):
        decode_photo(make(), name="upload")


@pytest.mark.parametrize("size", [12, 35, 200])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "AVIF"])
def test_the_beginning_of_a_photograph_is_not_called_another_format(kind: str, size: int) -> None:
    content = picture_file(quarters(240, 320), kind)
    with refused(DataError, expected=None, hint=None):
        decode_photo(content[:size])


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "none.jpg"):
        with refused(DataError, path):
            decode_photo(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with refused(DataError, tmp_path / "pipe.jpg"):
        decode_photo(tmp_path / "pipe.jpg")


BOMB = """
import resource, sys
from sgraf_deploy.errors import DataError
from sgraf_deploy.features.decode import decode_photo
decode_photo(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode_photo(sys.argv[2], max_pixels=int(sys.argv[3]))
except DataError as error:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, error.what)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the unit is kilobytes on Linux")
@pytest.mark.parametrize("most", [MAX_PIXELS, 10**12], ids=["our limit", "Pillow's limit"])
def test_a_bomb_is_refused_before_anything_is_allocated(most: int, tmp_path: Path) -> None:
    """Decoded it would take 900 MB at least; Pillow's memory is seen by the system alone."""
    first, second = tmp_path / "first.png", tmp_path / "bomb.png"
    first.write_bytes(picture_file(quarters()))
    second.write_bytes(bomb())
    assert second.stat().st_size < 300_000
    command = [sys.executable, "-W", "error", "-c", BOMB, str(first), str(second), str(most)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    kilobytes, what = done.stdout.split(maxsplit=1)
    assert int(kilobytes) < 50_000
    assert holds(what, second)


def test_pillows_own_limit_is_told_apart() -> None:
    """--max-pixels cannot raise it, so nothing may say so."""
    limit = naming(MOST_PIXELS)
    with refused(DataError, "large.png", expected=limit, got=limit, hint=naming()) as found:
        decode_photo(bomb(14_000), max_pixels=10**12, name="large.png")
    assert not holds(str(found.error.hint), "--max-pixels")


@pytest.mark.parametrize("side", [8_000, 10_000, 14_000])
def test_more_pixels_than_allowed_are_refused(side: int) -> None:
    """Pillow refuses 14,000 × 14,000, warns of 10,000 × 10,000, and is silent on 8,000 × 8,000."""
    with refused(DataError, "large.png", expected=naming(MAX_PIXELS), hint="--max-pixels"):
        decode_photo(bomb(side), name="large.png")


def test_the_limit_is_the_callers() -> None:
    content = picture_file(quarters())
    np.testing.assert_array_equal(decode_photo(content, max_pixels=24 * 32), quarters())
    with refused(DataError, expected=naming(24 * 32 - 1), got=naming(24, 32), hint="--max-pixels"):
        decode_photo(content, max_pixels=24 * 32 - 1)
    with refused(DataError, expected=naming(24 * 32 - 1)):
        decode_photo(quarters(), max_pixels=24 * 32 - 1)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5, 3), np.float32),
        np.zeros((4, 5), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((4, 0, 3), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
    ],
    ids=lambda array: f"{array.shape} {array.dtype}",
)
def test_another_array_is_refused(array: Any) -> None:
    with refused(DataError, "upload", got=naming(str(array.dtype))):
        decode_photo(array, name="upload")


def test_rules_that_are_not_known_are_refused() -> None:
    assert decode_photo(quarters(), RULES) is not None
    with refused(DataError, "decoding.rules", expected=1, got=2):
        decode_photo(quarters(), Decoding(rules=2))  # type: ignore[arg-type]


def test_without_pillow_the_error_has_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "PIL"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with refused(UnavailableError, "Pillow", hint=INSTALL):
        decode_photo(b"anything")
