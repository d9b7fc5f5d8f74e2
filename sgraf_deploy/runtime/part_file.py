"""Files of thresholds and of partial results: an `.npz` with a header, written whole or not at all.

The header says what the file is, and holds the hash of the arrays beside it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.files.writer import staged_file
from sgraf_deploy.runtime.arguments import check_path
from sgraf_deploy.runtime.array_file import DAMAGE, ArrayFile
from sgraf_deploy.schema import Document, check_version, decode, encode, parse, shown

Arrays = Mapping[str, NDArray[Any]]

_HEADER = "header"
_AGAIN = "delete the file and compute it again"
_DOCUMENT = Document("header", DataError, _AGAIN, most_bytes=2**16)
_KINDS = {np.dtype(kind).str: np.dtype(kind) for kind in (np.int64, np.uint64, np.float32)}


class Header(Protocol):
    """What a file's header holds at least."""

    @property
    def contents(self) -> str:
        """The hash of the file's arrays."""


H = TypeVar("H", bound=Header)


def contents_of(arrays: Arrays) -> str:
    """The sha256 of arrays: their names, dtypes, shapes and bytes, in the order of their names."""
    found = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def write_arrays(
    path: PathLike,
    what: str,
    header: Header,
    arrays: Arrays,
    step: Callable[[str], None] | None = None,
) -> None:
    """Write a file; InputError where it cannot be. `step` is called as by `staged_file`."""
    text = np.array(json.dumps(encode(header), sort_keys=True))
    with staged_file(check_path(path), what=what, error=InputError, step=step) as file:
        np.savez(file, allow_pickle=False, **{_HEADER: text}, **arrays)


def read_arrays(path: PathLike, what: str, kind: type[H]) -> tuple[H, Filed]:
    """Read a file with a header of this kind, and check its arrays' hash.

    Raises DataError for a file that is missing, damaged or of another kind.
    """
    named = f"{what} {path}"
    try:
        with check_path(path).open("rb") as opened:
            file = ArrayFile(opened)
            value = parse(file.text(_HEADER, at_most=_DOCUMENT.most_bytes), _DOCUMENT)
            check_version(value, "format", (1,), _DOCUMENT)
            header = decode(kind, value, _DOCUMENT)
            arrays = {name: _read(file, name) for name in file.names if name != _HEADER}
    except DataError as error:
        hint = error.hint or _AGAIN
        raise DataError(
            f"{named}: {error.what}", expected=error.expected, got=error.got, hint=hint
        ) from error
    except DAMAGE as error:
        got = shown(f"{type(error).__name__}: {error}")
        raise DataError(f"{named} cannot be read", got=got, hint=_AGAIN) from error
    found = contents_of(arrays)
    if found != header.contents:
        what = f"{named}: contents"
        raise DataError(what, expected=shown(header.contents), got=found, hint=_AGAIN)
    return header, Filed(named, arrays)


class Filed:
    """The arrays that a file was found to hold, taken one after the other."""

    def __init__(self, named: str, arrays: dict[str, NDArray[Any]]) -> None:
        self._named, self._left = named, arrays

    def take(self, name: str, kind: DTypeLike, shape: tuple[int | None, ...]) -> NDArray[Any]:
        """Take an array; DataError unless it has this dtype and shape, where None is any size."""
        array, expected = self._left.pop(name, None), f"{np.dtype(kind)} of shape {shape}"
        if array is None:
            raise self.wrong(name, expected, "none")
        sizes = zip(array.shape, shape, strict=False)
        fits = array.ndim == len(shape) and all(size in {held, None} for held, size in sizes)
        if array.dtype != kind or not fits:
            raise self.wrong(name, expected, f"{array.dtype} of shape {array.shape}")
        return array

    def rising(self, name: str, below: int, *, empty: bool = False) -> NDArray[np.int64]:
        """Take rows that rise from 0 on and stay below a number; `empty` if there may be none."""
        rows = self.take(name, np.int64, (None,))
        fits = not len(rows) or (rows[0] >= 0 and rows[-1] < below and (np.diff(rows) > 0).all())
        if not fits or not (len(rows) or empty):
            raise self.wrong(name, f"rising numbers 0 … {below - 1}", "others")
        return rows

    def check_scored(self, scored: Mapping[str, int], pairs: int) -> None:
        """Raise DataError unless members scored 0 to `pairs` pairs each, and one of them some."""
        counts = scored.values()
        if not 0 <= min(counts, default=0) <= max(counts, default=0) <= pairs or not any(counts):
            among = f"0 … {pairs} pairs of each member, and of one more than 0"
            raise self.wrong("scored", among, shown(dict(scored)))

    def end(self) -> None:
        """Raise DataError if an array is left."""
        for name in self._left:
            raise self.wrong(shown(name), "no array of this name", "an array")

    def wrong(self, name: str, expected: str, got: str) -> DataError:
        """The error for an array."""
        return DataError(f"{self._named}: {name}", expected=expected, got=got, hint=_AGAIN)


def _read(file: ArrayFile, name: str) -> NDArray[Any]:
    declared = file.declared(name)
    if declared.dtype not in _KINDS:
        raise DataError(shown(name), expected=", ".join(map(str, _KINDS.values())), got=declared)
    return file.read(name, _KINDS[declared.dtype], declared.shape)
