"""The gallery: encoded images, or captions, on disk by the caller's ids."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.disk import PathLike, new_token, os_errors, sync
from sgraf_deploy.files.folders import Rules, staged_folder
from sgraf_deploy.gallery.environment import create_file, lock_file
from sgraf_deploy.gallery.header import (
    DEFAULT_MAX_SIZE,
    Header,
    StoredAs,
    header_for,
    read_header,
    write_header,
)
from sgraf_deploy.gallery.library import check_installed
from sgraf_deploy.gallery.lock import only_writer
from sgraf_deploy.gallery.maintenance import (
    CHUNK,
    Statistics,
    Verified,
    check_count,
    check_records,
    statistics,
)
from sgraf_deploy.gallery.mounts import check_local
from sgraf_deploy.gallery.opened import Opened, mark_of, open_data
from sgraf_deploy.gallery.record import Details, encode_id
from sgraf_deploy.gallery.resident import Resident, ResidentBytes
from sgraf_deploy.gallery.rows import Batch, Gathered, Rows
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.arguments import check_process
from sgraf_deploy.runtime.encoding import Encoding, Kind

if TYPE_CHECKING:
    from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
    from sgraf_deploy.runtime.scorer import Scorer

COMPACT_STEPS = ("locked", "copied", "synced", "published", "removed-old")
"""Every name that the `step` of `compact` is called with, right after the step has happened."""
WRITE_STEPS = ("locked", "put", "committed")
"""The same of `write`."""

_NEW_DATA = "data.mdb"


class Gallery:
    """Encoded images, or captions, on disk by id, read through a memory map.

    An image exists once the batch that holds it is committed. Any number of processes and threads
    read, each read from one state of the gallery, while one at a time writes. A record is compared
    with its checksum when a process reads it for the first time, and never used if it differs. A
    process that was forked opens the gallery again.

    Example:
        >>> from sgraf_deploy.gallery import Batch
        >>> gallery = sgraf_deploy.Gallery.create("f8k.gallery", scorer)
        >>> gallery.write(Batch.of(names, images))
        6
        >>> best = scorer.rerank("two dogs", gallery.images(scorer, names[:3]), ids=names[:3])
        >>> len(best), len(gallery), names[0] in gallery
        (3, 6, True)
    """

    def __init__(self, path: PathLike, *, resident: ResidentBytes = 0) -> None:
        """Open an existing gallery; as `Gallery.open` does."""
        check_installed()
        self.path = Path(path)
        check_local(self.path)
        self._process = os.getpid()
        self._closed = False
        self._lock = threading.Lock()
        self._opened: Opened | None = None
        self.resident = resident
        self._resident = Resident(resident) if resident else None
        if self._resident is not None and self._current().header.kind != "images":
            raise InputError("resident", expected="a gallery of images", got="one of captions")
        self._current()

    @classmethod
    def create(
        cls,
        path: PathLike,
        scorer: Scorer,
        kind: Kind = "images",
        *,
        dtype: StoredAs = "stored",
        max_size: int = DEFAULT_MAX_SIZE,
    ) -> Gallery:
        """Make an empty gallery for what a scorer encodes, and open it.

        Args:
            path: A folder that does not exist yet.
            scorer: Whose images or captions it will hold, and no other model's.
            kind: `images` or `captions`.
            dtype: `stored` keeps rows as they are encoded; `float16` rounds float32 ones, for half
                the bytes.
            max_size: The most bytes that it may ever take. Disk space is taken only as it grows.

        Raises:
            DataError: there is something at `path`, or it cannot be written.
        """
        check_installed()
        header = header_for(scorer, kind, dtype, max_size, _NEW_DATA)
        make_folder(Path(path), header)
        return cls(path)

    @classmethod
    def open(cls, path: PathLike, *, resident: ResidentBytes = 0) -> Gallery:
        """Open an existing gallery.

        Args:
            path: The gallery's folder.
            resident: The bytes of images' rows that `images` keeps on the device of a scorer, those
                that were asked for last, or `all` to keep every image's. By default none: the
                system keeps in memory what is read often.

        Raises:
            DataError: there is none, it is damaged, or on a network file system.
            UnavailableError: the packages of the extra `gallery` are not installed.
            InputError: `resident` for a gallery of captions, or too few bytes.
        """
        return cls(path, resident=resident)

    @property
    def header(self) -> Header:
        """What its records hold and what made them."""
        return self._current().header

    @property
    def kind(self) -> Kind:
        """Whether it holds images or captions."""
        return self.header.kind

    @property
    def encoding(self) -> Encoding:
        """What its rows were encoded by."""
        return self.header.encoding

    def __len__(self) -> int:
        with self._reading() as (opened, txn):
            return opened.count(txn)

    def __contains__(self, id_: object) -> bool:
        key = encode_id(id_)
        with self._reading() as (opened, txn):
            return opened.source(txn, key) is not None

    def __repr__(self) -> str:
        state = ", closed" if self._closed else f", {len(self):,} {self.kind}"
        return f"{type(self).__name__}({self.path.name}{state})"

    def ids(self) -> list[str]:
        """All ids, in the order in which they were first written."""
        with self._reading() as (opened, txn):
            return [key.decode() for key in opened.keys_in_order(txn)]

    def sources(self, ids: Sequence[str]) -> list[bytes | None]:
        """The digests of what ids' records were made from, 16 bytes; None for an unknown id."""
        keys = [encode_id(id_) for id_ in ids]
        with self._reading() as (opened, txn):
            return [opened.source(txn, key) for key in keys]

    def read(self, ids: Sequence[str]) -> Rows:
        """Read the rows of some ids, in this order; an id may be there twice.

        Raises:
            DataError: ids that are not in the gallery, or a record that is damaged.
        """
        keys = [encode_id(id_) for id_ in ids]
        with self._reading() as (opened, txn):
            gathered = opened.gather(txn, keys, opened.numbers(txn, keys))
        return Rows(tuple(ids), *gathered, self.path, opened.header, opened.layout)

    def gather(
        self, scorer: Scorer, ids: Sequence[str], *, optional: Collection[str] = ()
    ) -> Gathered:
        """The images or captions of some ids on the device of a scorer, with their details.

        All are of one state of the gallery. Ids of `optional` are left out where it has none.

        Raises:
            DataError: as `images`.
        """
        keys = [encode_id(id_) for id_ in ids]
        with self._reading() as (opened, txn):
            if optional:
                known = zip(ids, opened.known(txn, keys), strict=True)
                ids = [id_ for id_, there in known if there or id_ not in optional]
                keys = [encode_id(id_) for id_ in ids]
            numbers = opened.numbers(txn, keys)
            if self._resident is not None:
                encoded = self._resident.images(scorer, opened, txn, keys)
                tails = opened.tails(txn, keys, numbers)
                return Gathered(tuple(ids), encoded, opened.layout, tails)
            gathered = opened.gather(txn, keys, numbers)
        rows = Rows(tuple(ids), *gathered, self.path, opened.header, opened.layout)
        return Gathered(rows.ids, rows.encoded(scorer), rows.layout, rows.tails)

    def details(self, ids: Sequence[str]) -> list[Details]:
        """The metadata, boxes and size of some ids, without their rows; raises as `read`."""
        keys = [encode_id(id_) for id_ in ids]
        with self._reading() as (opened, txn):
            tails = opened.tails(txn, keys, opened.numbers(txn, keys))
        return [opened.layout.details(tail) for tail in tails]

    def images(self, scorer: Scorer, ids: Sequence[str]) -> EncodedImages:
        """The images of some ids, in this order, on the device of a scorer.

        Raises:
            DataError: as `read`; and if the scorer's images are encoded in another way.
        """
        if self._resident is None:
            return self.read(ids).images(scorer)
        keys = [encode_id(id_) for id_ in ids]
        with self._reading() as (opened, txn):
            return self._resident.images(scorer, opened, txn, keys)

    def captions(self, scorer: Scorer, ids: Sequence[str]) -> EncodedCaptions:
        """The captions of some ids, in this order, on the device of a scorer; as `images`."""
        return self.read(ids).captions(scorer)

    def write(
        self, batch: Batch, *, replace: bool = False, step: Callable[[str], None] | None = None
    ) -> int:
        """Write a batch in one transaction, and return the number of its records.

        When this returns, all of them are on the disk; after an error none of them is. `replace`
        writes the records of ids that are there anew, in their former place. `step` is called with
        each of `WRITE_STEPS`.

        Raises:
            DataError: ids that are there already; rows of another encoding or shape; another
                process is writing; the gallery or the disk is full.
        """
        report = step or (lambda name: None)
        with self._writing() as opened:
            report("locked")
            what = f"what is written into gallery {self.path}"
            opened.header.encoding.check(batch.encoding, what, error=DataError)
            records = batch.records(opened.header, opened.layout)
            with opened.environment.writing() as txn:
                count = opened.write(txn, records, replace=replace)
                report("put")
            report("committed")
        return count

    def delete(self, ids: Sequence[str]) -> None:
        """Remove images or captions in one transaction.

        Their room is used by later ones; `compact` gives it back to the disk.

        Raises:
            DataError: ids that are not in the gallery; another process is writing.
        """
        keys = list(dict.fromkeys(encode_id(id_) for id_ in ids))
        with self._writing() as opened, opened.environment.writing() as txn:
            opened.delete(txn, keys)

    def compact(self, *, step: Callable[[str], None] | None = None) -> tuple[int, int]:
        """Write the gallery anew without unused room; returns the file's bytes before and after.

        Nobody can write meanwhile; others go on reading, and read the new file from their next
        read on. `step` is called with each of `COMPACT_STEPS`.

        Raises:
            DataError: another process is writing, the disk is full, or files cannot be locked.
        """
        report = step or (lambda name: None)
        with self._writing(alone=True) as opened, os_errors(f"gallery {self.path}", DataError):
            report("locked")
            new = f"data-{new_token()}.mdb"
            target, former = self.path / new, self.path / opened.header.data
            before = former.stat().st_size
            try:
                opened.environment.copy(target)
                report("copied")
                target.chmod(former.stat().st_mode & 0o777)
                sync(target)
                report("synced")
                write_header(self.path, replace(opened.header, data=new))
            except BaseException:
                if read_header(self.path).data != new:
                    target.unlink(missing_ok=True)
                raise
            report("published")
            after = target.stat().st_size
            self._remove_leftovers(new)
            report("removed-old")
        return before, after

    def verify(self, progress: Progress | None = None) -> Verified:
        """Compare every record with its checksum, and the number of records with that of the ids.

        `progress` is called with (done, total) records.
        """
        with self._reading() as (opened, txn):
            keys = opened.keys_in_order(txn)
            damaged, records = check_count(opened, txn), 0
        for start in range(0, len(keys), CHUNK):
            with self._reading() as (opened, txn):
                found = check_records(opened, txn, keys[start : start + CHUNK])
            damaged.update(found.damaged)
            records += found.records
            if progress is not None:
                progress(min(len(keys), start + CHUNK), len(keys))
        return Verified(records, damaged)

    def stats(self) -> Statistics:
        """Count the images or captions, and the bytes that they take."""
        with self._reading() as (opened, txn):
            return statistics(opened, txn)

    def resident_counts(self) -> tuple[int, int]:
        """How many images were resident when they were asked for, and how many were read then."""
        resident = self._resident
        return (0, 0) if resident is None else (resident.hits, resident.misses)

    def close(self) -> None:
        """Give the gallery up; what was read stays usable. `with` does it for you."""
        self._closed, self._opened = True, None

    def __enter__(self) -> Self:
        self._check_usable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _reading(self) -> Iterator[tuple[Opened, Any]]:
        opened = self._current()
        with opened.environment.reading() as txn:
            yield opened, txn

    @contextmanager
    def _writing(self, *, alone: bool = False) -> Iterator[Opened]:
        """Hold the writers' lock in the block; `alone` needs one that keeps others away."""
        self._check_usable()
        with only_writer(self.path) as lock:
            if alone and not lock.excludes:
                what = f"gallery {self.path} cannot be compacted"
                raise DataError(what, expected="a file system on which files can be locked")
            yield self._current()

    def _current(self) -> Opened:
        """The data file that the header names now; another process may have replaced it."""
        self._check_usable()
        mark, opened = mark_of(self.path), self._opened
        if opened is None or opened.mark != mark:
            with self._lock:
                if self._opened is None or self._opened.mark != mark:
                    self._opened = open_data(self.path)
                opened = self._opened
        return opened

    def _check_usable(self) -> None:
        if self._closed:
            raise InputError("this gallery is closed", hint="open it again")
        check_process(
            self._process,
            "this gallery was opened before the process was forked",
            "call Gallery.open after the fork, in every worker",
        )

    def _remove_leftovers(self, kept: str) -> None:
        """Remove data files that the header does not name, with their locks."""
        keep = {kept, lock_file(Path(kept)).name}
        for path in self.path.glob("data*.mdb*"):
            if path.name not in keep:
                with suppress(OSError):
                    path.unlink()


def make_folder(target: Path, header: Header) -> None:
    """Make the folder of an empty gallery, whole or not at all; DataError if that fails."""
    check_local(target.parent)
    with staged_folder(target, Rules("gallery", DataError, lambda folder: None)) as folder:
        create_file(folder / header.data, header.max_size)
        write_header(folder, header)
