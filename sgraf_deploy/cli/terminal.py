"""Terminal output: the only module that writes to standard output and standard error.

A file name, a caption, a word, a tensor name or a third-party exception may contain control
characters that a terminal obeys: an escape sequence, a carriage return, an override of the reading
direction. Every line is therefore printed with all of these escaped, line feeds included, so that
no value can pass for a line of the program. To print several lines, call `echo` several times.
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
    from sgraf_deploy.progress import Bars, Progress

_OBEYED = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0 and C1 controls and DEL
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks, overrides and isolates of direction
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ud800-\udfff"  # lone surrogates, which stand for bytes of names that are not UTF-8
    "]"
)

_PILLOW = r"(PIL|pillow_heif)\b"
"""The names of Pillow's modules and loggers, and of the package that reads HEIC for it."""

_MINUTE = 60.0
"""Seconds between two lines of progress; work that takes less prints none."""

_SETTLED = 2.0
"""Seconds before the first line of progress, so that start-up does not distort its estimate."""


def escape(text: object) -> str:
    r"""The text with characters that a terminal obeys or cannot show escaped: `\n`, `\x1b` …"""
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))


def echo(line: object = "", *, err: bool = False) -> None:
    """Print one line, escaped, to standard output or standard error."""
    stream = sys.stderr if err else sys.stdout
    if stream is not None:  # it is None in a process without a console
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
    """Print a JSON document; JSON's escapes keep its values unchanged."""
    for line in json.dumps(value, indent=1).split("\n"):
        echo(line)


def echo_error(error: BaseException) -> None:
    """Print an exception's traceback, indented to set it apart from the program's messages."""
    for line in "".join(traceback.format_exception(error)).rstrip("\n").split("\n"):
        echo(f"  {line}", err=True)


def table(
    rows: Sequence[Sequence[Any]], headers: Sequence[str], right: Sequence[str] = ()
) -> list[str]:
    """The lines of a plain table; columns whose header is in `right` are aligned to the right.

    A cell is a value, or a tuple of values that are printed one below the other.
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
) -> Iterator[Bars]:
    """Yield a function from a stage's name to its progress callback, which prints to stderr.

    On a terminal that is a bar with a time estimate. Elsewhere, for instance in a log, work that
    will take more than a minute prints a line soon after it begins, and then one line a minute.
    With a unit both say how many of it there are a second. `clock` gives seconds.
    """
    bars: list[Any] = []
    stream = sys.stderr

    def stage(label: str, unit: str | None = None) -> Progress:
        _finish(bars)
        rate = _Rate(unit, clock)
        if stream is None or not stream.isatty():
            return _Lines(label, clock, rate)
        current: list[Any] = []

        def update(done: int, total: int) -> None:
            if not current:
                bar = click.progressbar(
                    length=total,
                    label=f"{escape(label):<18}",
                    file=stream,
                    show_eta=True,
                    item_show_func=lambda shown: shown,
                )
                bars.append(bar)
                current.append(bar.__enter__())
            current[0].update(done - current[0].pos, rate.of(done) or None)

        return update

    try:
        yield stage
    finally:
        _finish(bars)


class _Rate:
    """How many units there are a second, since the first time that was told of."""

    def __init__(self, unit: str | None, clock: Callable[[], float]) -> None:
        self._unit, self._clock = unit, clock
        self._first: tuple[int, float] | None = None

    def of(self, done: int) -> str:
        """The rate as text, empty without a unit and as long as nothing can be said."""
        now = self._clock()
        if self._first is None:
            self._first = done, now
        units, seconds = done - self._first[0], now - self._first[1]
        if self._unit is None or units <= 0 or seconds <= 0:
            return ""
        return f"{units / seconds:,.1f} {self._unit}/s"


class _Lines:
    """Progress as lines of text, for an output that is not a terminal."""

    def __init__(self, label: str, clock: Callable[[], float], rate: _Rate) -> None:
        self._label, self._clock, self._rate = label, clock, rate
        self._begin = clock()
        self._last: float | None = None

    def __call__(self, done: int, total: int) -> None:
        """Print a line if one is due."""
        now = self._clock()
        spent = now - self._begin
        rate = self._rate.of(done)
        if not 0 < done < total:
            return
        left = spent * (total - done) / done
        if self._last is None:
            due = spent >= _SETTLED and spent + left >= _MINUTE
        else:
            due = now - self._last >= _MINUTE
        if due:
            self._last = now
            share = f"{done:,} of {total:,} ({done / total:.0%})"
            speed = f", {rate}" if rate else ""
            echo(f"{self._label}: {share}, {duration(left)} left{speed}", err=True)


def duration(seconds: float) -> str:
    """Seconds as text: `about 40 seconds`, `about 9 minutes`, `about 2.5 hours`."""
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
    """Print the code of a character that the terminal's encoding lacks, in place of a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Messages(logging.Handler):
    """Prints log records, each with its level; warnings look like those of the commands."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record, and below it the exception that it was logged with."""
        with suppress(OSError):  # a standard error that nobody reads must not end the work
            echo(f"{record.levelname.capitalize()}: {_message(record)}", err=True)
            if record.exc_info and record.exc_info[1] is not None:
                echo_error(record.exc_info[1])


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError):  # the record's arguments do not fit its format
        return str(record.msg)


@contextmanager
def shown_messages(*, verbose: bool) -> Iterator[None]:
    """Print log records, from warnings up or all of them, and Python's warnings, once each.

    Pillow's own are left out: of a photograph, an error says what is wrong, or it is read.
    """
    root, handler = logging.getLogger(), _Messages()
    level = root.level
    handler.addFilter(lambda record: not re.match(_PILLOW, record.name))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if verbose else logging.WARNING)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=_PILLOW)
        warnings.showwarning = lambda message, category, *_, **__: warn(
            f"{category.__name__}: {message}"
        )
        try:
            yield
        finally:
            root.setLevel(level)
            root.removeHandler(handler)
