"""Publish a folder atomically: a reader finds either the old folder or the new, always complete.

Next to a target called `NAME` there are, hidden and only as long as they are needed:

    .NAME.sgraf-deploy-lock    locked by the writer, see `locks`
    .NAME.tmp-ID               being written, or no longer needed; the next writer removes it
    .NAME.new-ID               complete, and about to take the place of an existing target
    .NAME.old-ID               the former target, until the new one has taken its place

`new` and `old` are used only if two folders cannot be exchanged in one step (on Windows, macOS and
some network file systems). Their names record the swap: while the target is missing, any command
that opens it completes the swap. Where nothing can be locked (Windows), two writers of a target do
not exclude each other, the last one wins, and a killed writer's files stay until they are removed
by hand.

A link is followed: the folder that it leads to is replaced or created, and the link stays. A
replaced folder keeps its permissions. `writer` does the same for files.
"""

from __future__ import annotations

import logging
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sgraf_deploy.errors import BundleError, SgrafDeployError
from sgraf_deploy.files import disk
from sgraf_deploy.files.disk import (
    ANY,
    Kind,
    give_mode,
    kind_of,
    new_token,
    os_errors,
    parent_of,
    rename,
    rename_new,
    sibling,
    siblings,
    stem,
)
from sgraf_deploy.files.locks import Lock, holder, take_lock

FRESH_STEPS = ("created", "written", "synced", "published")
EXCHANGE_STEPS = ("created", "written", "synced", "exchanged", "removed-old")
RENAME_STEPS = (
    *("created", "written", "synced"),
    *("marked", "moved-old", "moved-new", "removed-old"),
)
STEPS = tuple(dict.fromkeys((*FRESH_STEPS, *EXCHANGE_STEPS, *RENAME_STEPS)))
"""Every name that `step` is called with, right after the step has happened."""

SWAP_PATIENCE = 10.0
"""Seconds that a reader waits for a live writer that is between its two renames."""

WRITER_PATIENCE = 0.2
"""Seconds that a writer waits for the lock: a reader that completes a swap holds it briefly."""

_POLL = 0.005
_SHOWN = 10
"""Number of extra files that an error names; it counts all of them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """The name of a kind of folder in messages, its error, and the check before a replacement.

    `check` raises for an existing folder that contains anything but what its writer wrote.
    """

    what: str
    error: type[SgrafDeployError]
    check: Callable[[Path], None]


@contextmanager
def staged_folder(
    target: Path,
    rules: Rules,
    *,
    force: bool = False,
    step: Callable[[str], None] | None = None,
    exchange: Callable[[Path, Path], bool] | None = None,
) -> Iterator[Path]:
    """Yield an empty folder to fill, and move it to `target` when the block ends without error.

    After an error, KeyboardInterrupt included, the folder is removed and `target` is unchanged.
    `force` replaces an existing folder that passes `rules.check` at the start and at the end;
    nothing else is ever replaced. `step` is called with each of `STEPS` that is reached. Raises
    `rules.error` if `target` cannot be written, or another writer holds it.
    """
    report = step or (lambda name: None)
    target, named = _resolved(target, rules), f"{rules.what} {target}"
    with _writing(target, rules) as lock:
        token = new_token()
        staged = sibling(target, "tmp", token)
        try:
            with os_errors(named, rules.error):
                if lock.excludes:
                    _finish_swap(target)
                    _sweep(target, ANY)
                else:
                    recover(target, rules.error)
                _check_target(target, rules, force)
                staged.mkdir()
            report("created")
            yield staged
            report("written")
            with os_errors(named, rules.error):
                disk.sync_tree(staged)
                report("synced")
                _check_target(target, rules, force)
                _publish(target, token, report, exchange or disk.exchange)
        finally:
            # Without a lock another writer may be at work: only this writer's files are removed.
            _settle(target, ANY if lock.excludes else token)


def recover(target: Path, error: type[SgrafDeployError] = BundleError) -> None:
    """Complete the replacement of `target` if its writer died between the two renames.

    A live writer between them is waited for. Raises `error` if that cannot be done.
    """
    with os_errors(str(target), error):
        target = Path(os.path.realpath(target))
        give_up = time.monotonic() + SWAP_PATIENCE
        while not os.path.lexists(target) and _recorded_swap(target):
            late, lock = time.monotonic() >= give_up, take_lock(target)
            if lock is not None and (lock.excludes or late):
                try:
                    _finish_swap(target)
                finally:
                    lock.drop()
            elif late:
                raise _busy(target, error)
            else:
                time.sleep(_POLL)


def list_files(folder: Path) -> list[str]:
    """The files and links below a folder as relative POSIX paths, sorted."""
    names = []
    for parent, folders, files in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        names += [Path(parent, name).relative_to(folder).as_posix() for name in (*files, *links)]
    return sorted(names)


def foreign(names: Sequence[str]) -> str:
    """The number of extra files, and the names of the first of them."""
    shown = ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
    return f"{len(names):,} other file{'' if len(names) == 1 else 's'}: {shown}"


def _publish(
    target: Path,
    token: str,
    report: Callable[[str], None],
    exchange: Callable[[Path, Path], bool],
) -> None:
    staged = sibling(target, "tmp", token)
    if not os.path.lexists(target):
        rename_new(staged, target)
        report("published")
        return
    give_mode(staged, stat.S_IMODE(target.stat().st_mode))
    if exchange(staged, target):
        disk.sync(target.parent)
        report("exchanged")
        _discard(staged, target)
    else:
        new, old = sibling(target, "new", token), sibling(target, "old", token)
        for source, destination, name in (
            (staged, new, "marked"),
            (target, old, "moved-old"),
            (new, target, "moved-new"),
        ):
            rename(source, destination)
            report(name)
        _discard(old, target)
    report("removed-old")


def _check_target(target: Path, rules: Rules, force: bool) -> None:
    """Raise unless there is nothing at the target, or a folder that may be replaced."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        kind = kind_of(target.lstat().st_mode)
        hint = "choose another name"
        raise rules.error(f"{target} is {kind}, not a {rules.what} folder", hint=hint)
    rules.check(target)
    if not force:
        hint = "replace it with --force, or choose another name"
        raise rules.error(f"{rules.what} {target} exists already", hint=hint)
    if not os.access(target, os.W_OK):
        hint = "check its permissions or choose another name"
        raise rules.error(f"{rules.what} {target} is write-protected", hint=hint)


def _recorded_swap(target: Path) -> list[Path]:
    """The folders that may take the place of a missing target, best first."""
    return [*siblings(target, "new"), *siblings(target, "old")]


def _finish_swap(target: Path) -> None:
    if os.path.lexists(target):
        return
    for folder in _recorded_swap(target)[:1]:
        rename(folder, target)
        log.warning("completed the interrupted replacement of %s", target)


def _settle(target: Path, token: str) -> None:
    """Leave a complete target and no other files of the writers of `token`, after any outcome."""
    try:
        if not os.path.lexists(target):
            for old in siblings(target, "old", token)[:1]:
                rename(old, target)
        _sweep(target, token)
    except OSError as error:
        log.warning("could not clean up next to %s: %s", target, error)


def _sweep(target: Path, token: str) -> None:
    """Remove the leftovers of writers of `token`, none of which may be at work."""
    kinds: tuple[Kind, ...] = ("tmp", "new", "old") if os.path.lexists(target) else ("tmp",)
    for kind in kinds:
        for folder in siblings(target, kind, token):
            _discard(folder, target)


def _discard(folder: Path, target: Path) -> None:
    """Remove a folder; a failure is a warning, because the target is complete either way."""
    discarded = folder
    try:
        if not folder.name.startswith(f".{stem(target)}.tmp-"):
            # Half removed, it must not look like a folder that could take the target's place.
            discarded = sibling(target, "tmp", new_token())
            rename(folder, discarded)
        shutil.rmtree(discarded)
    except OSError as error:
        log.warning("could not remove %s: %s", discarded, error)


def _resolved(target: Path, rules: Rules) -> Path:
    """The absolute path with links followed, so that a link's folder is replaced, not the link."""
    named = f"{rules.what} {target}"
    with os_errors(named, rules.error):
        resolved = Path(os.path.realpath(target))
        with suppress(FileNotFoundError, NotADirectoryError):
            resolved.lstat()
    if not resolved.name:
        raise rules.error(f"{target} cannot be a {rules.what}", hint="choose another name")
    if not resolved.parent.is_dir():
        raise rules.error(
            f"{named} cannot be written",
            expected="a parent folder that exists",
            got=f"no folder {parent_of(target, resolved)}",
            hint="create it first",
        )
    return resolved


@contextmanager
def _writing(target: Path, rules: Rules) -> Iterator[Lock]:
    """Hold the target's lock while the block runs; raises if another writer holds it."""
    give_up = time.monotonic() + WRITER_PATIENCE
    with os_errors(f"{rules.what} {target}", rules.error):
        while (lock := take_lock(target)) is None and time.monotonic() < give_up:
            time.sleep(_POLL)
    if lock is None:
        raise _busy(target, rules.error)
    try:
        yield lock
    finally:
        lock.drop()


def _busy(target: Path, error: type[SgrafDeployError]) -> SgrafDeployError:
    return error(
        f"another writer{holder(target)} is writing {target}", hint="try again when it is done"
    )
