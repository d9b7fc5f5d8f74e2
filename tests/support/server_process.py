"""Servers in processes of their own, which are gone after the test."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import httpx

HELD = Path(__file__).with_name("held_server.py")
LONGEST_S = 60.0


class Served:
    """A server's process, and what it prints."""

    def __init__(self, *command: object, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment or None,
        )

    def read(self, beginning: str) -> str:
        """What follows the beginning in the next line that has it."""
        for line in self._output:
            if line.startswith(beginning):
                return line.removeprefix(beginning).strip()
        errors = self.process.stderr.read() if self.process.stderr else ""
        raise AssertionError(f"the server ended before {beginning!r}: {errors}")

    def tell(self, word: str) -> None:
        """Write a line to its standard input."""
        if self.process.stdin is not None:
            self.process.stdin.write(f"{word}\n")
            self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Its exit code, once it has ended, and what it wrote to standard error."""
        _, errors = self.process.communicate(timeout=LONGEST_S)
        return self.process.returncode, errors

    @property
    def _output(self) -> IO[str]:
        if self.process.stdout is None:
            raise AssertionError
        return self.process.stdout


@contextmanager
def served(*command: object, **environment: str) -> Iterator[Served]:
    """Run a server; it is killed if it has not ended by itself."""
    found = Served(*command, **environment)
    try:
        yield found
    finally:
        found.process.kill()
        found.process.communicate()


def until_refused(url: httpx.URL) -> None:
    """Return once nobody listens there any more."""
    end = time.monotonic() + LONGEST_S
    while time.monotonic() < end:
        try:
            socket.create_connection((url.host, url.port or 80), 1.0).close()
        except OSError:
            return
    raise AssertionError(f"{url} still accepts connections")
