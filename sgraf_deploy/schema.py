"""The one codec of files that are read: strict JSON to frozen dataclasses, and back.

`parse` reads JSON and refuses what JSON lets pass, `decode` makes a frozen dataclass of it whose
every field has exactly its type, and `encode` is the inverse. What is wrong is an error of the
document's own class that begins with its path in the JSON, such as
`members.sgr.graphs.fp32.scorer.sha256`. Nothing has a default.
"""

from __future__ import annotations

import json
import math
import re
import types
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sgraf_deploy.errors import InputError

Frozen = TypeVar("Frozen")

INLINE = {"inline": True}
"""Marks a field whose own fields stand in the JSON in its place."""

SHOWN = 80
"""How much of a value, or of a name, a message shows, in characters: a hash fits."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_INTEGER_DIGITS, _NUMBER_LENGTH = 19, 40
"""Of 64 bits; a double that is read back needs 24 characters."""
_SHOWN_ITEMS = 8
_LONGEST = 200
_MOST_BITS = 64
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.?+)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
_WORDS = {str: "a text", int: "an integer", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Document:
    """A kind of file: what it is called, what may be in it, and how it is refused."""

    name: str
    error: type[InputError]
    hint: str | None
    most_bytes: int
    most_depth: int = 32
    """Of objects and lists inside each other."""
    byte_order_mark: bool = False
    """Whether it may begin with one, as editors on Windows write it."""

    def wrong(self, path: str, expected: object, got: object) -> InputError:
        """The error for a value that is not what it must be; `got` is shown shortened."""
        return self.error(path or self.name, expected=expected, got=shown(got), hint=self.hint)

    def missing(self, path: str) -> InputError:
        """The error for a field that is not there."""
        return self.error(f"{path}: missing field", hint=self.hint)

    def unknown(self, path: str) -> InputError:
        """The error for a field that nothing reads."""
        return self.error(f"{path}: unknown field", hint=self.hint)

    def read(self, path: Path) -> bytes:
        """A file's content, of a longer one than may be just too much; raises OSError."""
        with path.open("rb") as file:
            return file.read(self.most_bytes + 1)


def parse(content: bytes | str, document: Document) -> Any:
    """The JSON value of a document.

    Raises its error, from a ValueError, for what is no JSON in UTF-8, too long or too deep; and
    with its path for a field that is there twice, a number that is not finite or of more than 64
    bits, and text with lone surrogates.
    """
    try:
        text = _text(content, document)
        _check_depth(text, document.most_depth)
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=lambda name: _Refused("a finite number", name),
        )
    except ValueError as error:
        expected = f"a {document.name} in UTF-8"
        raise document.error(
            "not valid JSON", expected=expected, got=error, hint=document.hint
        ) from error
    found = _first_refused(value)
    if found is not None:
        path = ""
        for name in found[0]:
            path = join(path, name)
        raise document.error(
            path or document.name,
            expected=found[1].expected,
            got=found[1].got,
            hint=document.hint,
        )
    return value


def decode(kind: type[Frozen], value: object, document: Document) -> Frozen:
    """Read a value that was parsed as a frozen type, every field of exactly its type.

    An integer may stand for a float. Raises the document's error that names the field which is
    missing, unknown or mistyped, or which the type itself refuses with an InputError.
    """
    decoded: Frozen = _decode(kind, value, "", document)
    return decoded


def check_version(value: object, name: str, known: Collection[int], document: Document) -> int:
    """The version that an object of a document says it is of, before its other fields are read.

    Raises the document's error for what is no object, or of none of the known versions.
    """
    if not isinstance(value, dict):
        raise document.wrong("", "an object", value)
    if name not in value:
        raise document.missing(name)
    found = value[name]
    if type(found) is not int or found not in known:
        raise document.wrong(name, " or ".join(map(str, known)), found)
    return found


def encode(value: object) -> Any:
    """The JSON value that `decode` reads back as an equal one."""
    if is_dataclass(value) and not isinstance(value, type):
        encoded: dict[str, Any] = {}
        for part in fields(value):
            inner = encode(getattr(value, part.name))
            encoded |= inner if part.metadata.get("inline") else {part.name: inner}
        return encoded
    if isinstance(value, Mapping):
        return {key: encode(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [encode(item) for item in value]
    return value


def shown(value: object) -> str:
    """A value for a message: as JSON, short, and fit for a terminal."""
    if isinstance(value, dict):
        parts = (f"{_scalar(name)}: {_scalar(item)}" for name, item in value.items())
        return _listed("{", parts, "}")
    if isinstance(value, list | tuple):
        return _listed("[", map(_scalar, value), "]")
    return _scalar(value)


def join(path: str, name: object) -> str:
    """The path of a field, or of a place in a list, below a path."""
    text = str(name) if type(name) is int else name
    if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= SHOWN:
        text = shown(text)
    return f"{path}.{text}" if path else text


def is_text(value: str) -> bool:
    """Whether a string can be written as UTF-8: a lone surrogate is no character."""
    return value.isascii() or _SURROGATE.search(value) is None


@dataclass(frozen=True)
class _Refused:
    """Stands in a parsed value for what JSON lets pass and this does not."""

    expected: str
    got: str


def _text(content: bytes | str, document: Document) -> str:
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    if len(content) > document.most_bytes:
        raise ValueError(f"more than {document.most_bytes} bytes")
    if content.startswith(_BYTE_ORDER_MARK):
        if not document.byte_order_mark:
            raise ValueError("a byte-order mark before it")
        content = content.removeprefix(_BYTE_ORDER_MARK)
    return content.decode("utf-8")


def _check_depth(text: str, most: int) -> None:
    """Before anything is read, so that no reader runs out of its stack."""
    depth = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in "[{":
            depth += 1
            if depth > most:
                what = f"objects and lists more than {most} deep"
                raise json.JSONDecodeError(what, text, found.start())
        elif found[0] in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                found[name] = _Refused("one such field", f"{count} of them")
    return found


def _integer(text: str) -> int | _Refused:
    digits = len(text.lstrip("-"))
    if digits <= _INTEGER_DIGITS and -(2**63) <= (value := int(text)) < 2**63:
        return value
    return _Refused("an integer of 64 bits", f"one of {digits} digits")


def _number(text: str) -> float | _Refused:
    if len(text) > _NUMBER_LENGTH:
        return _Refused(f"a number of at most {_NUMBER_LENGTH} characters", f"{len(text)} of them")
    value = float(text)
    return value if math.isfinite(value) else _Refused("a finite number", text)


def _first_refused(value: Any) -> tuple[list[object], _Refused] | None:
    """The names that lead to the first part of a value that is refused, and why."""
    if isinstance(value, _Refused):
        return [], value
    if isinstance(value, str):
        return None if is_text(value) else ([], _surrogates(value))
    if not isinstance(value, dict | list):
        return None
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(name, str) and not is_text(name):
            return [name], _surrogates(name)
        found = _first_refused(item)
        if found is not None:
            return [name, *found[0]], found[1]
    return None


def _surrogates(value: str) -> _Refused:
    return _Refused("text without lone surrogates", shown(value))


def _decode(kind: Any, value: Any, path: str, document: Document) -> Any:
    """Read `value` as the annotated type `kind`; its type must match exactly."""
    if kind is Any:
        return value
    if is_dataclass(kind):
        _check_object(value, path, _json_names(kind), document)
        return _decode_dataclass(kind, value, path, document)
    origin, args = get_origin(kind), get_args(kind)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise document.wrong(path, "an object", value)
        for key in value:
            _decode(args[0], key, f"{join(path, key)} (field name)", document)
        return {
            key: _decode(args[1], item, join(path, key), document) for key, item in value.items()
        }
    if origin is tuple:
        return _decode_tuple(args, value, path, document)
    return _decode_scalar(kind, value, path, document)


def _decode_tuple(args: tuple[Any, ...], value: Any, path: str, document: Document) -> Any:
    if not isinstance(value, list):
        raise document.wrong(path, "a list", value)
    if args[-1] is Ellipsis:
        args = args[:1] * len(value)
    if len(value) != len(args):
        raise document.wrong(path, f"a list of {len(args)}", value)
    parts = zip(args, value, strict=True)
    return tuple(
        _decode(kind, item, join(path, row), document) for row, (kind, item) in enumerate(parts)
    )


def _decode_scalar(kind: Any, value: Any, path: str, document: Document) -> Any:
    args = get_args(kind)
    if get_origin(kind) is Literal:
        for arg in args:
            if type(value) is type(arg) and value == arg:
                return value
        raise document.wrong(path, " or ".join(map(str, args)), value)
    if get_origin(kind) in (types.UnionType, Union) and types.NoneType in args:
        (kind,) = (arg for arg in args if arg is not types.NoneType)
        return None if value is None else _decode(kind, value, path, document)
    if kind is float and type(value) is int:
        return float(value)
    kinds = args or (kind,)
    if type(value) not in kinds:
        raise document.wrong(path, " or ".join(_WORDS[kind] for kind in kinds), value)
    return value


def _decode_dataclass(kind: Any, value: dict[str, Any], path: str, document: Document) -> Any:
    hints = _hints(kind)
    parts = {
        part.name: _decode_dataclass(hints[part.name], value, path, document)
        if part.metadata.get("inline")
        else _decode(hints[part.name], value[part.name], join(path, part.name), document)
        for part in fields(kind)
    }
    try:
        return kind(**parts)
    except InputError as error:
        # What a type itself refuses begins with the name of the field.
        what, expected, got = map(_fit, (error.what, error.expected, error.got))
        what = f"{path}.{what}" if path else f"{what}"
        hint = error.hint or document.hint
        raise document.error(what, expected=expected, got=got, hint=hint) from error


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _json_names(kind: Any) -> list[str]:
    hints, names = _hints(kind), []
    for part in fields(kind):
        inline = part.metadata.get("inline")
        names += _json_names(hints[part.name]) if inline else [part.name]
    return names


def _check_object(value: object, path: str, names: list[str], document: Document) -> None:
    if not isinstance(value, dict):
        raise document.wrong(path, "an object", value)
    for name in names:
        if name not in value:
            raise document.missing(join(path, name))
    for name in value:
        if name not in names:
            raise document.unknown(join(path, name))


def _fit(value: object) -> str | None:
    """Part of a message that a type made, perhaps of text from the file."""
    if value is None:
        return None
    text = " ".join(str(value).split())
    text = text if text.isprintable() else text.encode("unicode_escape").decode()
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _listed(start: str, parts: Iterable[str], end: str) -> str:
    few = list(islice(parts, _SHOWN_ITEMS + 1))
    more = len(few) > _SHOWN_ITEMS
    text = start + ", ".join(few[:_SHOWN_ITEMS])
    return f"{text[:SHOWN]}…" if more or len(text) >= SHOWN else text + end


def _scalar(value: object) -> str:
    """A value that is no container as JSON, a container by its brackets alone."""
    if isinstance(value, str):
        cut = value[:SHOWN]
        text = json.dumps(cut, ensure_ascii=not cut.isprintable()).replace("\x7f", "\\u007f")
        return text if len(text) <= SHOWN and cut == value else f"{text[:SHOWN]}…"
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, bool | int | float) or value is None:
        return json.dumps(value)
    if isinstance(value, dict):
        return "{…}"
    return "[…]" if isinstance(value, list | tuple) else type(value).__name__
