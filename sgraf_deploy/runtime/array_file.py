"""Read the arrays of an `.npz` file that is not trusted, as `np.savez` writes one.

What a file declares is compared with what it holds before any memory is taken for it: its arrays
are stored as they are, so that none can be larger than the file.
"""

from __future__ import annotations

import math
import os
import re
import zipfile
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import IO, Any, BinaryIO

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sgraf_deploy.errors import DataError
from sgraf_deploy.schema import SHOWN, shown

DAMAGE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    OverflowError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
"""The errors that zipfile and NumPy raise on files that are damaged or of another format."""

_SUFFIX = ".npy"
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    rb"\{'descr': '([<>|][biufcmMOSUV][0-9]{0,9})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:[0-9]{1,19}, )*[0-9]{0,19},?)\), \} *\n"
)
"""An array's header as `np.save` writes it. It is matched, never evaluated."""
_PIECE = 16 * 2**20
"""The bytes that are read at a time."""
_ENCRYPTED = 1


@dataclass(frozen=True)
class Declared:
    """The dtype, shape and order that the header of an array declares."""

    dtype: str
    """In NumPy's short form, such as `<f4`."""
    shape: tuple[int, ...]
    fortran: bool

    def __str__(self) -> str:
        try:
            kind = np.dtype(self.dtype)
            name = kind.name if kind.isnative else self.dtype
        except (TypeError, ValueError):
            name = self.dtype
        return f"{name} of shape {self.shape}{' in Fortran order' if self.fortran else ''}"


class ArrayFile:
    """Reads the arrays of a file by name. A DataError begins with the name of the wrong array."""

    def __init__(self, file: BinaryIO) -> None:
        """Check that every array is there once, is not compressed and fits into the file."""
        self._zip = zipfile.ZipFile(file)
        entries = self._zip.infolist()
        self._entries = {entry.filename.removesuffix(_SUFFIX): entry for entry in entries}
        if len(self._entries) != len(entries):
            raise DataError("arrays", expected="a name for each array", got="a name that two have")
        for name, entry in self._entries.items():
            packed = entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & _ENCRYPTED
            if packed or entry.file_size != entry.compress_size:
                got = f"{entry.file_size} bytes in {entry.compress_size}"
                raise DataError(shown(name), expected="an array that is not compressed", got=got)
        size, held = sum(entry.file_size for entry in entries), os.fstat(file.fileno()).st_size
        if size > held:
            raise DataError("arrays", expected=f"at most {held} bytes in such a file", got=size)

    @property
    def names(self) -> list[str]:
        """The names of the arrays, in the file's order."""
        return list(self._entries)

    def check_names(self, names: Collection[str]) -> None:
        """Raise DataError if the file holds an array of another name."""
        others = sorted(self._entries.keys() - set(names))
        if others:
            raise DataError(shown(others[0]), expected="no array of this name", got="an array")

    def declared(self, name: str) -> Declared:
        """Return what an array's header declares; the file may hold less than that."""
        with self._zip.open(self._entry(name)) as stream:
            return _declared(name, stream)

    def text(self, name: str, at_most: int) -> str:
        """Read a single text of at most so many characters."""
        declared = self.declared(name)
        order, _, length = declared.dtype.partition("U")
        fits = order == np.array("a").dtype.str[0] and length.isdecimal() and declared.shape == ()
        if not fits or int(length) > at_most:
            raise DataError(name, expected=f"a text of at most {at_most} characters", got=declared)
        return str(self._read(name, np.dtype(declared.dtype), ()))

    def read(self, name: str, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Read an array, which must have this dtype and shape and be in C order."""
        kind, declared = np.dtype(dtype), self.declared(name)
        if declared != Declared(kind.str, shape, fortran=False):
            raise DataError(name, expected=f"{kind} of shape {shape}", got=declared)
        return self._read(name, kind, shape)

    def _entry(self, name: str) -> zipfile.ZipInfo:
        found = self._entries.get(name)
        if found is None:
            raise DataError(name, expected="an array", got="none")
        return found

    def _read(self, name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        size = math.prod(shape) * dtype.itemsize
        with self._zip.open(self._entry(name)) as stream:
            declared = _declared(name, stream)
            held = self._entry(name).file_size - stream.tell()
            if held != size:
                what = f"{size} bytes for {declared}"
                raise DataError(name, expected=what, got=f"{held} in the file")
            array = np.empty(shape, dtype)
            flat = array.reshape(-1).view(np.uint8)
            for start in range(0, size, _PIECE):
                piece = flat[start : start + _PIECE]
                piece[:] = np.frombuffer(stream.read(piece.size), np.uint8)
        return array


def _declared(name: str, stream: IO[bytes]) -> Declared:
    begin = stream.read(len(_MAGIC) + 2)
    text = stream.read(int.from_bytes(begin[len(_MAGIC) :], "little"))
    found = _HEADER.fullmatch(text) if begin.startswith(_MAGIC) else None
    if found is None:
        raise DataError(name, expected="the header of an array", got=shown(str(text[:SHOWN])))
    shape = tuple(int(size) for size in found[3].decode().replace(",", " ").split())
    return Declared(found[1].decode(), shape, found[2] == b"True")
