"""What reaches the terminal: the one module that writes to standard output and standard error.

A file's name, a caption, a word, a tensor's name or somebody else's exception may hold what a
terminal obeys: an escape sequence, a carriage return, an override of the reading direction. So a
line is printed with all of that escaped, line feeds included: no value can pass for a line of the
program's own. Whoever prints several lines calls `echo` several times.
"""

from __future__ import annotations

import io
import json
import logging
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

import click

if TYPE_CHECKING:
    from sgraf_deploy.progress import Progress

_OBEYED = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0 and C1 controls and DEL
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, overrides and isolates of direction
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ud800-\udfff"  # surrogates alone, which no encoding has: bytes of names that are not UTF-8
    "]"
)


_MINUTE = 60.0
"""Seconds between two lines of progress; what is done sooner has none."""

_SETTLED = 2.0
"""Seconds until the first, so that it is not a guess from the engine's start."""


def escape(text: object) -> str:
    r"""The text with what a terminal would obey, or could not show, as `\n`, `\x1b` or `\u202e`."""
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def echo(line: object = "", *, err: bool = False) -> None:
    """Print one line, escaped, to standard output or standard error."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:  # as in a process without a console
        # Not click.echo: where the encoding is ASCII it writes UTF-8, whose bytes hold C1 controls.
        stream.write(f"{escape(line)}\n")
        stream.flush()


def streams() -> list[TextIO]:
    """Standard output and standard error, where this process has them."""
    return [stream for stream in (sys.stdout, sys.stderr) if stream is not None]


def warn(message: object) -> None:
    """Print a warning to standard error."""
    echo(f"Warning: {message}", err=True)


def echo_json(value: object) -> None:
    """Print a JSON document, whose own escapes keep every value as it is."""
    for line in json.dumps(value, indent=1).split("\n"):
        echo(line)


def echo_error(error: BaseException) -> None:
    """Print where an exception comes from; its lines are indented, as none of the program's is."""
    for line in "".join(traceback.format_exception(error)).rstrip("\n").split("\n"):
        echo(f"  {line}", err=True)


def table(
    rows: Sequence[Sequence[Any]], headers: Sequence[str], right: Sequence[str] = ()
) -> list[str]:
    """The lines of a plain table; columns with a header in `right` end flush.

    A cell is a value, or a tuple of them that stand one below the other.
    """
    from tabulate import tabulate

    align = ["right" if header in right else "left" for header in headers]
    cells = [[_cell(value) for value in row] for row in rows]
    names = [escape(header) for header in headers]
    text = tabulate(cells, headers=names, disable_numparse=True, colalign=align)
    return text.split("\n")


def _cell(value: object) -> str:
    parts = value if isinstance(value, tuple) else (value,)
    return "\n".join(map(escape, parts))


@contextmanager
def progress_bars(
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[str], Progress]]:
    """Give a function from a stage's name to its progress callback, whose output goes to stderr.

    On a terminal that is a bar with a time estimate; elsewhere, as in a log, a line when work that
    will take more than a minute has begun, and one a minute. `clock` is in seconds.
    """
    bars: list[Any] = []
    stream = sys.stderr

    def stage(label: str) -> Progress:
        _finish(bars)
        if stream is None or not stream.isatty():
            return _Lines(label, clock)
        current: list[Any] = []

        def update(done: int, total: int) -> None:
            if not current:
                bar = click.progressbar(
                    length=total, label=f"{escape(label):<18}", file=stream, show_eta=True
                )
                bars.append(bar)
                current.append(bar.__enter__())
            current[0].update(done - current[0].pos)

        return update

    try:
        yield stage
    finally:
        _finish(bars)


class _Lines:
    """Progress where nobody looks at a terminal."""

    def __init__(self, label: str, clock: Callable[[], float]) -> None:
        self._label, self._clock = label, clock
        self._begin = clock()
        self._told: float | None = None

    def __call__(self, done: int, total: int) -> None:
        """Print a line if one is due."""
        now = self._clock()
        spent = now - self._begin
        if not 0 < done < total:
            return
        left = spent * (total - done) / done
        if self._told is None:
            due = spent >= _SETTLED and spent + left >= _MINUTE
        else:
            due = now - self._told >= _MINUTE
        if due:
            self._told = now
            share = f"{done:,} of {total:,} ({done / total:.0%})"
            echo(f"{self._label}: {share}, {duration(left)} left", err=True)


def duration(seconds: float) -> str:
    """A time for people: `about 40 seconds`, `about 9 minutes`, `about 2.5 hours`."""
    if seconds < 1.5 * _MINUTE:
        number = max(1, round(seconds))
        return f"about {number} second{'' if number == 1 else 's'}"
    if seconds < 90 * _MINUTE:
        return f"about {seconds / _MINUTE:.0f} minutes"
    return f"about {seconds / _MINUTE / 60:.1f} hours"


def _finish(bars: list[Any]) -> None:
    while bars:
        bars.pop().__exit__(None, None, None)


def show_any_text() -> None:
    """Let a terminal whose encoding lacks a character show its number, not a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Messages(logging.Handler):
    """Prints what is logged: a warning as a command's own are, the rest by its level."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record, and below it the exception that it was logged with."""
        with suppress(OSError):  # nobody reads standard error; that must not end the work
            echo(f"{record.levelname.capitalize()}: {_message(record)}", err=True)
            if record.exc_info and record.exc_info[1] is not None:
                echo_error(record.exc_info[1])


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # somebody's arguments do not fit somebody's format
        return str(record.msg)


@contextmanager
def shown_messages(*, verbose: bool) -> Iterator[None]:
    """Show what is logged, from warnings up or all of it, and Python's warnings, once each."""
    root, handler = logging.getLogger(), _Messages()
    level, show = root.level, warnings.showwarning
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else logging.WARNING)
    warnings.showwarning = lambda message, category, *_, **__: warn(
        f"{category.__name__}: {message}"
    )
    try:
        yield
    finally:
        warnings.showwarning = show
        root.setLevel(level)
        root.removeHandler(handler)
