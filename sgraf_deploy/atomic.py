"""Publish a folder atomically: whoever opens it finds the old one or the new one, whole.

Beside a target called `NAME` live, hidden and only for as long as they are needed:

    .NAME.lock      flocked by the writer; the kernel lets go of it when the writer dies
    .NAME.tmp-ID    being written, or no longer needed; the next writer removes it
    .NAME.new-ID    complete, and about to take the place of an existing target
    .NAME.old-ID    the former target, until the new one has moved in

`new` and `old` are used only where two folders cannot be exchanged in one step. Their names are
the record of the swap: while the target is missing, any opening command completes it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from sgraf_deploy.errors import BundleError

MANIFEST = "manifest.json"
"""The file that makes a folder a bundle; a folder without it is never replaced."""

FRESH_STEPS = ("created", "written", "synced", "published")
EXCHANGE_STEPS = ("created", "written", "synced", "exchanged", "removed-old")
RENAME_STEPS = (
    *("created", "written", "synced"),
    *("marked", "moved-old", "moved-new", "removed-old"),
)
STEPS = tuple(dict.fromkeys((*FRESH_STEPS, *EXCHANGE_STEPS, *RENAME_STEPS)))
"""Every name that `step` is called with, right after what it names has happened."""

SWAP_PATIENCE = 10.0
"""Seconds that a reader waits for a live writer that is between its two renames."""

WRITER_PATIENCE = 0.2
"""Seconds that a writer waits for the lock, which a reader that completes a swap holds briefly."""

_Kind = Literal["tmp", "new", "old"]
_POLL = 0.005
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_NO_EXCHANGE = {errno.ENOSYS, errno.EINVAL, errno.EXDEV, errno.EOPNOTSUPP, errno.EPERM}

log = logging.getLogger(__name__)


def exchange_folders(first: Path, second: Path) -> bool:
    """Swap two folders in one step; False where the system or the file system cannot.

    Raises OSError if the swap was refused for any other reason.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    names = (os.fsencode(first), os.fsencode(second))
    if renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(first), None, str(second))


@contextmanager
def staged_folder(
    target: Path,
    *,
    force: bool = False,
    step: Callable[[str], None] | None = None,
    exchange: Callable[[Path, Path], bool] = exchange_folders,
) -> Iterator[Path]:
    """Give an empty folder to fill, and move it to `target` when the block ends without error.

    After an error, KeyboardInterrupt included, the folder is gone and `target` is as it was.
    `force` replaces an existing bundle; nothing else is ever replaced. `step` is told each of
    `STEPS` that is reached. Raises BundleError if `target` cannot be written, or another writer
    is at it.
    """
    report = step or (lambda name: None)
    with _os_errors(target):
        target = _resolved(target)
    if not target.parent.is_dir():
        raise BundleError(f"folder {target.parent} does not exist", mend="create it first")
    with _writing(target):
        try:
            with _os_errors(target):
                _finish_swap(target)
                _sweep(target)
                _check_target(target, force)
                staged = _sibling(target, "tmp")
                staged.mkdir()
            report("created")
            yield staged
            report("written")
            with _os_errors(target):
                _sync_tree(staged)
                report("synced")
                _check_target(target, force)
                _publish(staged, target, report, exchange)
        finally:
            _settle(target)


def recover(target: Path) -> None:
    """Complete the replacement of `target` if its writer died, or is, between the two renames.

    Raises BundleError if that cannot be done.
    """
    with _os_errors(target):
        target = _resolved(target)
        give_up = time.monotonic() + SWAP_PATIENCE
        while not os.path.lexists(target) and _recorded_swap(target):
            lock = _take_lock(target)
            if lock is not None:
                try:
                    _finish_swap(target)
                finally:
                    _drop_lock(target, lock)
            elif time.monotonic() >= give_up:
                raise _busy(target)
            else:
                time.sleep(_POLL)


def _publish(
    staged: Path,
    target: Path,
    report: Callable[[str], None],
    exchange: Callable[[Path, Path], bool],
) -> None:
    if not os.path.lexists(target):
        _rename(staged, target)
        report("published")
        return
    if exchange(staged, target):
        _sync(target.parent)
        report("exchanged")
        _discard(staged, target)
    else:
        new, old = _sibling(target, "new"), _sibling(target, "old")
        for source, destination, name in (
            (staged, new, "marked"),
            (target, old, "moved-old"),
            (new, target, "moved-new"),
        ):
            _rename(source, destination)
            report(name)
        _discard(old, target)
    report("removed-old")


def _check_target(target: Path, force: bool) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise BundleError(f"{target} is a file, not a bundle folder", mend="choose another name")
    if not (target / MANIFEST).is_file():
        raise BundleError(
            f"{target} exists and is not a bundle: it has no {MANIFEST}",
            mend="choose another name or move it away",
        )
    if not force:
        raise BundleError(
            f"bundle {target} exists already", mend="replace it with --force or choose another name"
        )


def _recorded_swap(target: Path) -> list[Path]:
    """What may take the place of a missing target, best first."""
    return [*_siblings(target, "new"), *_siblings(target, "old")]


def _finish_swap(target: Path) -> None:
    if os.path.lexists(target):
        return
    for folder in _recorded_swap(target)[:1]:
        _rename(folder, target)
        log.warning("completed the interrupted replacement of %s", target)


def _settle(target: Path) -> None:
    """Leave a whole target and nothing else, whatever happened; the lock must be held."""
    try:
        if not os.path.lexists(target):
            for old in _siblings(target, "old")[:1]:
                _rename(old, target)
        _sweep(target)
    except OSError as error:
        log.warning("could not clean up beside %s: %s", target, error)


def _sweep(target: Path) -> None:
    """Remove what this writer, or dead ones, left behind; the lock must be held."""
    kinds: tuple[_Kind, ...] = ("tmp", "new", "old") if os.path.lexists(target) else ("tmp",)
    for kind in kinds:
        for folder in _siblings(target, kind):
            _discard(folder, target)


def _discard(folder: Path, target: Path) -> None:
    """Remove a folder; failing to is a warning, because the target is whole either way."""
    doomed = folder
    try:
        if not folder.name.startswith(f".{target.name}.tmp-"):
            # Half removed, it must not look like a bundle that could take the target's place.
            doomed = _sibling(target, "tmp")
            _rename(folder, doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        log.warning("could not remove %s: %s", doomed, error)


def _sibling(target: Path, kind: _Kind) -> Path:
    return target.with_name(f".{target.name}.{kind}-{secrets.token_hex(8)}")


def _siblings(target: Path, kind: _Kind) -> list[Path]:
    pattern = re.compile(rf"\.{re.escape(target.name)}\.{kind}-[0-9a-f]{{16}}")
    try:
        names = os.listdir(target.parent)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [target.with_name(name) for name in sorted(names) if pattern.fullmatch(name)]


def _resolved(target: Path) -> Path:
    """The absolute path with links followed, so that a link's folder is replaced, not the link."""
    resolved = Path(os.path.realpath(target))
    if not resolved.name:
        raise BundleError(f"{target} cannot be a bundle", mend="choose another name")
    return resolved


def _rename(source: Path, destination: Path) -> None:
    os.rename(source, destination)
    _sync(destination.parent)


def _sync_tree(folder: Path) -> None:
    def fail(error: OSError) -> None:
        raise error

    for parent, _, files in os.walk(folder, onerror=fail):
        for name in files:
            _sync(Path(parent, name))
        _sync(Path(parent))


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot sync a folder; then there is nothing more to ask of them.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Hold the target's lock; BundleError if another writer holds it."""
    give_up = time.monotonic() + WRITER_PATIENCE
    with _os_errors(target):
        while (lock := _take_lock(target)) is None and time.monotonic() < give_up:
            time.sleep(_POLL)
    if lock is None:
        raise _busy(target)
    try:
        yield
    finally:
        _drop_lock(target, lock)


def _lock_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.lock")


def _take_lock(target: Path) -> int | None:
    """The locked descriptor, or None while another process or thread holds it."""
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.open(_lock_path(target), flags, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two calls the last holder may have removed the file: then it locks no one.
            if os.path.samestat(os.fstat(lock), os.stat(_lock_path(target))):
                os.ftruncate(lock, 0)
                os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
                return lock
        except BlockingIOError:
            os.close(lock)
            return None
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(lock)
            raise
        os.close(lock)


def _drop_lock(target: Path, lock: int) -> None:
    try:
        os.unlink(_lock_path(target))
    except OSError as error:
        log.warning("could not remove the lock beside %s: %s", target, error)
    os.close(lock)


def _busy(target: Path) -> BundleError:
    try:
        holder = _lock_path(target).read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        holder = ""
    return BundleError(
        f"another writer{f' (process {holder})' if holder else ''} is at work on {target}",
        mend="try again when it is done",
    )


@contextmanager
def _os_errors(target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise BundleError(f"cannot write bundle {target}", got=reason) from error
