"""Runs one command within a time limit; when that is over, or we end, its children end with it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

from sgraf_deploy.bench.gpu.unpack import SPARE
from sgraf_deploy.errors import UnavailableError

ERROR_LINES = 12
"""Of what a failed command wrote to standard error, its end."""

_TERMINATED = 128 + signal.SIGTERM
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ended:
    """How a command ended; `exit` is None where its time was up, negative after a signal."""

    exit: int | None
    seconds: float
    stdout: str = ""
    stderr: str = ""

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The end of standard error, without blank lines."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return tuple(lines[-ERROR_LINES:])


class Runner(Protocol):
    """Runs a command; a test's may do anything else."""

    def __call__(
        self, command: Sequence[str], seconds: float, environment: Mapping[str, str]
    ) -> Ended:
        """Run it, for at most so many seconds, with these variables besides our own.

        Raises UnavailableError where there is no such program.
        """


def run_command(command: Sequence[str], seconds: float, environment: Mapping[str, str]) -> Ended:
    """See `Runner`. The command is a process group of its own, which ends as a whole.

    No session: what a session leaves running outlives the command that a lent machine ran.
    """
    start = time.monotonic()
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **environment},
            process_group=0,
            # It calls one function that was loaded before, and this process has no other thread.
            preexec_fn=_end_with_parent(),  # noqa: PLW1509
        )
    except OSError as error:
        raise UnavailableError(f"{command[0]} cannot be run", got=error.strerror) from error
    with _ended_with_us(process):
        try:
            stdout, stderr = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            _end(process)
            stdout, stderr = process.communicate()
            return Ended(None, time.monotonic() - start, stdout, stderr)
    return Ended(process.returncode, time.monotonic() - start, stdout, stderr)


def _end_with_parent() -> Callable[[], object] | None:
    """What a child calls so that Linux ends it with us, even if we are killed; None elsewhere."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@contextmanager
def _ended_with_us(process: subprocess.Popen[str]) -> Iterator[None]:
    """End the group when the block is left by an exception, SIGTERM's included."""

    def terminate(_: int, __: FrameType | None) -> None:
        sys.exit(_TERMINATED)

    before = None
    with suppress(ValueError):  # only the main thread hears signals
        before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except BaseException:
        _end(process)
        process.communicate()
        raise
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _end(process: subprocess.Popen[str]) -> None:
    with suppress(ProcessLookupError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)


def environment_of(packages: Path) -> dict[str, str]:
    """What every step gets: this package, packages that were prepared, and CUDA's own programs.

    Of the modules that were taken along in case, those that Python does not find here.
    """
    spares = sorted((packages.parent / SPARE).glob("*"))
    lacking = [str(spare) for spare in spares if importlib.util.find_spec(spare.name) is None]
    paths = [str(packages), *filter(None, sys.path), *lacking]
    programs = [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join(filter(None, programs)),
        "PYTHONUNBUFFERED": "1",
    }
