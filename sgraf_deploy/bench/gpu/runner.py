"""Runs one command with a time limit, and ends its children with it or with this process."""

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
"""The number of last lines that are kept of a failed command's standard error."""

_TERMINATED = 128 + signal.SIGTERM
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Ended:
    """How a command ended; `exit` is None after its time limit, and negative after a signal."""

    exit: int | None
    seconds: float
    stdout: str = ""
    stderr: str = ""

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines of standard error, without blank lines."""
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        return tuple(lines[-ERROR_LINES:])


class Runner(Protocol):
    """Runs a command; tests replace it."""

    def __call__(
        self, command: Sequence[str], seconds: float, environment: Mapping[str, str]
    ) -> Ended:
        """Run it for at most `seconds`, with these variables added to this process's.

        Raises UnavailableError if the program cannot be run.
        """


def run_command(command: Sequence[str], seconds: float, environment: Mapping[str, str]) -> Ended:
    """See `Runner`. The command is a process group of its own, which is ended as a whole.

    It is not a session of its own, because processes of a session could outlive this one.
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
            # It calls a single function that is already loaded, and there is no other thread.
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
    """A call for the child that makes Linux end it with its parent, even a killed one; or None."""
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
    with suppress(ValueError):  # only the main thread can handle signals
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
    """The environment of every step: this package, prepared packages, and CUDA's programs.

    Of the spare packages, it has those that are not installed here.
    """
    spares = sorted((packages.parent / SPARE).glob("*"))
    missing = [str(spare) for spare in spares if importlib.util.find_spec(spare.name) is None]
    paths = [str(packages), *filter(None, sys.path), *missing]
    programs = [os.environ.get("PATH", ""), "/usr/local/cuda/bin"]
    return {
        "PYTHONPATH": os.pathsep.join(paths),
        "PATH": os.pathsep.join(filter(None, programs)),
        "PYTHONUNBUFFERED": "1",
    }
