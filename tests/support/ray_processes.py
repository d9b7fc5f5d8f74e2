"""The processes of a Ray cluster, found by the folder of its session."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

LONGEST_S = 60.0


def processes_of(folder: Path) -> dict[int, str]:
    """The command lines of a cluster's processes, but this one, by their ids: raylets, the GCS and
    every worker, whose command line or environment names the cluster's folder."""
    found = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or int(process.name) == os.getpid():
            continue
        try:
            command = (process / "cmdline").read_bytes()
            environment = (process / "environ").read_bytes()
        except OSError:
            continue  # it has ended, or is another user's
        named = f"RAY_TMPDIR={folder}\0".encode() in environment
        if named or f"{folder}/".encode() in command:
            found[int(process.name)] = command.replace(b"\0", b" ").decode(errors="replace")
    return found


def left_of(folder: Path) -> dict[int, str]:
    """The processes of a cluster that are still there once it has had its time to end."""
    end = time.monotonic() + LONGEST_S
    while (found := processes_of(folder)) and time.monotonic() < end:
        pass
    return found


def listening_of(folder: Path) -> set[tuple[str, int]]:
    """The addresses and ports at which the processes of a cluster listen."""
    import psutil
    import ray  # noqa: F401  # it brings psutil along

    found = set()
    for process in processes_of(folder):
        with suppress(psutil.NoSuchProcess):
            for one in psutil.Process(process).net_connections("inet"):
                if one.status == psutil.CONN_LISTEN:
                    found.add((one.laddr.ip.removeprefix("::ffff:"), one.laddr.port))
    return found
