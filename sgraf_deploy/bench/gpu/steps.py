"""What a step is: a command of its own, how long it may take, and what it waits for."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from sgraf_deploy.errors import InputError

MOST_SECONDS = 540
"""No step may take longer: lent machines end a command after ten minutes."""

PYTHON = "python"


@dataclass(frozen=True)
class Step:
    """One command, run in a process of its own.

    `words` begin with a program; `python` is the interpreter that runs this. `requires` names what
    `machine.missing` is asked about, `needs` other steps that must have ended well. `makes` is what
    the step leaves for others: without it the step is run again. The command writes its result, as
    JSON, to `report`. `kind`, `module`, `engine` and `gib` are what `bounds` looks for.
    """

    name: str
    kind: str
    words: tuple[str, ...]
    seconds: int
    requires: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    makes: Path | None = None
    report: Path | None = None
    module: str | None = None
    engine: str | None = None
    gib: int | None = None
    environment: tuple[tuple[str, str], ...] = ()
    missed_exit: int | None = None
    """The exit code of a program that says so where it has found what it looks for; a step that
    reports says it with 1."""

    @property
    def command(self) -> list[str]:
        """What is executed."""
        return [sys.executable if word == PYTHON else word for word in self.words]

    @property
    def shown(self) -> str:
        """The command for people, folders of this machine reduced to their names."""
        settings = [f"{name}={value}" for name, value in self.environment]
        return " ".join([*settings, shown_command(self.words)])


def shown_command(words: Iterable[str]) -> str:
    """A command line in which every path is reduced to its name."""
    return shlex.join(Path(word).name if "/" in word else word for word in words)


def select(steps: list[Step], patterns: Collection[str]) -> list[Step]:
    """The steps that a pattern names (`speed-*`), with those that they need, in order.

    Without patterns all of them. Raises InputError for a pattern that names none.
    """
    if not patterns:
        return steps
    by_name = {step.name: step for step in steps}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in by_name):
            raise InputError(
                f"--only {pattern}",
                expected="the name of a step",
                got="none of that name",
                hint="--dry-run lists them",
            )
    waiting = [name for name in by_name if any(fnmatchcase(name, one) for one in patterns)]
    chosen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name not in chosen:
            chosen.add(name)
            waiting.extend(by_name[name].needs)
    return [step for step in steps if step.name in chosen]
