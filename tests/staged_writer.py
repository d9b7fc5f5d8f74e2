"""Small folders and files to publish, and writers in processes of their own, to be killed at will.

Run as a script, `staged_writer.py WRITER TARGET …` is one of the functions in `WRITERS`.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sgraf_deploy import disk, folders
from sgraf_deploy.errors import BundleError
from sgraf_deploy.folders import EXCHANGE_STEPS, FRESH_STEPS, RENAME_STEPS, Rules

NAME = "a+b [1].sgraf"
"""The name of every target: no regular expression, and no pattern for file names."""

WAYS = {"fresh": FRESH_STEPS, "exchange": EXCHANGE_STEPS, "renames": RENAME_STEPS}
"""The ways of publishing, and the steps of each."""

ANY = Rules("bundle", BundleError, lambda folder: None)
"""Every folder may be replaced."""

Step = Callable[[str], None]


def fill(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    (folder / "sgr").mkdir()
    (folder / "sgr" / "scorer.onnx").write_text(content)


def read(folder: Path) -> str:
    """What `fill` wrote; an error if it is not of one piece."""
    content = (folder / "manifest.json").read_text()
    if (folder / "sgr" / "scorer.onnx").read_text() != content:
        raise ValueError(f"{folder} is half {content}")
    return content


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def never(first: Path, second: Path) -> bool:
    """The exchange of a file system that has none."""
    return False


def write(target: Path, content: str, way: str, step: Step | None = None) -> None:
    exchange = never if way == "renames" else disk.exchange
    with folders.staged_folder(target, ANY, force=True, step=step, exchange=exchange) as folder:
        fill(folder, content)


def prepare(folder: Path, way: str) -> Path:
    """The target as `way` needs it: absent, or with `old`; skips where no exchange works."""
    for name in ("first", "second"):
        (folder / name).mkdir()
    if way == "exchange" and not disk.exchange(folder / "first", folder / "second"):
        pytest.skip("this file system cannot exchange two folders")
    for name in ("first", "second"):
        (folder / name).rmdir()
    if way != "fresh":
        (folder / NAME).mkdir()
        fill(folder / NAME, "old")
    return folder / NAME


def start(writer: str, *arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Start this file as a script."""
    return subprocess.Popen(
        [sys.executable, __file__, writer, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(folders.__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def run(writer: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run this file as a script and wait for its end."""
    with start(writer, *arguments) as child:
        output, errors = child.communicate()
    return subprocess.CompletedProcess(child.args, child.returncode, output, errors)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying_at(step: str) -> Step:
    return lambda name: die() if name == step else None


def killed(target: Path, way: str, step: str) -> None:
    """Write `new`, and be killed at a step."""
    write(target, "new", way, dying_at(step))


def paused(target: Path) -> None:
    """Write, but say each step and wait for a line."""

    def step(name: str) -> None:
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        sys.stdin.readline()

    write(target, "theirs", "fresh", step)


def forking(target: Path) -> None:
    """Write twice; a child that was forked during the first time outlives the second."""
    reading, writing = os.pipe()

    def step(name: str) -> None:
        if name == "created" and os.fork() == 0:
            os.close(writing)
            os.read(reading, 1)
            os._exit(0)

    write(target, "first", "fresh", step)
    write(target, "second", "exchange")
    os.close(writing)
    os.wait()


def killed_at_every_call(target: Path, way: str, first: str) -> None:
    """Kill a writer before its first call of the system, its second, … until it survives.

    It writes `newer` over `old`, or over what a writer of `new` left that was killed at the step
    `first`. After each kill the target is checked, and the next writer. Says the number of kills.
    """
    os.fsync = lambda fd: None
    for call in itertools.count(1):
        shutil.rmtree(target.parent)
        target.parent.mkdir()
        if way != "fresh":
            write(target, "old", way)
        if first:
            forked(lambda: killed(target, way, first))
        finished = forked(lambda call=call: killed_at_call(target, way, call)) == 0  # type: ignore[misc]
        folders.recover(target)
        found = read(target) if target.exists() else "nothing"
        allowed = ("nothing", "newer") if way == "fresh" else ("old", "new", "newer")
        if found not in (("newer",) if finished else allowed):
            raise ValueError(f"{found} after call {call}")
        if finished and names(target.parent) != [NAME]:
            raise ValueError(f"{names(target.parent)} after all calls")
        write(target, "last", way)
        if names(target.parent) != [NAME] or read(target) != "last":
            raise ValueError(f"{names(target.parent)} after call {call} and another writer")
        if finished:
            break
    sys.stdout.write(str(call))


def forked(work: Callable[[], None]) -> int:
    """The exit code of `work` in a process of its own, negative for a signal."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def killed_at_call(target: Path, way: str, call: int) -> None:
    calls = itertools.count(1)

    def hook(event: str, arguments: object) -> None:
        if event.startswith(("open", "os.", "fcntl.", "ctypes.")) and next(calls) == call:
            die()

    sys.addaudithook(hook)
    write(target, "newer", way)


WRITERS: dict[str, Callable[..., None]] = {
    writer.__name__: writer for writer in (killed, paused, forking, killed_at_every_call)
}

if __name__ == "__main__":
    WRITERS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
