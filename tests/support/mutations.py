"""JSON documents changed at one place, as no program writes them, and what tests ask of readers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st

from sgraf_deploy.errors import InputError

T = TypeVar("T")
Path = tuple[str | int, ...]


class Raw(str):
    """JSON text that stands in a document as it is."""

    __slots__ = ()


class Pairs(list[tuple[str, Any]]):
    """An object whose names may repeat."""


EXTREMES = [
    Raw(text)
    for text in (
        *("1e999", "-1e999", "1e400", "NaN", "Infinity", "-Infinity", "1e-999", "-0", "-0.0"),
        *("9" * 400, f"-{'9' * 400}", f"1{'0' * 400}.5", "9" * 5000, f"0.{'1' * 400}"),
        *(str(2**63), str(2**63 - 1), str(-(2**63)), str(-(2**63) - 1), str(2**64), "1e18", "1.0"),
        *("null", "true", "false", "0", "1", "-1", "2", "0.5", "[]", "{}", '""', '"0"', "[[]]"),
        *(
            '"\\ud800"',
            '"\\udfffx"',
            '"a\\u0000b"',
            '"\\u001b[2J"',
            '"\\u202e"',
            '"\\ud83d\\ude00"',
        ),
        *('"../x"', '"/etc/passwd"', '"manifest.json"', f'"{"x" * 100_000}"', '{"": 1}'),
        *('{"\\ud800": 1}', '{"a": 1, "a": 2}', f'{{"{"n" * 1000}": 1e999}}', "[1e999]"),
        *("[" * 40 + "]" * 40, '{"a":' * 40 + "1" + "}" * 40, "[" * 100_000),
        *("nul", "+1", "01", ".5", "1.", "'a'", '"\n"', "// 1", "1 1", "[1,]", "\ud800"),
    )
]
"""What stands for a value, some of it in place of a valid one."""

NAMES = ["more", "", "\ud800", "a\x1b[2J", "n" * 1000, "schema_version", "0", "a.b"]


def dumps(value: Any) -> bytes:
    """As `json.dumps` writes it, but raw text and repeated names as they are."""
    return _dumps(value).encode("utf-8", "surrogatepass")


def _dumps(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict | Pairs):
        items = value.items() if isinstance(value, dict) else value
        return f"{{{', '.join(f'{json.dumps(name)}: {_dumps(item)}' for name, item in items)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_dumps, value))}]"
    return json.dumps(value)


def places(value: Any, path: Path = ()) -> list[Path]:
    """The path of every value in a document, its own first."""
    if not isinstance(value, dict | list):
        return [path]
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


def at(value: Any, path: Path) -> Any:
    for part in path:
        value = value[part]
    return value


class Changed:
    """A changed document, which may be large, and in short what was done to it."""

    def __init__(self, document: Any, said: tuple[str, Path, str]) -> None:
        self.document, self.said = document, said

    def __repr__(self) -> str:
        return f"Changed{self.said}"


@st.composite
def changed(draw: st.DrawFn, valid: Any) -> Changed:
    """A document with one value deleted, repeated, replaced or of another kind, or one more."""
    document = copy.deepcopy(valid)
    all_places = places(valid)
    path = draw(st.sampled_from(all_places))
    other = draw(st.sampled_from([*EXTREMES, *(at(valid, place) for place in all_places[1:30])]))
    action = draw(st.sampled_from(["delete", "repeat", "replace", "retype", "add"]))
    if not path:
        return Changed(other, ("replace", path, repr(other)[:80]))
    parent, key = at(document, path[:-1]), path[-1]
    if action == "delete":
        del parent[key]
    elif action == "replace":
        parent[key] = other
    elif action == "retype":
        retyped = (str, lambda value: [value], lambda value: {"value": value}, lambda value: None)
        other = parent[key] = draw(st.sampled_from(retyped))(parent[key])
    elif isinstance(parent, list):
        parent.append(parent[-1] if action == "repeat" else other)
    elif action == "add":
        parent[draw(st.sampled_from(NAMES))] = other
    else:
        pairs = Pairs([*parent.items(), (str(key), draw(st.sampled_from([parent[key], other])))])
        if len(path) == 1:
            document = pairs
        else:
            at(document, path[:-2])[path[-2]] = pairs
    return Changed(document, (action, path, repr(other)[:80]))


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """A file with a few bytes changed, cut out or put in."""
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.sampled_from([0, 1, 1, 1, 2, 4, 8, 1000])))
        content = content[:start] + draw(st.binary(max_size=stop - start + 2)) + content[stop:]
    return content


class Tried:
    """What is tried in a loop and what of it failed, by name; on leaving all of that is told."""

    def __init__(self) -> None:
        self._count = 0
        self._failed: list[str] = []

    def __enter__(self) -> Tried:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        if kind is not None:
            return
        assert self._count, "nothing was tried"
        if self._failed:
            head = f"{len(self._failed)} of {self._count} failed:"
            pytest.fail("\n".join([head, *self._failed]), pytrace=False)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._count += 1
        try:
            yield
        except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - whatever it is
            reason = " ".join(str(error).split())[:200]
            self._failed.append(f"  {name}: {type(error).__name__}: {reason}")


def read_or_refused(
    read: Callable[[bytes], T], content: bytes, error: type[InputError]
) -> T | None:
    """What a reader makes of a file; None if it refuses it with an error that can be shown."""
    try:
        return read(content)
    except error as caught:
        refusal = caught
    assert type(refusal) is error
    assert refusal.what
    assert len(str(refusal)) < 2000
    assert str(refusal).isprintable(), ascii(str(refusal))
    return None
