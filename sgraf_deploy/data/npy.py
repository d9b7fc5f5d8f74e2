"""The head of a `.npy` file, of every version that NumPy has written, read without NumPy's help.

NumPy's parser takes what is no array: a shape of (True, 2), a negative one, any dtype at all.
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
"""Bytes of a header, as NumPy has it: Python's parser is not made for more."""

_LONG = re.compile(r"(?<=\d)L(?=\s*[,)])")
"""What Python 2 wrote behind the numbers of a shape."""

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
    """What an array is, and at which byte of the file it begins.

    `dtype` is as NumPy writes it, `<f4`; for a structured one Python's text of its fields.
    """

    shape: tuple[int, ...]
    dtype: str
    fortran_order: bool
    offset: int

    @property
    def kind(self) -> str:
        """What the array is of, in words."""
        return kind_of(self.dtype)


def kind_of(dtype: str) -> str:
    """What a dtype as NumPy writes it holds, in words."""
    found = re.fullmatch(r"[<>=|]?([a-zA-Z])\d*(?:\[.*\])?", dtype)
    other = "records of several fields" if dtype.startswith(("[", "{")) else "an unknown dtype"
    return _KINDS.get(found[1] if found else "", other)


def read_header(file: BinaryIO, name: str) -> Header:
    """The header of a file that begins with MAGIC; `name` is the file's in messages.

    Raises DataError for one that is cut off, of an unknown version or no header.
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
        raise DataError(f"{name} is truncated", expected="a whole .npy file", got=got, hint=hint)
    found = None if length > _LONGEST else _parse(content, encoding)
    if found is None:
        raise DataError(
            f"{name} is not a .npy file",
            expected="a header of shape, dtype and order",
            got=repr(content[:60]),
            hint="write it with numpy.save",
        )
    shape, dtype, fortran_order = found
    return Header(shape, dtype, fortran_order, file.tell())


def _parse(content: bytes, encoding: str) -> tuple[tuple[int, ...], str, bool] | None:
    """Shape, dtype and order; None for what is no header."""
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
