"""One record of a gallery: one image or caption, every member's rows, and what belongs to it.

    checksum   8 bytes    xxh3-64 of everything below, seeded with xxh3-64 of the id
    source    16 bytes    xxh3-128 of what was encoded, or zeros
    words      4 bytes    a caption's words, `<start>` and `<end>` included; 0 for an image
    metadata   4 bytes    the length of the metadata
    flags      4 bytes    1: boxes, 2: the picture's size
    zeros     12 bytes    which align the rows to 16 bytes
    rows                  of every member, in the order of the gallery's header
    boxes                 (regions, 4) float32, if flagged
    size                  width and height as int32, if flagged
    metadata              a JSON object in UTF-8

All numbers are little-endian. A record is written once and never changed: another content of the
same id is another record.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError
from sgraf_deploy.gallery.header import PER_WORD, Header
from sgraf_deploy.gallery.library import hash_library
from sgraf_deploy.runtime.encoding import Kind

Buffer = bytes | memoryview

MOST_ID_BYTES = 510
"""One less than the longest key of LMDB."""
MOST_METADATA = 2**20
NO_SOURCE = bytes(16)

_HEAD = struct.Struct("<Q16sIII12x")
_CHECKED = 8
"""Where the part of a record begins that its checksum covers."""
_BOXES, _SIZE = 1, 2


@dataclass(frozen=True, eq=False)
class Details:
    """What belongs to an image or a caption besides its rows; each is None where there is none.

    `metadata` is the caller's JSON object; `boxes` (regions, 4) float32 are x1, y1, x2, y2 in
    pixels of the picture, whose width and height are `size`.
    """

    metadata: dict[str, Any] | None = None
    boxes: NDArray[np.float32] | None = None
    size: tuple[int, int] | None = None


def encode_id(id_: object) -> bytes:
    """The key of an id; DataError for what is no text of 1 to 511 bytes in UTF-8."""
    if isinstance(id_, str):
        try:
            key = id_.encode()
        except UnicodeEncodeError as error:
            what = "id of an image or a caption"
            raise DataError(what, expected="text without lone surrogates", got=error) from error
        if 0 < len(key) <= MOST_ID_BYTES:
            return key
        got = f"{len(key)} bytes: {id_[:40]!r}{'…' if len(id_) > 40 else ''}"
    else:
        got = f"{type(id_).__name__} {str(id_)[:40]!r}"
    raise DataError(
        "id of an image or a caption", expected=f"a text of 1 to {MOST_ID_BYTES} bytes", got=got
    )


def source_of(parts: Iterable[bytes | NDArray[Any]]) -> bytes:
    """The digest, 16 bytes, of what a record is made from."""
    digest = hash_library().xxh3_128()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part))
    found: bytes = digest.digest()
    return found


class Layout:
    """Where in a record the rows are that a gallery's header describes."""

    def __init__(self, header: Header) -> None:
        self.kind: Kind = header.kind
        self.rows = header.rows
        self._regions = header.regions
        each = [(name, spec) for rows in header.rows.values() for name, spec in rows.items()]
        self._per_word = sum(spec.nbytes for name, spec in each if name == PER_WORD)
        self._fixed = sum(spec.nbytes for name, spec in each if name != PER_WORD)
        self._hash = hash_library().xxh3_64_intdigest

    def row_bytes(self, words: int = 0) -> int:
        """The bytes of all rows of an image, or of a caption of so many words."""
        return self._fixed + words * self._per_word

    def pack(
        self, key: bytes, rows: Iterable[NDArray[Any]], words: int, source: bytes, details: Details
    ) -> bytes:
        """One record; the rows are every member's, in the header's order, and C-contiguous."""
        flags, tail = 0, []
        if details.boxes is not None:
            flags |= _BOXES
            tail.append(np.ascontiguousarray(details.boxes, "<f4").tobytes())
        if details.size is not None:
            flags |= _SIZE
            tail.append(struct.pack("<ii", *details.size))
        metadata = b"" if details.metadata is None else pack_metadata(details.metadata)
        head = _HEAD.pack(0, source, words, len(metadata), flags)
        parts: list[Any] = [head[_CHECKED:], *rows, *tail, metadata]
        digest = hash_library().xxh3_64(seed=self._hash(key))
        for part in parts:
            digest.update(part)
        return b"".join([struct.pack("<Q", digest.intdigest()), *parts])

    def check(self, key: bytes, record: Buffer) -> int:
        """The words of a record of the right length; DataError that names the id for another."""
        if len(record) >= _HEAD.size:
            _, _, words, metadata, flags = _HEAD.unpack_from(record)
            if len(record) == self._tail(words) + self._tail_size(flags) + metadata:
                return int(words)
        raise damaged(key, "a record of the right length", f"{len(record)} bytes")

    def verify(self, key: bytes, record: Buffer) -> None:
        """Compare a record with its checksum; DataError that names the id if they differ."""
        (stored,) = struct.unpack_from("<Q", record)
        found = self._hash(memoryview(record)[_CHECKED:], seed=self._hash(key))
        if found != stored:
            raise damaged(key, f"the checksum {stored:016x}", f"{found:016x}")

    def copy_rows(self, record: Buffer, into: Iterable[NDArray[np.uint8]]) -> None:
        """Copy a record's rows into arrays of bytes, one for each row in the header's order."""
        place = _HEAD.size
        for target in into:
            size = target.size
            target[...] = np.frombuffer(record, np.uint8, size, place)
            place += size

    def source(self, record: Buffer) -> bytes:
        """The digest of what a record was made from; zeros if it is not known."""
        found: bytes = _HEAD.unpack_from(record)[1]
        return found

    def tail(self, record: Buffer) -> bytes:
        """The part of a record from which `details` are read, as a copy."""
        _, _, words, metadata, flags = _HEAD.unpack_from(record)
        start = self._tail(words)
        return struct.pack("<II", metadata, flags) + bytes(memoryview(record)[start:])

    def details(self, tail: bytes) -> Details:
        """What `tail` returned, read."""
        metadata, flags = struct.unpack_from("<II", tail)
        place, boxes, size = 8, None, None
        if flags & _BOXES:
            count = 4 * self._regions
            boxes = np.frombuffer(tail, "<f4", count, place).reshape(-1, 4)  # (regions, 4)
            place += 4 * count
        if flags & _SIZE:
            size = struct.unpack_from("<ii", tail, place)
            place += 8
        found = json.loads(tail[place : place + metadata]) if metadata else None
        return Details(found, boxes, size)

    def _tail(self, words: int) -> int:
        return _HEAD.size + self.row_bytes(words)

    def _tail_size(self, flags: int) -> int:
        return (16 * self._regions if flags & _BOXES else 0) + (8 if flags & _SIZE else 0)


def pack_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Metadata as JSON; DataError for what is no JSON object of at most 1 MiB."""
    what = "metadata"
    if not isinstance(metadata, Mapping):
        raise DataError(what, expected="a JSON object", got=type(metadata).__name__)
    try:
        text = json.dumps(metadata, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        encoded = text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(what, expected="a JSON object", got=error) from error
    if len(encoded) > MOST_METADATA:
        raise DataError(what, expected=f"at most {MOST_METADATA} bytes", got=len(encoded))
    return encoded


def damaged(key: bytes, expected: str, got: str) -> DataError:
    """The error for a record that is not what was written."""
    return DataError(
        f"record of id {key.decode(errors='replace')!r} is damaged",
        expected=expected,
        got=got,
        hint="write it again with `sgraf-deploy gallery update`, and check the disk",
    )
