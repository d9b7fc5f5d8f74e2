"""Locks by `flock`, which the kernel releases when their owner dies.

Windows and some network file systems have no `flock`. There, no writer is excluded and none is
known to be dead: two writers of one target may both go on, and neither removes the other's files.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from sgraf_deploy.files.disk import stem

_MARK = b"sgraf-deploy, process "
"""The beginning of a lock file; a file with other content belongs to another program."""

_LONGEST = 64
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}

log = logging.getLogger(__name__)


def try_lock(descriptor: int) -> bool | None:
    """Lock an open file until all its descriptors are closed.

    Returns False while another process holds the lock, and None if files cannot be locked.
    """
    if not _can_lock():
        return None
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return True


def _can_lock() -> bool:
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return False
    return True


def is_at(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the file at a path; links are not followed."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


@dataclass(frozen=True)
class Lock:
    """The lock of a target, a file next to it; `descriptor` is None if files cannot be locked."""

    path: Path
    descriptor: int | None

    @property
    def excludes(self) -> bool:
        """Whether it keeps other writers away."""
        return self.descriptor is not None

    def drop(self) -> None:
        """Release the lock, and remove its file if it is still the one that was locked."""
        if self.descriptor is not None:
            _remove(self.descriptor, self.path)
            os.close(self.descriptor)


def lock_path(target: Path) -> Path:
    """The lock file of a target."""
    return target.with_name(f".{stem(target)}.sgraf-deploy-lock")


def take_lock(target: Path) -> Lock | None:
    """Lock a target; None while another process or thread holds the lock.

    Raises FileExistsError for a lock file that another program made, and leaves it unchanged.
    """
    path = lock_path(target)
    if not _can_lock():
        return Lock(path, None)
    while True:
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        descriptor = os.open(path, flags, 0o666)
        held: bool | None = False
        try:
            held = try_lock(descriptor)
            # Between the two calls the last holder may have removed the file, which then locks
            # nothing.
            there = is_at(descriptor, path)
            if held and there:
                _sign(descriptor, path)
                return Lock(path, descriptor)
            if held is None:
                _remove(descriptor, path)
        except BaseException:
            if held:
                _remove(descriptor, path)
            os.close(descriptor)
            raise
        os.close(descriptor)
        if held is None:
            return Lock(path, None)
        if not held and there:
            return None


def holder(target: Path) -> str:
    """The holder of a target's lock, as ` (process ID)`; empty if the lock file does not say."""
    try:
        content = lock_path(target).read_bytes()[:_LONGEST]
    except OSError:
        return ""
    number = content.removeprefix(_MARK).strip()
    return f" (process {int(number)})" if content.startswith(_MARK) and number.isdigit() else ""


def _sign(descriptor: int, path: Path) -> None:
    """Write this process's id into the lock file."""
    if not _is_ours(descriptor):
        reason = f"{path.name} next to it is not a lock of sgraf-deploy, move it away"
        raise FileExistsError(errno.EEXIST, reason, str(path))
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, _MARK + f"{os.getpid()}\n".encode())


def _remove(descriptor: int, path: Path) -> None:
    """Remove an open lock file of this program if it is still at its path; a failure is logged."""
    try:
        if is_at(descriptor, path) and _is_ours(descriptor):
            os.unlink(path)
    except OSError as error:
        log.warning("could not remove the lock %s: %s", path, error)


def _is_ours(descriptor: int) -> bool:
    """Whether this program wrote the file, or its writer died before it wrote anything."""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        return False
    os.lseek(descriptor, 0, os.SEEK_SET)
    content = os.read(descriptor, _LONGEST)
    return not content or content.startswith(_MARK)
