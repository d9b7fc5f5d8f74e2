"""Files to pictures, by one set of rules, whatever the file: `RULES` is the version of them.

The picture is upright, (height, width, 3) uint8, RGB:

- The orientation in the file (EXIF, XMP) is applied; one that cannot be read counts as none.
- Gray, black and white, palettes and YCbCr become RGB; CMYK does as in Pillow, by
  (255 − C) · (255 − K) / 255, and JPEG's CMYK is Adobe's, which is inverted.
- What is transparent shows white behind it.
- 16 bits per channel become 8: gray is rounded to the nearest level, of colours the higher byte is
  taken. Nothing is clipped. 32 bits per channel are refused.
- Of an animation, or of several pictures in a file, the first is taken.
- A colour profile (ICC) is left out of account, as where the usual backbones were trained.
- A JPEG is decoded at its full size: never in the faster mode that reads a smaller picture.

Formats are those of `FORMATS`, told by the file's first bytes and not by its name, and HEIC where
`pillow-heif` is installed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import MAX_PIXELS
from sgraf_deploy.engines.registry import import_package, refusal
from sgraf_deploy.errors import DataError, SgrafDeployError
from sgraf_deploy.features.base import Picture
from sgraf_deploy.features.pillow import import_pillow
from sgraf_deploy.features.recipe import Decoding
from sgraf_deploy.formats import HEAD, PICTURES, recognise, shown

if TYPE_CHECKING:
    from PIL.Image import Image

RULES = Decoding(rules=1)
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")
"""Pillow's names; other formats of Pillow's run other programs, or hold no photographs."""

Source = str | os.PathLike[str] | bytes | NDArray[Any]
"""A file's path or content, or a picture that is decoded already."""

_HEIC = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_ANY_HEIF = {b"mif1", b"msf1"}
"""Brands that AVIF has as well, which then names itself among the compatible ones."""

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8")

_ORIENTATION = 0x0112
_COLOURS = {"1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "P"}
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N")


def decode_photo(
    source: Source,
    decoding: Decoding = RULES,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> Picture:
    """Decode a photograph to an upright picture, (height, width, 3) uint8, RGB.

    `source` is a file's path or content, or such an array, which is returned as it is. `name`
    stands for it in messages. A file of more than `max_pixels` is refused before it is decoded.

    Raises DataError for what is no photograph, is damaged or too large, and UnavailableError
    without Pillow.
    """
    try:
        return decode(source, decoding, max_pixels)
    except DataError as error:
        path = os.fspath(source) if isinstance(source, str | os.PathLike) else "photograph"
        raise error.at(name or path) from error


def decode(source: Source, decoding: Decoding = RULES, max_pixels: int = MAX_PIXELS) -> Picture:
    """The same, with errors that say what is wrong and leave it to the caller to name where."""
    if decoding != RULES:
        raise DataError("decoding.rules", expected=RULES.rules, got=decoding.rules)
    if isinstance(source, np.ndarray):
        return _checked(source, max_pixels)
    if isinstance(source, bytes):
        return _decode(BytesIO(source), max_pixels)
    try:
        mode = os.stat(source).st_mode
        if not stat.S_ISREG(mode):  # a named pipe would be waited for
            got = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
            raise DataError("not a photograph", expected="a file", got=got)
        with Path(source).open("rb") as file:
            return _decode(file, max_pixels)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError("the file cannot be read", got=reason) from error


def _checked(picture: NDArray[Any], max_pixels: int) -> Picture:
    shape = picture.shape
    if picture.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
        raise DataError(
            "an array that is no picture",
            expected="(height, width, 3) uint8, RGB",
            got=f"{shape} {picture.dtype}",
        )
    _check_size(shape[1], shape[0], max_pixels)
    return picture


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise _too_large(max_pixels, f"{width} × {height}")


def _too_large(max_pixels: int, got: str, *, raisable: bool = True) -> DataError:
    more = ", or allow more: --max-pixels, in Python max_pixels" if raisable else ""
    expected = f"at most {max_pixels} pixels"
    return DataError("too large", expected=expected, got=got, hint=f"make it smaller{more}")


def _decode(file: BinaryIO, max_pixels: int) -> Picture:
    """Decode an open file, in the caller's thread and with nothing of it left open."""
    pillow = import_pillow()
    head = file.read(HEAD)
    file.seek(0)
    formats = (*FORMATS, *_heif(head))
    with _translated(head, max_pixels), pillow.open(file, formats=formats) as image:
        _check_size(image.width, image.height, max_pixels)
        image.load()
        return _pixels(_upright(_rgb(image), _orientation(image)))


@contextmanager
def _translated(head: bytes, max_pixels: int) -> Iterator[None]:
    pillow = import_pillow()
    try:
        yield
    except SgrafDeployError:
        raise
    except pillow.UnidentifiedImageError as error:
        raise _unknown(head) from error
    except (pillow.DecompressionBombError, pillow.DecompressionBombWarning) as error:
        # The warning, at half as many, is one where the caller made errors of warnings.
        times = 2 if isinstance(error, pillow.DecompressionBombError) else 1
        most = times * pillow.MAX_IMAGE_PIXELS
        raisable, got = max_pixels < most, f"more than {most}"
        raise _too_large(min(max_pixels, most), got, raisable=raisable) from error
    except MemoryError as error:
        raise DataError("it needs more memory than there is") from error
    except Exception as error:
        raise DataError("damaged or cut off", got=error) from error


def _unknown(head: bytes) -> DataError:
    """The error for a file that Pillow does not know, by its first bytes."""
    found = recognise(head)
    if _begins_well(head):
        return DataError("damaged or cut off", got="the first bytes of a photograph alone")
    got, hint = (shown(head), None) if found is None else (found.name, found.hint)
    if found is None or found in PICTURES:
        hint = "convert it to JPEG or PNG, if it is a picture"
    expected = ", ".join((*FORMATS, "or HEIC"))
    return DataError("not a photograph that can be read", expected=expected, got=got, hint=hint)


def _begins_well(head: bytes) -> bool:
    """Whether these are the first bytes of a format that is read, if the rest is as it should be.

    TIFF is not among them: its first bytes are those of many cameras' raw files, too.
    """
    boxed = head[4:8] == b"ftyp" and (head[8:12] in _HEIC or b"avi" in head[8:32])
    return head.startswith(_BEGINNINGS) or (head[:4] + head[8:12]) == b"RIFFWEBP" or boxed


def _heif(head: bytes) -> tuple[str, ...]:
    """The name of the format of a HEIC file, once Pillow can read it; DataError if it cannot."""
    brand, others = head[8:12], head[12:64]
    heic = brand in _HEIC or (brand in _ANY_HEIF and b"avif" not in others)
    if head[4:8] != b"ftyp" or not heic:
        return ()
    missing = refusal(lambda: import_package("pillow_heif"))
    if missing is not None:
        raise DataError(
            "a HEIC file",
            expected="package pillow-heif to read it",
            got=missing.what,
            hint="pip install pillow-heif, or convert the file to JPEG",
        )
    import_package("pillow_heif").register_heif_opener()
    return ("HEIF",)


def _orientation(image: Image) -> int:
    """The orientation that the file states, 1 … 8; 1 where it states none that can be read."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # noqa: BLE001 - damaged EXIF raises nearly anything, and viewers ignore it
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _upright(image: Image, orientation: int) -> Image:
    if orientation == 1:
        return image
    transpose = import_pillow().Transpose
    steps = (
        transpose.FLIP_LEFT_RIGHT,
        transpose.ROTATE_180,
        transpose.FLIP_TOP_BOTTOM,
        transpose.TRANSPOSE,
        transpose.ROTATE_270,
        transpose.TRANSVERSE,
        transpose.ROTATE_90,
    )
    return image.transpose(steps[orientation - 2])


def _rgb(image: Image) -> Image:
    """The image in RGB, over white."""
    if image.mode in _DEEP:
        return _from_deep(image)
    if image.has_transparency_data:
        pillow = import_pillow()
        white = pillow.new("RGBA", image.size, "white")
        over: Image = pillow.alpha_composite(white, _with_alpha(image))
        return over.convert("RGB")
    if image.mode not in _COLOURS:
        raise DataError(
            "pixels of an unusual kind",
            expected="gray, RGB, a palette, CMYK or YCbCr, of 8 or 16 bits",
            got=f"Pillow's mode {image.mode}",
            hint="convert it to PNG of 8 bits",
        )
    return image.convert("RGB")


def _with_alpha(image: Image) -> Image:
    """The image in RGBA; a premultiplied one by way of its own kind."""
    return image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")


def _from_deep(image: Image) -> Image:
    """Gray of 16 bits, as gray of 8: Pillow's own conversion clips it."""
    deep = np.asarray(image).astype(np.uint32)
    gray = ((deep * 255 + 32767) // 65535).astype(np.uint8)
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        gray[deep == clear] = 255
    made: Image = import_pillow().fromarray(gray)
    return made.convert("RGB")


def _pixels(image: Image) -> Picture:
    return np.array(image, dtype=np.uint8)  # a copy: the image's own memory goes with it
