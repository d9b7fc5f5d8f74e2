"""Publishes a folder atomically: every reader finds the old one or the new one, whole.

While they are needed, these hidden names lie beside a target `NAME`:

    .NAME.sgraf-deploy-lock    flocked by the writer, see `locks`
    .NAME.tmp-ID               being written, or no longer needed; the next writer removes it
    .NAME.new-ID               complete, and about to take the place of an existing target
    .NAME.old-ID               the former target, until the new one has moved in

`new` and `old` are used only where two folders cannot be exchanged in one step (on Windows, macOS,
some network file systems). Their names are the record of the swap: while the target is missing,
any opening command completes it. Where nothing can be locked (Windows), two writers of a target
are not kept apart, the last one wins, and what a killed one left stays until somebody removes it.

A link is followed: the folder that it leads to is replaced, or made, and the link stays. A replaced
folder keeps its permissions. `files` does the same for files.
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
"""Every name that `step` is called with, right after what it names has happened."""

SWAP_PATIENCE = 10.0
"""Seconds that a reader waits for a live writer that is between its two renames."""

WRITER_PATIENCE = 0.2
"""Seconds that a writer waits for the lock: a reader that completes a swap holds it briefly."""

_POLL = 0.005
_SHOWN = 10
"""Foreign files that an error names; it counts all."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rules:
    """What a kind of folder is called in messages, its error, and when it may be replaced.

    `check` raises for an existing folder that holds anything but what its writer wrote.
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
    """Give an empty folder to fill, and move it to `target` when the block ends without error.

    After an error, KeyboardInterrupt included, the folder is gone and `target` is as it was.
    `force` replaces an existing folder that `rules.check` lets pass, at the start and at the end;
    nothing else is ever replaced. `step` is told each of `STEPS` that is reached. Raises
    `rules.error` if `target` cannot be written, or another writer is at it.
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
            # Without a lock another writer may be at work: what is not ours stays.
            _settle(target, ANY if lock.excludes else token)


def recover(target: Path, error: type[SgrafDeployError] = BundleError) -> None:
    """Complete the replacement of `target` if its writer died, or is, between the two renames.

    Raises `error` if that cannot be done.
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


def foreign(names: Sequence[str]) -> str:
    """How many foreign files there are, and the names of the first of them."""
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
    """Raise unless there is nothing at the target, or what may be replaced."""
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        kind = kind_of(target.lstat().st_mode)
        hint = "choose another name"
        raise rules.error(f"{target} is {kind}, not a {rules.what} folder", hint=hint)
    rules.check(target)
    if not force:
        hint = "replace it with --force or choose another name"
        raise rules.error(f"{rules.what} {target} exists already", hint=hint)
    if not os.access(target, os.W_OK):
        hint = "check its permissions or choose another name"
        raise rules.error(f"{rules.what} {target} is protected from writing", hint=hint)


def _recorded_swap(target: Path) -> list[Path]:
    """What may take the place of a missing target, best first."""
    return [*siblings(target, "new"), *siblings(target, "old")]


def _finish_swap(target: Path) -> None:
    if os.path.lexists(target):
        return
    for folder in _recorded_swap(target)[:1]:
        rename(folder, target)
        log.warning("completed the interrupted replacement of %s", target)


def _settle(target: Path, token: str) -> None:
    """Leave a whole target and nothing else of the writers of `token`, whatever happened."""
    try:
        if not os.path.lexists(target):
            for old in siblings(target, "old", token)[:1]:
                rename(old, target)
        _sweep(target, token)
    except OSError as error:
        log.warning("could not clean up beside %s: %s", target, error)


def _sweep(target: Path, token: str) -> None:
    """Remove what writers of `token` left behind; none of them may be at work."""
    kinds: tuple[Kind, ...] = ("tmp", "new", "old") if os.path.lexists(target) else ("tmp",)
    for kind in kinds:
        for folder in siblings(target, kind, token):
            _discard(folder, target)


def _discard(folder: Path, target: Path) -> None:
    """Remove a folder; failing to is a warning, because the target is whole either way."""
    doomed = folder
    try:
        if not folder.name.startswith(f".{stem(target)}.tmp-"):
            # Half removed, it must not look like a folder that could take the target's place.
            doomed = sibling(target, "tmp", new_token())
            rename(folder, doomed)
        shutil.rmtree(doomed)
    except OSError as error:
        log.warning("could not remove %s: %s", doomed, error)


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
            expected="a folder to put it in",
            got=f"no folder {parent_of(target, resolved)}",
            hint="create it first",
        )
    return resolved


@contextmanager
def _writing(target: Path, rules: Rules) -> Iterator[Lock]:
    """Hold the target's lock; raises if another writer holds it."""
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
        f"another writer{holder(target)} is at work on {target}", hint="try again when it is done"
    )
