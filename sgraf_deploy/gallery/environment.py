"""The LMDB environments that are open in this process: one for each file, whoever opened it.

LMDB forbids a second one in the same process, whose end would release the locks of the first. One
is closed when nobody refers to it any more, and no earlier: another thread may still read from its
map. A process that was forked closes those that it inherited, so that it can open its own.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgraf_deploy.errors import DataError
from sgraf_deploy.gallery.library import store_library, translated

if TYPE_CHECKING:
    import lmdb

MAX_READERS = 2048
"""Read transactions at a time, of all processes together."""

_GRAIN = 2**16
"""A map's size is a multiple of this, which every system's pages divide."""

_opened: weakref.WeakValueDictionary[tuple[int, int], Environment] = weakref.WeakValueDictionary()
_opening = threading.Lock()


class Environment:
    """An open data file; `open_environment` gives the one that is open already, if there is."""

    def __init__(self, path: Path, folder: Path, max_size: int, *, create: bool = False) -> None:
        """Open a file; raises DataError. `folder` is the gallery's, for messages."""
        lmdb = store_library()
        writable = create or (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
        self._folder = folder
        if not create and not path.stat().st_size:
            raise _cut_off(path, folder, "a file with records", 0)  # LMDB would make a new one
        with translated(folder, lock=None if writable else lock_file(path)):
            self._env: Any = lmdb.open(
                _name(path),
                map_size=max_size + -max_size % _GRAIN,
                subdir=False,
                readonly=not writable,
                create=create,
                mode=0o666,
                readahead=False,
                max_readers=MAX_READERS,
            )
            self._env.reader_check()
        self._reads = 0
        self._counting = threading.Lock()
        _check_size(path, folder, self._env)

    @contextmanager
    def reading(self) -> Iterator[lmdb.Transaction[memoryview]]:
        """A read transaction, whose buffers lie in the map and are valid within the block only."""
        with self._counting:
            self._reads += 1
        try:
            with translated(self._folder), self._env.begin(buffers=True) as txn:
                yield txn
        finally:
            with self._counting:
                self._reads -= 1

    @contextmanager
    def writing(self) -> Iterator[lmdb.Transaction[bytes]]:
        """A write transaction: committed to the disk after the block, or undone after an error."""
        with translated(self._folder):
            self._env.reader_check()  # what a killed reader read keeps its pages from being used
            with self._env.begin(write=True) as txn:
                yield txn

    def copy(self, path: Path) -> None:
        """Write a compacted copy, which is not yet synced to the disk."""
        with translated(self._folder):
            self._env.copy(_name(path), compact=True)

    def close(self) -> None:
        """Close it at once: nobody may be reading."""
        self._env.close()

    def close_after_fork(self) -> None:
        """Close it in a forked child, unless a thread of the parent was reading just then.

        Ending that thread's transaction here would take the parent's snapshot away.
        """
        if not self._reads:
            self._env.close()

    def pages(self) -> tuple[int, int, int]:
        """The bytes of a page, the pages that are in use, and those of the file."""
        stat = self._env.stat()
        used = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return int(stat["psize"]), int(used), int(self._env.info()["last_pgno"]) + 1


def open_environment(path: Path, folder: Path, max_size: int) -> Environment:
    """The environment of a data file; FileNotFoundError if it is not there."""
    with _opening:
        key = _key(path)
        found = _opened.get(key)
        if found is None:
            found = _opened[key] = Environment(path, folder, max_size)
        return found


def create_file(path: Path, max_size: int) -> None:
    """Write a data file without records; raises DataError."""
    environment = Environment(path, path.parent, max_size, create=True)
    environment.close()
    lock_file(path).unlink(missing_ok=True)


def lock_file(path: Path) -> Path:
    """LMDB's lock file of a data file, which is made anew when it is missing."""
    return path.with_name(f"{path.name}-lock")


def _name(path: Path) -> str | bytes:
    """A path as LMDB takes it: of a str it would make UTF-8, which not every name is."""
    return os.fspath(path) if os.name == "nt" else os.fsencode(path)


def _key(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _check_size(path: Path, folder: Path, env: Any) -> None:
    """Refuse a file that was cut off: reading beyond its end would end the process."""
    expected = (int(env.info()["last_pgno"]) + 1) * int(env.stat()["psize"])
    size = path.stat().st_size
    if size < expected:
        raise _cut_off(path, folder, f"at least {expected} bytes", size)


def _cut_off(path: Path, folder: Path, expected: str, size: int) -> DataError:
    return DataError(
        f"gallery {folder} is damaged: {path.name} was cut off",
        expected=expected,
        got=size,
        hint="make it again with `sgraf-deploy index`",
    )


def _after_fork() -> None:
    """Begin anew in a forked child."""
    global _opening, _opened  # locks and registry of the parent's
    inherited = list(_opened.values())
    _opening, _opened = threading.Lock(), weakref.WeakValueDictionary()
    for environment in inherited:
        environment.close_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
