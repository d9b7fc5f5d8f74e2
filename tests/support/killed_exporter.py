"""Exports in processes of their own, to be killed at will.

Run as a script it reads a job, a line of JSON, and forks a process that does it; it answers with
the exit code, negative for a signal. So torch is imported once for all kills.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from support import staged_writer
from support.staged_writer import die, forked, never

import sgraf_deploy
from sgraf_deploy.bundle.bundle import staged_bundle


@dataclass(frozen=True)
class Job:
    """An export in fp32, killed when it reaches the step for the `turn`-th time."""

    checkpoints: list[str]
    target: str
    step: str = ""
    turn: int = 1
    force: bool = False
    renames: bool = False
    """Replace as on a file system that cannot exchange two folders."""


class Exporters:
    """The script, running; used with `with`."""

    def __init__(self) -> None:
        paths = [Path(sgraf_deploy.__file__).parents[1], Path(staged_writer.__file__).parents[1]]
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, job: Job) -> int:
        """The exit code of the job's process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(job)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # This closes its input, which ends it.
        self._process.communicate()


def export(job: Job) -> None:
    from sgraf_deploy.export import exporter

    turns = 0

    def step(name: str) -> None:
        nonlocal turns
        turns += name == job.step
        if name == job.step and turns == job.turn:
            die()

    if job.renames:
        setattr(exporter, "staged_bundle", partial(staged_bundle, exchange=never))  # noqa: B010
    options = exporter.ExportOptions(precisions=("fp32",), force=job.force)
    exporter.export_bundle([*map(Path, job.checkpoints)], Path(job.target), options, step=step)


def main() -> None:
    # What takes long to import is imported here, once for all that are forked.
    import onnxruntime  # noqa: F401
    import torch

    from sgraf_deploy.data.tokenizer import UNTRAINED, Tokenizer
    from sgraf_deploy.export import exporter  # noqa: F401
    from sgraf_deploy.model import reference  # noqa: F401

    Tokenizer(UNTRAINED)
    # No thread may live here: a forked process has none but the one that forked it.
    torch.set_num_threads(1)
    for line in sys.stdin:
        job = Job(**json.loads(line))
        sys.stdout.write(f"{forked(partial(export, job))}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
