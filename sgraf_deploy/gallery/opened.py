"""A gallery's data file, opened: finds records, checks and gathers them, and writes batches.

Its one table holds three kinds of entries, told apart by the first byte of their keys:

    i and an id         the id's place in the order of insertion, and the number of its record
    n                   the next number that is free, and how many ids there are
    r and a number      a record, see `record`; they come last, so that new ones are appended

LMDB could keep them in tables of their own, but whoever opens these has to wait for a writer.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError
from sgraf_deploy.gallery.environment import Environment, open_environment
from sgraf_deploy.gallery.header import NAME, PER_WORD, Header, read_header
from sgraf_deploy.gallery.record import Layout, damaged
from sgraf_deploy.gallery.rows import Arrays

Mark = tuple[int, int, int]
"""What tells a header file from the one that replaced it."""

_PAIR = struct.Struct("<QQ")
_NUMBER = struct.Struct(">cQ")
_ID, _STATE, _RECORD = b"i", b"n", b"r"
_SHOWN = 5
_ATTEMPTS = 20


@dataclass(eq=False)
class Opened:
    """A header, and the data file that it names."""

    path: Path
    """The gallery's folder."""
    mark: Mark
    header: Header
    environment: Environment
    layout: Layout
    _checked: bytearray = field(default_factory=bytearray, repr=False)
    """A bit for each record number: whether this process has compared it with its checksum. A
    number is never used again, so that a record that was written anew is compared again."""

    def numbers(self, txn: Any, keys: Sequence[bytes]) -> list[int]:
        """The records' numbers; DataError names the first unknown ids and counts them."""
        found = [txn.get(_ID + key) for key in keys]
        unknown = [key for key, entry in zip(keys, found, strict=True) if entry is None]
        if unknown:
            raise self._refused(unknown, "has no record of", "`sgraf-deploy index` adds images")
        return [int(_PAIR.unpack(entry)[1]) for entry in found]

    def known(self, txn: Any, keys: Sequence[bytes]) -> list[bool]:
        """Whether there is a record of each key."""
        return [txn.get(_ID + key) is not None for key in keys]

    def record(self, txn: Any, key: bytes, number: int) -> tuple[Any, int]:
        """A record's buffer and its words, checked if this is the first time; or DataError."""
        record = txn.get(_NUMBER.pack(_RECORD, number))
        if record is None:
            raise damaged(key, "a record", "none")
        words = self.layout.check(key, record)
        place, bit = number >> 3, 1 << (number & 7)
        if place >= len(self._checked) or not self._checked[place] & bit:
            self.layout.verify(key, record)
            self._remember(place, bit)
        return record, words

    def verify(self, txn: Any, key: bytes) -> int:
        """Compare an id's record with its checksum, even if it was before; DataError if it differs.

        Returns how many records that was: none if the id is unknown.
        """
        entry = txn.get(_ID + key)
        if entry is None:
            return 0
        number = int(_PAIR.unpack(entry)[1])
        if number >> 3 < len(self._checked):
            self._checked[number >> 3] &= ~(1 << (number & 7))
        self.record(txn, key, number)
        return 1

    def tails(self, txn: Any, keys: Sequence[bytes], numbers: Sequence[int]) -> tuple[bytes, ...]:
        """What `Layout.tail` keeps of records."""
        records = (self.record(txn, *each)[0] for each in zip(keys, numbers, strict=True))
        return tuple(self.layout.tail(record) for record in records)

    def gather(
        self, txn: Any, keys: Sequence[bytes], numbers: Sequence[int]
    ) -> tuple[Arrays, NDArray[np.int32] | None, tuple[bytes, ...]]:
        """The rows of records as arrays, captions' lengths, and what `Layout.tail` keeps.

        Images are read in the order of their numbers, which is that of the disk.
        """
        if self.header.kind == "captions":
            return self._gather_captions(txn, keys, numbers)
        arrays = self._empty(len(keys), 0)
        flat = _bytes_of(arrays)
        tails = [b""] * len(keys)
        for row in np.argsort(np.array(numbers, np.uint64), kind="stable").tolist():
            record, _ = self.record(txn, keys[row], numbers[row])
            self.layout.copy_rows(record, [target[row] for target in flat])
            tails[row] = self.layout.tail(record)
        return arrays, None, tuple(tails)

    def write(self, txn: Any, records: Iterable[tuple[bytes, bytes]], *, replace: bool) -> int:
        """Put records by key, and return how many; without `replace` DataError for known ids."""
        number, count = self._state(txn)
        first, known = number, []
        for key, record in records:
            entry = txn.get(_ID + key)
            order = number
            if entry is None:
                count += 1
            elif replace:
                order, former = _PAIR.unpack(entry)
                txn.delete(_NUMBER.pack(_RECORD, former))
            else:
                known.append(key)
                continue
            txn.put(_NUMBER.pack(_RECORD, number), record, append=True)
            txn.put(_ID + key, _PAIR.pack(order, number))
            number += 1
        if known:
            hint = "`sgraf-deploy index` goes on after what another process has written meanwhile"
            replaces = "`sgraf-deploy gallery update` replaces them"
            raise self._refused(known, "has already", f"{hint}, {replaces}")
        txn.put(_STATE, _PAIR.pack(number, count))
        return number - first

    def delete(self, txn: Any, keys: Sequence[bytes]) -> None:
        """Remove records; DataError for unknown ids."""
        for key, number in zip(keys, self.numbers(txn, keys), strict=True):
            txn.delete(_NUMBER.pack(_RECORD, number))
            txn.delete(_ID + key)
        number, count = self._state(txn)
        txn.put(_STATE, _PAIR.pack(number, count - len(keys)))

    def keys_in_order(self, txn: Any) -> list[bytes]:
        """All keys in the order in which their ids were first written."""
        found = []
        with txn.cursor() as cursor:
            cursor.set_range(_ID)
            for key, entry in cursor.iternext():
                if key[:1] != _ID:
                    break
                found.append((_PAIR.unpack(entry)[0], bytes(key[1:])))
        found.sort()
        return [key for _, key in found]

    def count(self, txn: Any) -> int:
        """The number of ids."""
        return self._state(txn)[1]

    def entries(self, txn: Any) -> int:
        """The number of entries of any kind."""
        return int(txn.stat()["entries"])

    def source(self, txn: Any, key: bytes) -> bytes | None:
        """The digest of what an id's record was made from; None for an unknown id."""
        entry = txn.get(_ID + key)
        if entry is None:
            return None
        record = txn.get(_NUMBER.pack(_RECORD, _PAIR.unpack(entry)[1]))
        return b"" if record is None else self.layout.source(record)

    def _remember(self, place: int, bit: int) -> None:
        """Remember that a record agreed with its checksum."""
        missing = place + 1 - len(self._checked)
        if missing > 0:
            self._checked.extend(bytes(missing + 64))
        self._checked[place] |= bit

    def _state(self, txn: Any) -> tuple[int, int]:
        """The next number that is free, and the number of ids."""
        found = txn.get(_STATE)
        return (0, 0) if found is None else _PAIR.unpack(found)

    def _empty(self, count: int, words: int) -> dict[str, dict[str, NDArray[Any]]]:
        return {
            member: {
                name: np.empty((words if name == PER_WORD else count, *spec.shape), spec.dtype)
                for name, spec in specs.items()
            }
            for member, specs in self.header.rows.items()
        }

    def _gather_captions(
        self, txn: Any, keys: Sequence[bytes], numbers: Sequence[int]
    ) -> tuple[Arrays, NDArray[np.int32] | None, tuple[bytes, ...]]:
        each = [self.record(txn, key, number) for key, number in zip(keys, numbers, strict=True)]
        lengths = np.array([words for _, words in each], np.int32)
        ends = np.cumsum(lengths, dtype=np.int64).tolist()
        arrays = self._empty(len(keys), ends[-1] if ends else 0)
        names = [name for specs in self.header.rows.values() for name in specs]
        flat = _bytes_of(arrays)
        for row, (record, words) in enumerate(each):
            last = ends[row]
            targets = [
                target[last - words : last].reshape(-1) if name == PER_WORD else target[row]
                for name, target in zip(names, flat, strict=True)
            ]
            self.layout.copy_rows(record, targets)
        tails = tuple(self.layout.tail(record) for record, _ in each)
        return arrays, lengths, tails

    def _refused(self, keys: Sequence[bytes], verb: str, hint: str) -> DataError:
        first = ", ".join(repr(key.decode()) for key in keys[:_SHOWN])
        more = f" and {len(keys) - _SHOWN:,} more" if len(keys) > _SHOWN else ""
        what = f"gallery {self.path} {verb} {len(keys):,} of the ids"
        return DataError(what, got=first + more, hint=hint)


def mark_of(folder: Path) -> Mark | None:
    """What tells a gallery's header from another one; None if there is none."""
    try:
        status = (folder / NAME).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def open_data(folder: Path) -> Opened:
    """Read a gallery's header and open its data file; DataError if that is not possible."""
    for _ in range(_ATTEMPTS):
        mark = mark_of(folder)
        header = read_header(folder)
        try:
            environment = open_environment(folder / header.data, folder, header.max_size)
        except FileNotFoundError:
            continue  # `compact` has replaced it since the header was read
        if mark is not None:
            return Opened(folder, mark, header, environment, Layout(header))
    raise DataError(
        f"gallery {folder} is damaged",
        expected=f"the file {header.data}, which {NAME} names",
        got="none",
        hint="make it again with `sgraf-deploy index`",
    )


def _bytes_of(arrays: Arrays) -> list[NDArray[np.uint8]]:
    """Views of the arrays as (rows, bytes of a row)."""
    each = [array for named in arrays.values() for array in named.values()]
    return [
        array.reshape(-1).view(np.uint8).reshape(len(array), array.strides[0]) for array in each
    ]
