"""The lock of a gallery's writers, which is held for one write transaction or for all of `compact`.

LMDB would let a second writer wait, for as long as the first one needs; here it is refused at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sgraf_deploy.errors import DataError
from sgraf_deploy.files.disk import os_errors
from sgraf_deploy.files.locks import Lock, holder, take_lock
from sgraf_deploy.gallery.header import NAME


@contextmanager
def only_writer(folder: Path) -> Iterator[Lock]:
    """Hold the lock of a gallery in the block; DataError while another process or thread does."""
    target = folder / NAME
    with os_errors(f"gallery {folder}", DataError):
        lock = take_lock(target)
    if lock is None:
        raise DataError(
            f"gallery {folder} is being written{holder(target)}",
            hint="wait until that is done: a gallery has one writer at a time",
        )
    try:
        yield lock
    finally:
        lock.drop()
