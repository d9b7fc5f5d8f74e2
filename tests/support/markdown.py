"""The code blocks of a Markdown file, what they say of being run, and how they are run.

A block runs unless the line above it says why not: `<!-- not run: needs a GPU -->`. A command that
must fail has `<!-- exit code: 1 -->` there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.cli_world import run

RUN = ("python", "console")
"""The languages of blocks that are run; `text` is none that could be."""

_FENCE = re.compile(r"^( *)```(\w*)$")
_NOTE = re.compile(r"^<!-- (not run|exit code): (.+) -->$")

ANYTHING = "…"
"""A line of shown output that stands for any lines, and a part of one that stands for any text."""


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its language, its text, and the notes above it by name."""

    path: Path
    line: int
    language: str
    text: str
    notes: dict[str, str]

    def __str__(self) -> str:
        return f"{self.path.name}:{self.line}"

    @property
    def runs(self) -> bool:
        """Whether it is run here."""
        return self.language in RUN and "not run" not in self.notes


@dataclass(frozen=True)
class Command:
    """A command of a `console` block, as one line, and the lines that are shown below it."""

    line: str
    shown: tuple[str, ...]


def blocks(path: Path) -> list[Block]:
    """The fenced blocks of a file, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found, start = [], None
    for number, line in enumerate(lines):
        fence = _FENCE.match(line)
        if fence is None:
            continue
        if start is None:
            start = number
            continue
        text = "\n".join(lines[start + 1 : number])
        opened = _FENCE.match(lines[start])
        language = opened[2] if opened else ""
        found.append(Block(path, start + 1, language, text, dict(_notes(lines, start))))
        start = None
    assert start is None, f"{path.name}:{start} is not closed"
    return found


def _notes(lines: list[str], start: int) -> Iterator[tuple[str, str]]:
    for line in reversed(lines[:start]):
        note = _NOTE.match(line)
        if note is None:
            return
        yield note[1], note[2]


def commands(block: Block) -> list[Command]:
    """The commands of a `console` block: lines that begin with `$`, continued after a backslash."""
    found: list[Command] = []
    for line in block.text.replace("\\\n", " ").splitlines():
        if line.startswith("$ "):
            found.append(Command(" ".join(line[2:].split()), ()))
        else:
            assert found, f"{block}: output before any command"
            found[-1] = Command(found[-1].line, (*found[-1].shown, line))
    return found


def run_block(block: Block, names: dict[str, Any]) -> None:
    """Run a block in the working folder; a `python` block sees and adds to `names`."""
    if block.language == "python":
        exec(compile(block.text, str(block), "exec"), names)
        return
    for command in commands(block):
        program, *arguments = shlex.split(command.line)
        assert program == "sgraf-deploy", f"{block}: {program} cannot be run here"
        result = run(*arguments)
        expected = int(block.notes.get("exit code", 0))
        assert result.exit_code == expected, f"{block}: {command.line}\n{result.output}"
        missing = not_shown(command.shown, result.output)
        assert missing is None, f"{block}: nothing like {missing!r} in\n{result.output}"


def not_shown(shown: tuple[str, ...], output: str) -> str | None:
    """The first shown line that the output lacks after those before it; None if it has all.

    Numbers may be others, and so may be the widths of columns.
    """
    rest = iter([_shape(line) for line in output.splitlines()])
    for line in shown:
        if line.strip() == ANYTHING:
            continue
        pattern = re.escape(_shape(line)).replace(re.escape(ANYTHING), ".*")
        if not any(re.fullmatch(pattern, one) for one in rest):
            return line
    return None


def _shape(line: str) -> str:
    """A line without what differs from run to run: digits, widths, rules of tables."""
    numbers = re.sub(r"[-+]?\d[\d,.]*(e[-+]\d+)?", "0", line)
    return " ".join(re.sub(r"-{3,}", "---", numbers).split())
