"""The rules of decoding, one by one, on files that the tests make: odd ones and hostile ones."""

from __future__ import annotations

import struct
import sys
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from support.photographs import (
    Picture,
    exif,
    photograph,
    picture_file,
    png,
    quarters,
    saved,
    turned,
)
from support.refusals import naming, refused

from sgraf_deploy.errors import DataError
from sgraf_deploy.features.decode import decode_photo

Colours = Sequence[tuple[int, ...]]

RED, GREEN, BLUE, YELLOW = ((250, 10, 20), (10, 240, 30), (30, 20, 230), (120, 110, 5))
PLACES = ((6, 8), (6, 24), (18, 8), (18, 24))
"""The middles of the quarters, row and column, in the order of their colours."""


def levels(picture: Picture) -> list[tuple[int, ...]]:
    """The colours of the quarters' middles."""
    return [tuple(int(level) for level in picture[place]) for place in PLACES]


def near(picture: Picture, colours: Colours, most: int) -> None:
    """The quarters are these colours, and the picture is of the right kind."""
    assert picture.dtype == np.uint8
    assert picture.shape == (24, 32, 3)
    assert np.abs(np.array(levels(picture)) - np.array(colours)).max() <= most


def palette(transparent: int | None = None) -> Image.Image:
    """The quarters by a palette of four colours."""
    image = Image.fromarray(quarters()).quantize(4)
    if transparent is not None:
        image.info["transparency"] = image.getpixel((transparent % 32, transparent // 32))
    return image


def with_alpha(mode: str, level: int) -> Image.Image:
    """The quarters, of which the red one is clear, and blue has an alpha of `level`."""
    alpha = np.full((24, 32), 255, np.uint8)
    alpha[:12, :16], alpha[12:, :16] = 0, level
    image = Image.fromarray(quarters()).convert("L" if mode == "LA" else "RGB").convert(mode)
    image.putalpha(Image.fromarray(alpha))
    return image


def animation(kind: str) -> bytes:
    """The quarters, and then a black picture, of which the file shows one after the other."""
    other = Image.fromarray(np.zeros((24, 32, 3), np.uint8))
    options: dict[str, Any] = {"save_all": True, "append_images": [other], "duration": 100}
    return saved(Image.fromarray(quarters()), kind, **options, lossless=True)


def deep(kind: int, *values: int) -> bytes:
    """A PNG of 16 bits per channel, one row of pixels of `values`."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    row = b"\0" + struct.pack(f">{len(values)}H", *values)
    return png((len(values) // channels, 1, 16, kind), row)


def without_adobe(content: bytes) -> bytes:
    """A JPEG without the segment by which Adobe's programs tell what its colours are."""
    place = content.index(b"\xff\xee")
    return content[:place] + content[place + 2 + struct.unpack_from(">H", content, place + 2)[0] :]


COLOURS = [RED, GREEN, BLUE, YELLOW]
GRAY = [(round(0.299 * r + 0.587 * g + 0.114 * b),) * 3 for r, g, b in COLOURS]
WHITE = (255, 255, 255)
OVER_WHITE = [WHITE, GREEN, (143, 138, 243), YELLOW]
"""The quarters where red is clear, and blue half so, by an alpha of 127."""

CMYK = Image.fromarray(quarters()).convert("CMYK")

FILES: dict[str, tuple[Callable[[], bytes], Colours, int]] = {
    "jpeg": (lambda: picture_file(quarters(), "JPEG", quality=95), COLOURS, 6),
    "png": (lambda: picture_file(quarters()), COLOURS, 0),
    "bmp": (lambda: picture_file(quarters(), "BMP"), COLOURS, 0),
    "tiff": (lambda: picture_file(quarters(), "TIFF"), COLOURS, 0),
    "webp": (lambda: picture_file(quarters(), "WEBP", lossless=True), COLOURS, 0),
    "avif": (lambda: picture_file(quarters(), "AVIF", quality=95), COLOURS, 12),
    "gray": (lambda: saved(Image.fromarray(quarters()).convert("L"), "JPEG"), GRAY, 4),
    "palette": (lambda: saved(palette(), "PNG"), COLOURS, 0),
    "palette, one colour clear": (lambda: saved(palette(0), "PNG"), [WHITE, *COLOURS[1:]], 0),
    "gif, one colour clear": (lambda: saved(palette(0), "GIF"), [WHITE, *COLOURS[1:]], 0),
    "rgba": (lambda: saved(with_alpha("RGBA", 127), "PNG"), OVER_WHITE, 1),
    "webp with alpha": (
        lambda: saved(with_alpha("RGBA", 127), "WEBP", lossless=True),
        OVER_WHITE,
        1,
    ),
    "gray with alpha": (
        lambda: saved(with_alpha("LA", 0), "PNG"),
        [WHITE, GRAY[1], WHITE, GRAY[3]],
        1,
    ),
    "cmyk jpeg": (lambda: saved(CMYK, "JPEG", quality=95), COLOURS, 6),
    "cmyk jpeg, not marked": (
        lambda: without_adobe(saved(CMYK, "JPEG", quality=95)),
        COLOURS,
        6,
    ),
    "cmyk tiff": (lambda: saved(CMYK, "TIFF"), COLOURS, 1),
    "animated gif": (lambda: animation("GIF"), COLOURS, 0),
    "animated webp": (lambda: animation("WEBP"), COLOURS, 0),
    "animated png": (lambda: animation("PNG"), COLOURS, 0),
    "two pictures in a tiff": (lambda: animation("TIFF"), COLOURS, 0),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_becomes_rgb(name: str, tmp_path: Path) -> None:
    make, colours, most = FILES[name]
    path = tmp_path / "photograph"
    path.write_bytes(make())
    near(decode_photo(path), colours, most)
    near(decode_photo(make()), colours, most)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_the_orientation_is_applied(kind: str, orientation: int) -> None:
    known: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    stored = picture_file(
        turned(quarters(), orientation), kind, exif=exif(orientation), **known.get(kind, {})
    )
    near(decode_photo(stored), COLOURS, 6)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data:UserWarning")
@pytest.mark.parametrize("stated", [b"", b"II*\0\xff\xff\xff\xff", b"no", b"MM\0*\0\0"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_orientation_that_cannot_be_read_counts_as_none(kind: str, stated: bytes) -> None:
    """Pillow raises SyntaxError and struct.error of some of these."""
    content = picture_file(quarters(), kind, quality=95, lossless=True, exif=b"Exif\0\0" + stated)
    near(decode_photo(content), COLOURS, 6)


@pytest.mark.parametrize("number", [0, 9, 65535])
def test_an_orientation_that_there_is_none_of_counts_as_none(number: int) -> None:
    content = picture_file(quarters(), "JPEG", quality=95, exif=exif(number))
    near(decode_photo(content), COLOURS, 6)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # Pillow's own conversion makes 255 of all that is above 255.
        (deep(0, 0, 128, 129, 257, 32768, 65535), [0, 0, 1, 1, 128, 255]),
        (deep(2, 0, 128, 65535, 257, 32768, 4000), [0, 0, 255, 1, 128, 15]),
        (deep(4, 65535, 65535, 20000, 65535, 9, 0), [255, 78, 255]),
        (deep(6, 65535, 0, 257, 65535, 1, 2, 3, 0), [255, 0, 1, 255, 255, 255]),
    ],
    ids=["gray", "rgb", "gray with alpha", "rgb with alpha"],
)
def test_sixteen_bits_are_scaled_and_not_clipped(content: bytes, expected: list[int]) -> None:
    found = decode_photo(content)
    values = found[0, :, 0] if len(expected) == found.shape[1] else found[0].reshape(-1)
    assert values.tolist() == expected


def test_of_sixteen_bits_one_level_may_be_clear() -> None:
    clear = b"\0\0\0\2tRNS" + struct.pack(">H", 500)
    clear += struct.pack(">I", zlib.crc32(clear[4:]))
    row = b"\0" + struct.pack(">3H", 500, 501, 65535)
    assert decode_photo(png((3, 1, 16, 0), row, clear))[0, :, 0].tolist() == [255, 2, 255]


def test_a_sixteen_bit_tiff_is_scaled() -> None:
    image = Image.fromarray(np.array([[0, 257, 40000, 65535]], np.uint16))
    assert decode_photo(saved(image, "TIFF"))[0, :, 1].tolist() == [0, 1, 156, 255]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_more_bits_are_refused(dtype: Any) -> None:
    content = saved(Image.fromarray(np.array([[0, 1]], dtype)), "TIFF")
    with refused(DataError, "photograph", got=naming("F" if dtype == np.float32 else "I")):
        decode_photo(content)


def test_a_colour_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    found = decode_photo(picture_file(quarters(), icc_profile=profile))
    np.testing.assert_array_equal(found, quarters())


def test_a_photograph_is_decoded_at_its_full_size() -> None:
    with Image.open(photograph("astronaut")) as image:
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(decode_photo(photograph("astronaut")), expected)
    large = Image.fromarray(expected).resize((2048, 2048))
    content = saved(large, "JPEG", quality=90)
    assert decode_photo(content).shape == (2048, 2048, 3)


def heic() -> bytes:
    import pillow_heif

    file = BytesIO()
    pillow_heif.from_pillow(Image.fromarray(quarters(64, 64))).save(file, quality=95)
    return file.getvalue()


@pytest.fixture
def no_heif(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)


def test_heic_is_read_where_pillow_heif_is_installed() -> None:
    found = decode_photo(heic())
    assert found.shape == (64, 64, 3)
    assert np.abs(found[16, 16].astype(int) - RED).max() <= 25


@pytest.mark.usefixtures("no_heif")
def test_heic_without_pillow_heif_is_refused_by_its_name() -> None:
    content = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
    with refused(DataError, "a.heic", expected=naming("pillow-heif"), hint="pillow-heif"):
        decode_photo(content, name="a.heic")
    near(decode_photo(picture_file(quarters())), COLOURS, 0)
    near(decode_photo(picture_file(quarters(), "AVIF", quality=95)), COLOURS, 12)


def test_a_picture_is_taken_as_it_is() -> None:
    made = quarters()
    assert decode_photo(made) is made


def test_a_damaged_file_is_refused_or_read_and_nothing_else() -> None:
    """Bytes changed at random, in files of every kind: 20 of each."""
    random = np.random.default_rng(5)
    for name, (make, _, _) in FILES.items():
        content = make()
        for _ in range(20):
            changed = bytearray(content)
            for place in random.integers(0, len(changed), 4):
                changed[place] = random.integers(256)
            try:
                found = decode_photo(bytes(changed), max_pixels=1_000_000, name=name)
            except DataError:
                continue
            assert found.dtype == np.uint8
            assert (found.ndim, found.shape[2]) == (3, 3)
