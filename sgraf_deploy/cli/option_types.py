"""Kinds of numbers and texts that options take, each within what the program can do."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from typing import Any

import click

from sgraf_deploy.config import MOST_THREADS

THREADS = click.IntRange(1, MOST_THREADS)

_BYTES = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([kMGT]B)?", re.IGNORECASE)
_SCALES = {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_MOST_BYTES = 2**63 - 1
"""What a file can have, and a library of the system is told in an integer."""


def byte_count(_: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """A number of bytes, such as 500000 or 20GB; InputError for another text."""
    from sgraf_deploy.errors import InputError

    match = None if value is None else _BYTES.fullmatch(value.strip())
    if value is None:
        return None
    found = int(Decimal(match[1]) * _SCALES.get((match[2] or "").lower(), 1)) if match else 0
    if not 1 <= found <= _MOST_BYTES:
        expected = "a number of bytes, such as 500000 or 20GB"
        raise InputError(option.opts[0], expected=expected, got=value)
    return found


class FiniteRange(click.FloatRange):
    """A range of floats without NaN, of which no comparison holds, and without infinity."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; UsageError for one that is not finite or out of range."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


def unicode_text(_: click.Context, option: click.Parameter, value: str | None) -> str | None:
    """The callback of a text; InputError for bytes that are no UTF-8, which no file can hold."""
    from sgraf_deploy.errors import InputError
    from sgraf_deploy.schema import is_text

    if value is not None and not is_text(value):
        raise InputError(option.opts[0], expected="text in UTF-8", got=ascii(value))
    return value
