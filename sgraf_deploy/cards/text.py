"""Texts of other people in YAML and in Markdown: they stay texts, whatever they hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

LONGEST = 120
"""Characters of a text that a card shows."""

_LAST_OF_16_BITS = 0xFFFF
_MARKS = frozenset("\\`*_{}[]()#!|~$@:")


def markdown(value: object) -> str:
    """A value as Markdown that shows its text, on one line, without links, markup or HTML."""
    text = printable(value)
    escaped = "".join(f"\\{one}" if one in _MARKS else one for one in text)
    for one, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("www.", "www\\.")):
        escaped = escaped.replace(one, entity)
    return escaped


def printable(value: object) -> str:
    """A value as one line of printable characters, shortened."""
    text = "".join(one if one.isprintable() else "\ufffd" for one in " ".join(str(value).split()))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """A table in Markdown; the cells are Markdown, in which a `|` must be escaped."""
    for row in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(map(str, row))} |"


def yaml_lines(value: Mapping[str, Any], indent: str = "") -> Iterator[str]:
    """A mapping as lines of YAML: of mappings, lists, texts, numbers; what is None is left out."""
    for name, item in value.items():
        if item is None:
            continue
        if isinstance(item, Mapping):
            yield f"{indent}{name}:"
            yield from yaml_lines(item, f"{indent}  ")
        elif isinstance(item, Sequence) and not isinstance(item, str):
            yield f"{indent}{name}:"
            for one in item:
                yield from _item(one, f"{indent}  ")
        else:
            yield f"{indent}{name}: {_scalar(item)}"


def _item(item: Any, indent: str) -> Iterator[str]:
    """One item of a list, whose first line begins with a dash."""
    if not isinstance(item, Mapping):
        yield f"{indent}- {_scalar(item)}"
        return
    first, *rest = yaml_lines(item, f"{indent}  ")
    yield f"{indent}- {first.lstrip()}"
    yield from rest


def _scalar(value: str | int | float) -> str:
    """A number; or a text in double quotes, as JSON has it but for characters of two surrogates."""
    if not isinstance(value, str):
        return json.dumps(value, allow_nan=False)
    escaped = (
        f"\\U{ord(one):08x}" if ord(one) > _LAST_OF_16_BITS else json.dumps(one)[1:-1]
        for one in printable(value)
    )
    return f'"{"".join(escaped)}"'
