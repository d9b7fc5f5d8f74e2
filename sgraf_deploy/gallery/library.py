"""The packages `lmdb` and `xxhash`, which only galleries need, and the translation of their errors.

The only module that imports them, and inside functions.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgraf_deploy.errors import DataError, UnavailableError

if TYPE_CHECKING:
    import lmdb

INSTALL = "pip install 'sgraf-deploy[gallery]'"

_LEAST_FREE = 64 * 2**20
"""Where less disk space than this is free, an error while writing is taken for a full disk."""


def store_library() -> Any:
    """The module `lmdb`; UnavailableError with the command that installs it."""
    try:
        import lmdb
    except ImportError as error:
        raise UnavailableError("galleries: the package lmdb", got="none", hint=INSTALL) from error
    return lmdb


def hash_library() -> Any:
    """The module `xxhash`; UnavailableError with the command that installs it."""
    try:
        import xxhash
    except ImportError as error:
        raise UnavailableError("galleries: the package xxhash", got="none", hint=INSTALL) from error
    return xxhash


def check_installed() -> None:
    """Raise UnavailableError, with the command that installs both, where one is missing."""
    store_library()
    hash_library()


@contextmanager
def translated(path: Path, *, lock: Path | None = None) -> Iterator[None]:
    """Turn an error of LMDB about the gallery at `path` into a DataError.

    `lock` is the lock file of one that is opened to be read alone, which readers write, too.
    """
    lmdb = store_library()
    try:
        yield
    except lmdb.Error as error:
        if lock is not None and isinstance(error, lmdb.ReadonlyError):
            expected = f"permission to read, and to write {lock.name}, in which readers are noted"
            hint = f"give it to this user, for example: chmod a+w {shlex.quote(str(lock))}"
            what = f"gallery {path} cannot be read"
            raise DataError(what, expected=expected, got=error, hint=hint) from error
        raise _refusal(path, error) from error


def _refusal(path: Path, error: lmdb.Error) -> DataError:
    lmdb, what = store_library(), f"gallery {path}"
    if isinstance(error, lmdb.MapFullError):
        return DataError(
            f"{what} is full",
            got="no room below its --max-size",
            hint="make a larger one with `sgraf-deploy index --max-size BYTES`, or delete images",
        )
    if isinstance(error, lmdb.ReadersFullError):
        hint = "close galleries that are open in other processes"
        return DataError(f"{what} has too many readers", got=error, hint=hint)
    if isinstance(error, lmdb.ReadonlyError):
        return DataError(f"{what} cannot be written", got=error, hint="check its permissions")
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError)):
        hint = "make it again with `sgraf-deploy index`"
        return DataError(f"{what} is damaged", got=error, hint=hint)
    if isinstance(error, lmdb.PanicError):
        hint = "open it again; what was committed before is there"
        return DataError(f"{what}: an earlier write failed", got=error, hint=hint)
    return _system_refusal(path, error)


def _system_refusal(path: Path, error: lmdb.Error) -> DataError:
    """The error of the operating system, which LMDB passes on as a text; of a full disk as EIO."""
    try:
        free = shutil.disk_usage(path).free
    except OSError:
        free = None
    if "No space left" in str(error) or (free is not None and free < _LEAST_FREE):
        return DataError(
            f"gallery {path} cannot be written: the disk is full",
            got=f"{(free or 0) / 1e6:,.1f} MB free, {error}",
            hint="free disk space; what was committed before is there",
        )
    return DataError(f"gallery {path}", got=error, hint="check its disk and its permissions")
