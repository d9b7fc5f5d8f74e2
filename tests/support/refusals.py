"""What tests assert of an error: its type, its fields, and the names in them; never its wording.

A name is what the program itself defines or was given: a path, an option, a field of a file, an
environment variable, a command, a number. `tests/support/messages.txt` alone holds sentences.
"""

from __future__ import annotations

import re
from typing import Any

from sgraf_deploy.errors import SgrafDeployError

ANY: Any = object()
"""A field that may hold anything."""


class naming:  # noqa: N801  # stands in a call like a word
    """In place of an `expected` or `got` that is a sentence: the names that stand in it."""

    def __init__(self, *names: object) -> None:
        self.names = names


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

    `expected` and `got` are compared as text, so that 3 and "3" are alike; with `naming` names
    are looked for in them. `hint` is a name that stands in what puts it right, or None where
    nothing does; a list is several names.
    """
    for name in names:
        assert holds(error.what, name), f"{name!r} is not named in {error.what!r}"
    for field, wanted, value in (("expected", expected, error.expected), ("got", got, error.got)):
        if isinstance(wanted, naming):
            for name in wanted.names:
                assert holds(str(value), name), f"{name!r} is not named in {field} {value!r}"
        elif wanted is not ANY:
            assert _text(value) == _text(wanted), field
    if hint is None:
        assert error.mend is None
    elif hint is not ANY:
        assert error.mend is not None
        for name in hint if isinstance(hint, list) else [hint]:
            assert holds(error.mend, name), f"{name!r} is not named in {error.mend!r}"


def place(error: SgrafDeployError) -> str:
    """The path of a field in a document, which is what an error about it begins with."""
    return re.split("[: ]", error.what, maxsplit=1)[0]


def holds(text: str, name: object) -> bool:
    """Whether a name stands in a text, not as a part of a longer word or number."""
    whole = re.escape(str(name))
    before = r"(?<![\w])" if re.match(r"\w", str(name)) else ""
    after = r"(?!-?\w)" if re.search(r"\w$", str(name)) else ""
    return re.search(before + whole + after, text) is not None


def _text(value: object) -> str | None:
    return None if value is None else str(value)
