"""File system operations of the writers: names beside a target, sync, rename, translated errors.

Windows and macOS have no `renameat2`: there `exchange` returns False, and `rename_new` checks first
and renames after. Windows cannot open a folder: there `sync` leaves folders to the system.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from sgraf_deploy.errors import SgrafDeployError

Kind = Literal["tmp", "new", "old"]
"""tmp: being written, or no longer needed; new: complete, to be moved in; old: the one before."""

ANY = "[0-9a-f]{16}"
"""The pattern of any writer's token."""

_LONGEST_NAME = 200
"""Bytes of a target's name that the names beside it repeat; a longer one is hashed."""

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_NOT_HERE = {errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP, errno.EPERM}
_NO_SYNC = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP}

_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a link that leads nowhere"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_HINTS = {
    errno.EACCES: "check its permissions",
    errno.EPERM: "check its permissions",
    errno.EROFS: "choose a folder that can be written",
    errno.ENOSPC: "free disk space",
    errno.EDQUOT: "free disk space",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def kind_of(mode: int) -> str:
    """The kind of file that has a `st_mode`, in words."""
    return next((words for fits, words in _KINDS if fits(mode)), "a device")


def hint_for(error: OSError) -> str | None:
    """A hint for what the system refused, None if there is none."""
    return _HINTS.get(error.errno or 0)


@contextmanager
def os_errors(what: str, error: type[SgrafDeployError], hint: str | None = None) -> Iterator[None]:
    """Translate an OSError of the block into `error`: `what` cannot be written, and why."""
    try:
        yield
    except OSError as caught:
        reason = caught.strerror or str(caught) or type(caught).__name__
        found = hint or hint_for(caught)
        raise error(f"{what} cannot be written", got=reason, hint=found) from caught


def parent_of(given: str | os.PathLike[str], target: Path) -> Path:
    """The folder of a target as it was given, or in full if a link leads to the target."""
    return target.parent if os.path.islink(given) else Path(given).parent


def stem(target: Path) -> str:
    """The beginning of the names beside a target: its own name, or the hash of a long one."""
    encoded = os.fsencode(target.name)
    if len(encoded) <= _LONGEST_NAME:
        return target.name
    return hashlib.sha256(encoded).hexdigest()[:32]


def new_token() -> str:
    """A random token that no other writer has, in any thread, process or machine."""
    return secrets.token_hex(8)


def sibling(target: Path, kind: Kind, token: str) -> Path:
    """A writer's hidden name beside a target."""
    return target.with_name(f".{stem(target)}.{kind}-{token}")


def siblings(target: Path, kind: Kind, token: str = ANY) -> list[Path]:
    """The existing names by `sibling`, of one writer or of any, sorted."""
    pattern = re.compile(rf"\.{re.escape(stem(target))}\.{kind}-{token}")
    try:
        names = os.listdir(target.parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [target.with_name(name) for name in sorted(names) if pattern.fullmatch(name)]


def give_mode(path: Path, mode: int) -> None:
    """Set permissions; where that is not allowed the narrower ones stay."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        with suppress(PermissionError):
            path.chmod(mode)


def rename(source: Path, destination: Path) -> None:
    """Rename, and sync the folder so that a power failure does not undo it."""
    os.rename(source, destination)
    sync(destination.parent)


def rename_new(source: Path, destination: Path) -> None:
    """Rename to a name that is free; FileExistsError if it is not.

    Without `renameat2` another program may still take the name between the check and the rename.
    """
    if not _renameat2(source, destination, _RENAME_NOREPLACE):
        if os.path.lexists(destination):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
        os.rename(source, destination)
    sync(destination.parent)


def exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system cannot.

    Raises OSError if the swap was refused for any other reason.
    """
    return _renameat2(first, second, _RENAME_EXCHANGE)


def _renameat2(source: Path, destination: Path, flag: int) -> bool:
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return False
    names = (os.fsencode(source), os.fsencode(destination))
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NOT_HERE:
        return False
    raise OSError(code, os.strerror(code), str(source), None, str(destination))


def sync_tree(folder: Path) -> None:
    """Write a folder and everything below it to the disk; OSError where that fails."""

    def fail(error: OSError) -> None:
        raise error

    for parent, _, files in os.walk(folder, onerror=fail):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def sync(path: Path) -> None:
    """Write a file or a folder to the disk; OSError where that fails."""
    posix = hasattr(os, "O_DIRECTORY")
    if not posix and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if posix else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder; nothing more can be done there.
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)
