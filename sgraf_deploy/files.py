"""Write a file atomically: whoever opens it finds the old content or the new, whole.

The content goes to a hidden file beside the target, `.NAME.tmp-ID`, which is synced and renamed.
Its writer holds a lock on it, so the next writer of the same target knows and removes what a dead
one left. Several writers of one target do not wait for each other: the last one's content stays.

A link is followed: its target is replaced, or made, and the link stays. A new file has the
permissions that the umask leaves, a replaced one keeps its own. A device, a named pipe, a socket, a
folder and a file that may not be written to are refused. `folders` does the same for folders.
"""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from sgraf_deploy.disk import (
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
from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.locks import is_at, try_lock

PathLike = str | os.PathLike[str]

FILE_STEPS = ("created", "written", "synced", "published")
"""Every name that `step` is called with, right after what it names has happened."""

log = logging.getLogger(__name__)


@contextmanager
def staged_file(
    path: PathLike,
    *,
    what: str = "file",
    error: type[SgrafDeployError] = InputError,
    mend: str | None = None,
    replace: bool = True,
    step: Callable[[str], None] | None = None,
) -> Iterator[BinaryIO]:
    """Give a stream to write to, whose content is at `path` when the block ends without error.

    After an error, KeyboardInterrupt included, `path` is as it was. `what` names the file's role in
    messages. Without `replace` a file that is there is refused. `step` is told each of
    `FILE_STEPS`. Raises `error` where the file cannot be written, also for an OSError of the block.
    """
    report = step or (lambda name: None)
    named = f"{what} {os.fspath(path)}"
    target, mode = check_file(path, what=what, error=error, replace=replace)
    with os_errors(named, error, mend):
        _sweep(target)
        with _temporary(target, mode) as (temporary, file):
            with file:
                report("created")
                yield file
                report("written")
                file.flush()
                os.fsync(file.fileno())
            report("synced")
            # It may have taken hours, and something else may be there now.
            _, mode = check_file(target, what=what, error=error, replace=replace)
            if mode is not None:
                give_mode(temporary, mode)
            if replace:
                os.replace(temporary, target)
                sync(target.parent)
            else:
                rename_new(temporary, target)
        report("published")


def write_file(
    path: PathLike,
    content: bytes | str,
    *,
    what: str = "file",
    error: type[SgrafDeployError] = InputError,
    mend: str | None = None,
    replace: bool = True,
) -> None:
    """Write a file, text as UTF-8, whole or not at all; `error` where that cannot be done."""
    try:
        encoded = content if isinstance(content, bytes) else content.encode()
    except UnicodeEncodeError as caught:
        raise error(f"{what} {os.fspath(path)} cannot be written", got=caught) from caught
    with staged_file(path, what=what, error=error, mend=mend, replace=replace) as file:
        file.write(encoded)


def write_json(
    path: PathLike,
    value: object,
    *,
    what: str = "file",
    error: type[SgrafDeployError] = InputError,
) -> None:
    """Write JSON for people: in the given order, one field a line; `error` if it is none."""
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
    """The path with links followed, and the permissions of the file there; None if there is none.

    Raises `error` for what `staged_file` refuses. Nothing is touched.
    """
    named = f"{what} {os.fspath(path)}"
    with os_errors(named, error):
        try:
            target = Path(os.path.realpath(path))
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            if target.parent.is_dir():
                mode = None
            else:
                raise error(
                    f"{named} cannot be written",
                    expected="a file in a folder that exists",
                    got=f"no folder {parent_of(path, target)}",
                    mend="create it first",
                ) from None
        except ValueError as caught:
            raise error(f"{what} {os.fspath(path)!r} cannot be written", got=caught) from caught
    if mode is not None and not stat.S_ISREG(mode):
        got, other = kind_of(mode), "choose another name"
        raise error(f"{named} cannot be written", expected="a file", got=got, mend=other)
    if mode is not None and not replace:
        raise error(f"{named} exists already", mend="choose another name or move it away")
    for place in (target.parent, *([] if mode is None else [target])):
        if not os.access(place, os.W_OK):
            raise error(
                f"{named} cannot be written",
                got=f"no permission to write to {place}",
                mend="check its permissions or choose another name",
            )
    return target, None if mode is None else mode & 0o777


@contextmanager
def _temporary(target: Path, mode: int | None) -> Iterator[tuple[Path, BinaryIO]]:
    """A file beside the target, locked as long as the block runs; gone after it unless renamed."""
    temporary, file, lock = _create(target, mode)
    try:
        yield temporary, file
    finally:
        with suppress(OSError):
            temporary.unlink()
        if lock is not None:
            os.close(lock)


def _create(target: Path, mode: int | None) -> tuple[Path, BinaryIO, int | None]:
    """A new file, and a descriptor that holds its lock; None where files cannot be locked."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    # What replaces a private file is private from the start.
    given = 0o666 if mode is None else mode | 0o600
    while True:
        temporary = sibling(target, "tmp", new_token())
        descriptor = os.open(temporary, flags, given)
        try:
            held = try_lock(descriptor)
            # Before it was locked another writer may have taken it for a dead one's.
            if held is None or (held and is_at(descriptor, temporary)):
                lock = os.dup(descriptor) if held else None
                return temporary, os.fdopen(descriptor, "wb"), lock
        except BaseException:
            os.close(descriptor)
            temporary.unlink(missing_ok=True)
            raise
        os.close(descriptor)


def _sweep(target: Path) -> None:
    """Remove what dead writers of the same target left: whatever can be locked."""
    for path in siblings(target, "tmp"):
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                continue
            with path.open("r+b") as file:
                if try_lock(file.fileno()) and is_at(file.fileno(), path):
                    path.unlink()
        except OSError as error:
            log.debug("%s stays: %s", path, error)
