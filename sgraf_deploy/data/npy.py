"""The header of a `.npy` file, of every version that NumPy has written, read without NumPy.

NumPy's parser accepts headers that describe no array: a shape of (True, 2), a negative shape, any
dtype at all.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import BinaryIO

from sgraf_deploy.errors import DataError

MAGIC = b"\x93NUMPY"

_VERSIONS = {1: (2, "latin1"), 2: (4, "latin1"), 3: (4, "utf-8")}
"""Format version -> bytes of the header's length, and its encoding."""

_LONGEST = 10_000
"""Most bytes of a header, the same as in NumPy: Python's parser is not made for more."""

_LONG = re.compile(r"(?<=\d)L(?=\s*[,)])")
"""The suffix that Python 2 wrote after the numbers of a shape."""

_KINDS = {
    "b": "booleans",
    "i": "integers",
    "u": "integers",
    "f": "floats",
    "c": "complex numbers",
    "S": "bytes",
    "a": "bytes",
    "U": "text",
    "m": "durations",
    "M": "dates",
    "O": "Python objects",
    "V": "raw bytes",
}


@dataclass(frozen=True)
class Header:
    """The shape, dtype and order of an array, and the byte of the file at which its data begin.

    `dtype` is as NumPy writes it, such as `<f4`; for a structured dtype, Python's text of its
    fields.
    """

    shape: tuple[int, ...]
    dtype: str
    fortran_order: bool
    offset: int

    @property
    def kind(self) -> str:
        """The kind of the array's values, in words."""
        return kind_of(self.dtype)


def kind_of(dtype: str) -> str:
    """The kind of values of a dtype as NumPy writes it, in words."""
    match = re.fullmatch(r"[<>=|]?([a-zA-Z])\d*(?:\[.*\])?", dtype)
    other = "records of several fields" if dtype.startswith(("[", "{")) else "an unknown dtype"
    return _KINDS.get(match[1] if match else "", other)


def read_header(file: BinaryIO, name: str) -> Header:
    """Read the header of a file that begins with MAGIC; `name` is the file's name in messages.

    Raises DataError for a header that is truncated, invalid or of an unknown version.
    """
    file.seek(len(MAGIC))
    version = file.read(2)
    if len(version) == 2 and (version[0] not in _VERSIONS or version[1]):
        got = f"{version[0]}.{version[1]}"
        raise DataError(f"{name}: version of the .npy format", expected="1.0, 2.0 or 3.0", got=got)
    size, encoding = _VERSIONS[version[0]] if len(version) == 2 else (2, "latin1")
    length = int.from_bytes(file.read(size), "little")
    content = file.read(min(length, _LONGEST + 1))
    if len(version) < 2 or (len(content) < length <= _LONGEST) or not length:
        got, hint = "a file that ends in its header", "copy or download it again"
        expected = "a complete .npy file"
        raise DataError(f"{name} is truncated", expected=expected, got=got, hint=hint)
    parsed = None if length > _LONGEST else _parse(content, encoding)
    if parsed is None:
        raise DataError(
            f"{name} is not a .npy file",
            expected="a header with shape, dtype and order",
            got=repr(content[:60]),
            hint="write it with numpy.save",
        )
    shape, dtype, fortran_order = parsed
    return Header(shape, dtype, fortran_order, file.tell())


def _parse(content: bytes, encoding: str) -> tuple[tuple[int, ...], str, bool] | None:
    """The shape, dtype and order; None if the content is not a header."""
    try:
        text = content.decode(encoding).strip()
        fields = ast.literal_eval(_LONG.sub("", text))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        # Nesting too deep for Python's parser is one of the last two, by its version.
        return None
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        return None
    shape, order, dtype = fields["shape"], fields["fortran_order"], fields["descr"]
    if not isinstance(shape, tuple) or not isinstance(order, bool):
        return None
    if any(type(size) is not int or size < 0 for size in shape):
        return None
    return shape, dtype if isinstance(dtype, str) else repr(dtype), order
