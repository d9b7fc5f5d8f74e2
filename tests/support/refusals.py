"""What tests assert of an error: its type, its fields, and the names in them; never its wording.

A name is what the program itself defines or was given: a path, an option, a field of a file, an
environment variable, a command, a number. `tests/support/messages.txt` alone holds sentences.
"""

from __future__ import annotations

import logging
import re
from typing import Any

import pytest

from sgraf_deploy.errors import SgrafDeployError

ANY: Any = object()
"""A field that may hold anything."""


class naming:  # noqa: N801  # reads as a value does
    """A field that is a sentence, of which only the names in it count; it may be any sentence."""

    def __init__(self, *names: object) -> None:
        self.names = names

    def __repr__(self) -> str:
        return f"naming({', '.join(map(repr, self.names))})"  # the id of a test's parameter

    def check(self, field: str, value: object) -> None:
        """The field is there, and every name stands in it."""
        assert value is not None, field
        for name in self.names:
            assert holds(str(value), name), f"{name!r} is not named in {field} {value!r}"


class refused:  # noqa: N801  # reads as `pytest.raises` does
    """Within it an error of exactly this kind is raised, of which `check_error` holds.

    Once the block has ended, `error` is that error.
    """

    error: SgrafDeployError

    def __init__(
        self,
        kind: type[SgrafDeployError],
        *names: object,
        expected: object = ANY,
        got: object = ANY,
        hint: object = ANY,
    ) -> None:
        self._kind, self._names = kind, names
        self._fields = {"expected": expected, "got": got, "hint": hint}

    def __enter__(self) -> refused:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> bool:
        assert error is not None, f"no {self._kind.__name__} was raised"
        if type(error) is not self._kind:
            return False
        self.error = error
        check_error(error, *self._names, **self._fields)
        return True


def check_error(
    error: SgrafDeployError,
    *names: object,
    expected: object = ANY,
    got: object = ANY,
    hint: object = ANY,
) -> None:
    """Every name stands in what is wrong, and the fields are as given.

    `expected` and `got` are compared as text, so that 3 and "3" are alike, or are `naming`. `hint`
    is a name that stands in what puts it right, or None where nothing does; a list is several
    names, and `naming()` a hint that names nothing.
    """
    naming(*names).check("what", error.what)
    for field, wanted, value in (("expected", expected, error.expected), ("got", got, error.got)):
        if isinstance(wanted, naming):
            wanted.check(field, value)
        elif wanted is not ANY:
            assert _text(value) == _text(wanted), field
    if hint is None:
        assert error.hint is None
    elif hint is not ANY:
        hints = hint if isinstance(hint, list) else [hint]
        (hint if isinstance(hint, naming) else naming(*hints)).check("hint", error.hint)


def place(error: SgrafDeployError) -> str:
    """The path of a field in a document, which is what an error about it begins with."""
    return re.split("[: ]", error.what, maxsplit=1)[0]


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The warnings that were logged."""
    return [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]


def is_number(value: object) -> bool:
    """Whether a field holds a number and nothing else, as a value that was measured does."""
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def holds(text: str, name: object) -> bool:
    """Whether a name stands in a text, not as a part of a longer word or number."""
    whole = re.escape(str(name))
    before = r"(?<!\w)" if re.match(r"\w", str(name)) else ""
    after = r"(?!-?\w)" if re.search(r"\w$", str(name)) else ""
    if re.match(r"\d", str(name)):
        before += r"(?<!\d[.,])"
    if re.search(r"\d$", str(name)):
        after += r"(?![.,]\d)"
    return re.search(before + whole + after, text) is not None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
