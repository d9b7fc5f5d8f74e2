"""Small folders and files to publish, and writers in processes of their own, to be killed at will.

Run as a script, `staged_writer.py WRITER TARGET …` is one of the functions in `WRITERS`.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import pytest

from sgraf_deploy.errors import BundleError, InputError
from sgraf_deploy.files import disk, folders
from sgraf_deploy.files.folders import EXCHANGE_STEPS, FRESH_STEPS, RENAME_STEPS, Rules
from sgraf_deploy.files.writer import staged_file

NAME = "a+b [1].sgraf"
"""The name of every target: no regular expression, and no pattern for file names."""

WAYS = {"fresh": FRESH_STEPS, "exchange": EXCHANGE_STEPS, "renames": RENAME_STEPS}
"""The ways of publishing, and the steps of each."""

ANY = Rules("bundle", BundleError, lambda folder: None)
"""Every folder may be replaced."""

PATHS = Path(folders.__file__).parents[2], Path(__file__).parents[1]

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
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))},
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


def write_file(target: Path, content: str, step: Step | None = None) -> None:
    with staged_file(target, step=step) as file:
        file.write(content.encode())


def paused_file(target: Path) -> None:
    """Write a file, but say each step and wait for a line."""

    def step(name: str) -> None:
        sys.stdout.write(f"{name}\n")
        sys.stdout.flush()
        sys.stdin.readline()

    write_file(target, "theirs", step)


def file_killed_at_every_call(target: Path) -> None:
    """`killed_at_every_call` for a file: `newer` over `old`."""
    os.fsync = lambda fd: None
    for call in itertools.count(1):
        shutil.rmtree(target.parent)
        target.parent.mkdir()
        write_file(target, "old")
        finished = forked(lambda call=call: file_killed_at_call(target, call)) == 0  # type: ignore[misc]
        if target.read_text() not in (("newer",) if finished else ("old", "newer")):
            raise ValueError(f"{target.read_text()} after call {call}")
        write_file(target, "last")
        if names(target.parent) != [target.name] or target.read_text() != "last":
            raise ValueError(f"{names(target.parent)} after call {call} and another writer")
        if finished:
            break
    sys.stdout.write(str(call))


def file_killed_at_call(target: Path, call: int) -> None:
    calls = itertools.count(1)

    def hook(event: str, arguments: object) -> None:
        if event.startswith(("open", "os.", "fcntl.", "ctypes.")) and next(calls) == call:
            die()

    sys.addaudithook(hook)
    write_file(target, "newer")


def on_a_full_disk(target: Path, kind: str) -> None:
    """Write what does not fit into a file of 64 bytes; says the error's type and text."""
    from sgraf_deploy.errors import SgrafDeployError

    work = large_writer(kind)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
    try:
        work(target)
    except SgrafDeployError as error:
        sys.stdout.write(f"{type(error).__name__} {error}")


def large_writer(kind: str) -> Callable[[Path], None]:
    """Writes more than 64 bytes; what it needs is imported before the disk is full."""
    import numpy as np

    from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
    from sgraf_deploy.files import writer as files

    def npz(target: Path) -> None:
        with staged_file(target) as file:
            np.savez(file, a=np.zeros(1000))

    if kind in ("checkpoint", "reference"):
        return weights_writer(kind)
    return {
        "bytes": lambda target: files.write_file(target, bytes(100_000)),
        "npz": npz,
        "json": lambda target: files.write_json(target, {"a": "b" * 1000}),
        "vocabulary": lambda target: Vocabulary(SPECIAL_WORDS).save(target),
    }[kind]


def weights_writer(kind: str) -> Callable[[Path], None]:
    import torch  # noqa: F401
    from support.random_weights import random_weights
    from support.small_models import SAF

    from sgraf_deploy.model.checkpoint import Checkpoint, write_checkpoint, write_reference

    weights = random_weights(SAF, 0)
    if kind == "reference":
        return lambda target: write_reference(target, weights)
    checkpoint = Checkpoint(SAF, weights, None, None, None, {})
    return lambda target: write_checkpoint(target, checkpoint)


class Forks:
    """This file as a script that does one job after the other, each in a process of its own."""

    def __init__(self) -> None:
        self._process = start("serving", "")

    def run(self, *job: object) -> int:
        """The exit code of one of `JOBS` with its arguments, negative for a signal."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([*map(str, job)]) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # This closes its input, which ends it.
        self._process.communicate()


def serving(_: Path) -> None:
    for line in sys.stdin:
        name, target, *arguments = json.loads(line)
        sys.stdout.write(f"{forked(lambda: JOBS[name](Path(target), *arguments))}\n")  # noqa: B023
        sys.stdout.flush()


def file_job(target: Path, content: str, fate: str) -> None:
    """Write a file, and be killed at a step, find the disk full, or raise."""
    if fate == "full":
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2,) * 2)
    with suppress(InputError), staged_file(target, step=dying_at(fate)) as file:
        file.write(content.encode())
        if fate == "error":
            raise InputError("no")


def folder_job(target: Path, content: str, way: str, fate: str) -> None:
    """Write a folder, and be killed at a step, or finish."""
    write(target, content, way, dying_at(fate))


JOBS: dict[str, Callable[..., None]] = {job.__name__: job for job in (file_job, folder_job)}

WRITERS: dict[str, Callable[..., None]] = {
    writer.__name__: writer
    for writer in (
        *(killed, paused, forking, killed_at_every_call, serving),
        *(paused_file, file_killed_at_every_call, on_a_full_disk),
    )
}

if __name__ == "__main__":
    WRITERS[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
