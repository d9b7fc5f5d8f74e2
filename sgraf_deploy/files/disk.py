"""The disk operations of the writers: hidden names, syncs, renames, and OSErrors translated.

Windows and macOS have no `renameat2`: there `exchange` returns False, and `rename_new` checks first
and renames afterwards. Windows cannot open a folder: there `sync` leaves folders to the system.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from sgraf_deploy.errors import SgrafDeployError

PathLike = str | os.PathLike[str]

Kind = Literal["tmp", "new", "old"]
"""`tmp`: being written, or no longer needed. `new`: complete, and about to take the target's place.
`old`: the former target."""

ANY = "[0-9a-f]{16}"
"""Matches the token of every writer."""

_LONGEST_NAME = 200
"""Most bytes of a target's name that hidden names repeat; a longer name is hashed."""

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2
_NOT_HERE = {errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP, errno.EPERM}
_NO_SECOND_NAME = {*_NOT_HERE, errno.EMLINK, errno.EACCES}
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
    """The kind of file that has this `st_mode`, in words."""
    return next((words for fits, words in _KINDS if fits(mode)), "a device")


def hint_for(error: OSError) -> str | None:
    """The hint for an error of the operating system, if there is one."""
    return _HINTS.get(error.errno or 0)


@contextmanager
def os_errors(what: str, error: type[SgrafDeployError], hint: str | None = None) -> Iterator[None]:
    """Turn an OSError of the block into `error`, which says why `what` cannot be written."""
    try:
        yield
    except OSError as caught:
        reason = caught.strerror or str(caught) or type(caught).__name__
        hint = hint or hint_for(caught)
        raise error(f"{what} cannot be written", got=reason, hint=hint) from caught


def parent_of(given: PathLike, target: Path) -> Path:
    """The folder of a target as it was given; for a link, the full path of the link's target."""
    return target.parent if os.path.islink(given) else Path(given).parent


def stem(target: Path) -> str:
    """The beginning of the hidden names: the target's name, or a hash of one that is too long."""
    encoded = os.fsencode(target.name)
    if len(encoded) <= _LONGEST_NAME:
        return target.name
    return hashlib.sha256(encoded).hexdigest()[:32]


def new_token() -> str:
    """A random token that identifies a writer among all threads, processes and machines."""
    return secrets.token_hex(8)


def sibling(target: Path, kind: Kind, token: str) -> Path:
    """A writer's hidden path next to a target."""
    return target.with_name(f".{stem(target)}.{kind}-{token}")


def siblings(target: Path, kind: Kind, token: str = ANY) -> list[Path]:
    """The existing paths that `sibling` gave, of one writer or of any, sorted."""
    pattern = re.compile(rf"\.{re.escape(stem(target))}\.{kind}-{token}")
    try:
        names = os.listdir(target.parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [target.with_name(name) for name in sorted(names) if pattern.fullmatch(name)]


def give_mode(path: Path, mode: int) -> None:
    """Set permissions; where that is not allowed, the narrower ones stay."""
    if stat.S_IMODE(path.stat().st_mode) != mode:
        with suppress(PermissionError):
            path.chmod(mode)


def rename(source: Path, destination: Path) -> None:
    """Rename durably: a power failure does not undo it."""
    os.rename(source, destination)
    sync(destination.parent)


def rename_new(source: Path, destination: Path) -> None:
    """The same to a name that is free; raises FileExistsError if it is not.

    Without `renameat2`, another program may still take the name between the check and the rename.
    """
    if not _renameat2(source, destination, _RENAME_NOREPLACE):
        if os.path.lexists(destination):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
        os.rename(source, destination)
    sync(destination.parent)


def exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False if the operating or file system cannot do that.

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


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file's content a second name, or copy it where there can be none; follows links.

    Raises OSError, also if the second name is taken.
    """
    content = os.path.realpath(source)
    try:
        os.link(content, target)
    except OSError as error:
        if error.errno not in _NO_SECOND_NAME:
            raise
        shutil.copyfile(content, target)


def sync_tree(folder: Path) -> None:
    """Sync a folder and everything below it to the disk; raises OSError if that fails."""

    def fail(error: OSError) -> None:
        raise error

    for parent, _, files in os.walk(folder, onerror=fail):
        for name in files:
            sync(Path(parent, name))
        sync(Path(parent))


def sync(path: Path) -> None:
    """Sync a file or a folder to the disk; raises OSError if that fails."""
    posix = hasattr(os, "O_DIRECTORY")
    if not posix and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDONLY if posix else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder, and nothing can be done about it.
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(descriptor)
