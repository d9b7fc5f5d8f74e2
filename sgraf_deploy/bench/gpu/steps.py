"""A step: a command, its time limit, and the steps and programs that it needs."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from sgraf_deploy.errors import InputError

MOST_SECONDS = 540
"""The longest time limit of a step: some machines end a command after ten minutes."""

PYTHON = "python"


@dataclass(frozen=True)
class Step:
    """One command, run in a process of its own.

    `words` begin with a program; `python` stands for the running interpreter. `requires` has names
    that must not be in the machine's `missing`, `needs` other steps that must have succeeded.
    `makes` is the path that the step writes for others; if it is gone, the step is run again. The
    command writes its result as JSON to `report`. `bounds` selects steps by `kind`, `module`,
    `engine` and `gib`.
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
    """The exit code of a program that found an error; for a step with a report that is 1."""

    @property
    def command(self) -> list[str]:
        """The command line to execute."""
        return [sys.executable if word == PYTHON else word for word in self.words]

    @property
    def shown(self) -> str:
        """The command as text, with paths reduced to their names."""
        settings = [f"{name}={value}" for name, value in self.environment]
        return " ".join([*settings, shown_command(self.words)])


def shown_command(words: Iterable[str]) -> str:
    """A command line in which every path is reduced to its name."""
    return shlex.join(Path(word).name if "/" in word else word for word in words)


def select(steps: list[Step], patterns: Collection[str]) -> list[Step]:
    """The steps that a pattern such as `speed-*` matches, with those that they need, in order.

    Without patterns, all steps. Raises InputError for a pattern that matches none.
    """
    if not patterns:
        return steps
    by_name = {step.name: step for step in steps}
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in by_name):
            raise InputError(
                f"--only {pattern}",
                expected="the name of a step",
                got="a pattern that matches no step",
                hint="use --dry-run to list the steps",
            )
    queue = [name for name in by_name if any(fnmatchcase(name, pattern) for pattern in patterns)]
    chosen: set[str] = set()
    while queue:
        name = queue.pop()
        if name not in chosen:
            chosen.add(name)
            queue.extend(by_name[name].needs)
    return [step for step in steps if step.name in chosen]
