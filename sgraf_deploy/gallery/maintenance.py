"""What keeps a gallery well: every record compared with its checksum, and what records cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sgraf_deploy.errors import DataError
from sgraf_deploy.gallery.header import Header
from sgraf_deploy.gallery.opened import Opened

CHUNK = 256
"""The records that are compared in one transaction: a long one would keep deleted pages in use."""


@dataclass(frozen=True)
class Verified:
    """How many records were compared with their checksums, and what is wrong, by id."""

    records: int
    damaged: Mapping[str, str]


@dataclass(frozen=True)
class Statistics:
    """What a gallery holds, and what that costs in bytes."""

    header: Header
    count: int
    row_bytes: Mapping[str, Mapping[str, int]]
    """By member and name, of one image or caption; of `word_embeddings`, for each word."""
    used_bytes: int
    """What records and their index take of the file."""
    file_bytes: int
    """The disk space that the file takes."""

    @property
    def bytes_each(self) -> float | None:
        """The mean bytes that an image or a caption takes, index included; None for none."""
        return self.used_bytes / self.count if self.count else None


def check_count(opened: Opened, txn: Any) -> dict[str, str]:
    """Whether there is a record for every id, and no other; a finding in place of an id's."""
    count, entries = opened.count(txn), opened.entries(txn)
    expected = 2 * count + 1 if entries else 0
    if entries == expected:
        return {}
    return {"": f"the index: expected {expected} entries for {count} ids, got {entries}"}


def check_records(opened: Opened, txn: Any, keys: list[bytes]) -> Verified:
    """Compare some records with their checksums; ids that were deleted meanwhile are left out."""
    damaged, records = {}, 0
    for key in keys:
        try:
            records += opened.verify(txn, key)
        except DataError as error:
            damaged[key.decode()] = error.reason
    return Verified(records, damaged)


def statistics(opened: Opened, txn: Any) -> Statistics:
    """The sizes of an open gallery."""
    rows = {
        member: {name: spec.nbytes for name, spec in specs.items()}
        for member, specs in opened.header.rows.items()
    }
    page, used, _ = opened.environment.pages()
    file = (opened.path / opened.header.data).stat()
    taken = 512 * getattr(file, "st_blocks", -(-file.st_size // 512))
    return Statistics(opened.header, opened.count(txn), rows, page * used, taken)
