"""Write a file atomically: a reader finds either the old content or the new, always complete.

The content goes to a hidden file next to the target, `.NAME.tmp-ID`, which is synced and renamed.
Its writer holds a lock on it, so that the next writer of the same target recognises and removes the
files of dead writers. Several writers of one target do not wait for each other; the last one wins.

A link is followed: its target is replaced or created, and the link stays. A new file has the
permissions that the umask leaves, and a replaced file keeps its permissions. A device, a named
pipe, a socket, a folder and a file without write permission are refused. `folders` does the same
for folders.
"""

from __future__ import annotations

import errno
import json
import logging
import math
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.files.disk import (
    PathLike,
    give_mode,
    kind_of,
    new_token,
    os_errors,
    parent_of,
    rename_new,
    sibling,
    siblings,
    sync,
)
from sgraf_deploy.files.locks import is_at, try_lock

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_ZEROS = 1 << 20
"""Number of zero bytes written at a time if disk space cannot be reserved in another way."""

FILE_STEPS = ("created", "written", "synced", "published")
"""Every name that `step` is called with, right after the step has happened."""

log = logging.getLogger(__name__)


@contextmanager
def staged_file(
    path: PathLike,
    *,
    what: str = "file",
    error: type[SgrafDeployError] = InputError,
    hint: str | None = None,
    replace: bool = True,
    step: Callable[[str], None] | None = None,
) -> Iterator[BinaryIO]:
    """Yield a stream to write to, whose content is at `path` when the block ends without error.

    After an error, KeyboardInterrupt included, `path` is unchanged. `what` names the file's role in
    messages. Without `replace` an existing file is refused. `step` is called with each of
    `FILE_STEPS`. Raises `error` if the file cannot be written, also for an OSError of the block.
    """
    report = step or (lambda name: None)
    named = f"{what} {os.fspath(path)}"
    target, mode = check_file(path, what=what, error=error, replace=replace)
    with os_errors(named, error, hint):
        _sweep(target)
        with _temporary(target, mode) as (temporary, file):
            with file:
                report("created")
                yield file
                report("written")
                file.flush()
                os.fsync(file.fileno())
            report("synced")
            # Writing may have taken hours, so the target is checked again.
            _, mode = check_file(target, what=what, error=error, replace=replace)
            if mode is not None:
                give_mode(temporary, mode)
            if replace:
                os.replace(temporary, target)
                sync(target.parent)
            else:
                rename_new(temporary, target)
        report("published")


@contextmanager
def staged_array(
    path: PathLike,
    shape: tuple[int, int],
    *,
    what: str = "file",
    error: type[SgrafDeployError] = InputError,
) -> Iterator[NDArray[np.float32]]:
    """Yield a memory map, float32 of `shape`, which is the `.npy` file at `path` after the block.

    Like `staged_file`, but all disk space is reserved first, so that it cannot run out while the
    map is filled. Raises `error` also if there is too little disk space.
    """
    import numpy as np

    try:
        with staged_file(path, what=what, error=error) as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            start = file.tell()
            named = f"{what} {os.fspath(path)}"
            end = start + 4 * math.prod(shape)
            _reserve_space(file, check_file(path)[0].parent, end, named, error)
            array = np.memmap(file, "<f4", "r+", start, shape)
            try:
                yield array
            except OSError as caught:
                raise _UnrelatedError(caught) from caught
            array.flush()
    except _UnrelatedError as caught:
        raise caught.error from None


class _UnrelatedError(Exception):
    """Wraps an OSError of the block that is not about the file that the block fills."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error)
        self.error = error


def _reserve_space(
    file: BinaryIO, folder: Path, size: int, named: str, error: type[SgrafDeployError]
) -> None:
    """Extend a file to its final size and reserve its space; `error` if there is too little."""
    free = shutil.disk_usage(folder).free
    if free < size:
        raise error(
            f"{named} cannot be written",
            expected=f"{size / 1e6:,.1f} MB of disk space",
            got=f"{free / 1e6:,.1f} MB",
            hint="free disk space, or choose a name on another disk",
        )
    file.flush()
    reserve = getattr(os, "posix_fallocate", None)
    try:
        if reserve is not None:
            reserve(file.fileno(), 0, size)
            return
    except OSError as caught:
        if caught.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    rest = range(file.tell(), size, _ZEROS)
    file.writelines(bytes(min(_ZEROS, size - first)) for first in rest)
    file.flush()


def write_file(
    path: PathLike,
    content: bytes | str,
    *,
    what: str = "file",
    error: type[SgrafDeployError] = InputError,
    hint: str | None = None,
    replace: bool = True,
) -> None:
    """Write a file atomically, text as UTF-8; raises `error` if it cannot be written."""
    try:
        encoded = content if isinstance(content, bytes) else content.encode()
    except UnicodeEncodeError as caught:
        raise error(f"{what} {os.fspath(path)} cannot be written", got=caught) from caught
    with staged_file(path, what=what, error=error, hint=hint, replace=replace) as file:
        file.write(encoded)


def write_json(
    path: PathLike,
    value: object,
    *,
    what: str = "file",
    error: type[SgrafDeployError] = InputError,
) -> None:
    """Write indented JSON, one field per line in the given order.

    Raises `error` for a value that is not JSON and for a file that cannot be written.
    """
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except (TypeError, ValueError, RecursionError) as caught:
        raise error(f"{what} {os.fspath(path)} cannot be written", got=caught) from caught
    write_file(path, text, what=what, error=error)


def check_file(
    path: PathLike,
    *,
    what: str = "file",
    error: type[SgrafDeployError] = InputError,
    replace: bool = True,
) -> tuple[Path, int | None]:
    """The path with links followed, and the permissions of an existing file, or None.

    Raises `error` for every path that `staged_file` refuses. Nothing is changed on the disk.
    """
    named = f"{what} {os.fspath(path)}"
    with os_errors(named, error):
        try:
            target, mode = Path(os.path.realpath(path)), _mode_of(path)
        except ValueError as caught:
            raise error(f"{what} {os.fspath(path)!r} cannot be written", got=caught) from caught
        if mode is None and not target.parent.is_dir():
            raise error(
                f"{named} cannot be written",
                expected="a file in a folder that exists",
                got=f"no folder {parent_of(path, target)}",
                hint="create it first",
            )
    if mode is not None and not stat.S_ISREG(mode):
        got, hint = kind_of(mode), "choose another name"
        raise error(f"{named} cannot be written", expected="a file", got=got, hint=hint)
    if mode is not None and not replace:
        raise error(f"{named} exists already", hint="choose another name or move it away")
    for written in (target.parent, *([] if mode is None else [target])):
        if not os.access(written, os.W_OK):
            raise error(
                f"{named} cannot be written",
                got=f"no permission to write to {written}",
                hint="check its permissions or choose another name",
            )
    return target, None if mode is None else mode & 0o777


def _mode_of(path: PathLike) -> int | None:
    """The `st_mode` of what is at a path, links followed; None for nothing."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None


@contextmanager
def _temporary(target: Path, mode: int | None) -> Iterator[tuple[Path, BinaryIO]]:
    """A file next to the target, locked in the block and removed after it unless renamed."""
    temporary, file, lock = _create(target, mode)
    try:
        yield temporary, file
    finally:
        with suppress(OSError):
            temporary.unlink()
        if lock is not None:
            os.close(lock)


def _create(target: Path, mode: int | None) -> tuple[Path, BinaryIO, int | None]:
    """A new file, and a descriptor that holds its lock, or None if files cannot be locked."""
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    # A file that replaces a private one is private from the start.
    given = 0o666 if mode is None else mode | 0o600
    while True:
        temporary = sibling(target, "tmp", new_token())
        descriptor = os.open(temporary, flags, given)
        try:
            held = try_lock(descriptor)
            # Before it was locked, another writer may have taken it for a dead writer's file.
            if held is None or (held and is_at(descriptor, temporary)):
                lock = os.dup(descriptor) if held else None
                return temporary, os.fdopen(descriptor, "w+b"), lock
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        os.close(descriptor)


def _sweep(target: Path) -> None:
    """Remove the files that dead writers of the same target left: those that can be locked."""
    for path in siblings(target, "tmp"):
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            with path.open("r+b") as file:
                if try_lock(file.fileno()) and is_at(file.fileno(), path):
                    path.unlink()
        except OSError as error:
            log.debug("%s stays: %s", path, error)
