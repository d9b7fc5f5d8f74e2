"""A hidden folder in which long work is kept until its files are published beside it.

    FOLDER/.NAME.work    parts of the work called NAME; a killed writer leaves it

One process at a time is at work on a NAME. Where nothing can be locked (Windows) two do not exclude
each other. `writer` writes the parts. Files are published by renaming them into FOLDER one by one;
the last one is the one without which readers see none of the others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.files.disk import os_errors, parent_of, sync
from sgraf_deploy.files.locks import holder, take_lock


def work_path(folder: Path, name: str) -> Path:
    """The hidden folder of the work called `name`."""
    return folder / f".{name}.work"


def works(folder: Path) -> list[str]:
    """The names of the work that is kept in a folder, whether somebody is at it or not."""
    return sorted(path.name[1:-5] for path in folder.glob(".*.work"))


@contextmanager
def kept_work(
    folder: Path, name: str, *, error: type[SgrafDeployError] = InputError
) -> Iterator[Path]:
    """Yield the path of the work folder, which may or may not exist, locked in the block.

    `folder` is made if it is not there, and removed after the block if nothing is in it. Raises
    `error` if another process is at work, or `folder` cannot be made.
    """
    _make_folder(folder, error)
    path = work_path(folder, name)
    try:
        with os_errors(str(folder), error):
            lock = take_lock(path)
        if lock is None:
            raise error(
                f"another process{holder(path)} is at work on {name} of {folder}",
                hint="try again when it is done",
            )
        try:
            yield path
        finally:
            lock.drop()
    finally:
        with suppress(OSError):  # it has content, or is not ours to remove
            folder.rmdir()


def _make_folder(folder: Path, error: type[SgrafDeployError]) -> None:
    with os_errors(str(folder), error):
        if folder.is_dir():
            return
        parent = Path(os.path.realpath(folder)).parent
        if os.path.lexists(folder):
            raise error(str(folder), expected="a folder", got="a file", hint="choose another name")
        if not parent.is_dir():
            raise error(
                f"{folder} cannot be written",
                expected="a parent folder that exists",
                got=f"no folder {parent_of(folder, parent / folder.name)}",
                hint="create it first",
            )
        folder.mkdir(exist_ok=True)  # another process may have made it meanwhile


def begin_work(path: Path, *, error: type[SgrafDeployError] = InputError) -> None:
    """Make the work folder anew and empty."""
    discard_work(path, error=error)
    with os_errors(str(path), error):
        path.mkdir()


def discard_work(path: Path, *, error: type[SgrafDeployError] = InputError) -> None:
    """Remove the work folder, if it is there."""
    with os_errors(str(path), error):
        if os.path.lexists(path):
            shutil.rmtree(path)


def publish_files(
    work: Path,
    folder: Path,
    names: Sequence[str],
    *,
    withdrawn: Sequence[str] = (),
    step: Callable[[str], None] = lambda name: None,
    error: type[SgrafDeployError] = InputError,
) -> None:
    """Rename files of the work folder into `folder` in this order, each replacing a former one.

    The last one is that by which readers find the others: a former one is removed first, with the
    files `withdrawn` that have no successor. `step` is called after every change, with `withdrawn`
    or the name that was published.
    """
    with os_errors(str(folder), error):
        former = [name for name in (names[-1], *withdrawn) if os.path.lexists(folder / name)]
        for name in former:
            (folder / name).unlink()
        if former:
            sync(folder)
            step("withdrawn")
        for name in names:
            os.replace(work / name, folder / name)
            sync(folder)
            step(name)
