"""The only codec of files that are read: strict JSON to frozen dataclasses, and back.

`parse` reads JSON more strictly than Python does, `decode` makes a frozen dataclass of it in which
every field has exactly its type, and `encode` is the inverse. A defect raises the document's error
class with a message that begins with the path in the JSON, such as
`members.sgr.graphs.fp32.scorer.sha256`. No field has a default.
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
"""Marks a field that is replaced in the JSON by the fields of its value."""

SHOWN = 80
"""The number of characters of a value or a name that a message shows; a hash fits."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_INTEGER_DIGITS, _NUMBER_LENGTH = 19, 40
"""Most digits of an integer of 64 bits, and most characters of a number; a double needs 24."""
_SHOWN_ITEMS = 8
_LONGEST = 200
_MOST_BITS = 64
_SURROGATE = re.compile("[\ud800-\udfff]")
_STRING_OR_BRACKET = re.compile(r'"(?:[^"\\]++|\\.?+)*+(?:"|\Z)|[\[\]{}]', re.DOTALL)
_WORDS = {str: "a text", int: "an integer", float: "a number", bool: "true or false"}


@dataclass(frozen=True)
class Document:
    """A kind of file: its name, its limits, and the error and hint that refuse it."""

    name: str
    error: type[InputError]
    hint: str | None
    most_bytes: int
    most_depth: int = 32
    """The deepest nesting of objects and lists."""
    byte_order_mark: bool = False
    """Whether the file may begin with a byte-order mark, which editors on Windows write."""

    def wrong(self, path: str, expected: object, got: object) -> InputError:
        """The error for an invalid value; the message shows `got` shortened."""
        return self.error(path or self.name, expected=expected, got=shown(got), hint=self.hint)

    def missing(self, path: str) -> InputError:
        """The error for a missing field."""
        return self.error(f"{path}: missing field", hint=self.hint)

    def unknown(self, path: str) -> InputError:
        """The error for an unknown field."""
        return self.error(f"{path}: unknown field", hint=self.hint)

    def read(self, path: Path) -> bytes:
        """A file's content, or one byte more than `most_bytes` of a longer file; raises OSError."""
        with path.open("rb") as file:
            return file.read(self.most_bytes + 1)


class Excerpt:
    """The base of a frozen dataclass that reads a part of an object: other fields are left out."""


def parse(content: bytes | str, document: Document) -> Any:
    """The JSON value of a document.

    Raises the document's error, from a ValueError, for content that is not JSON in UTF-8, too long
    or too deep; and, with its path, for a repeated field, a number that is not finite or has more
    than 64 bits, and text with lone surrogates.
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
    refused = _first_refused(value)
    if refused is not None:
        names, reason = refused
        path = ""
        for name in names:
            path = join(path, name)
        raise document.error(
            path or document.name,
            expected=reason.expected,
            got=reason.got,
            hint=document.hint,
        )
    return value


def decode(kind: type[Frozen], value: object, document: Document) -> Frozen:
    """Read a parsed value as a frozen type, in which every field has exactly its type.

    An integer may stand for a float. Raises the document's error, which names a field that is
    missing, unknown or mistyped, or that the type itself refuses with an InputError.
    """
    decoded: Frozen = _decode(kind, value, "", document)
    return decoded


def check_version(value: object, name: str, known: Collection[int], document: Document) -> int:
    """The version in the field `name` of a document's object, before other fields are read.

    Raises the document's error for a value that is not an object or has no known version.
    """
    if not isinstance(value, dict):
        raise document.wrong("", "an object", value)
    if name not in value:
        raise document.missing(name)
    version = value[name]
    if type(version) is not int or version not in known:
        raise document.wrong(name, " or ".join(map(str, known)), version)
    return version


def encode(value: object) -> Any:
    """The JSON value from which `decode` reads an equal value."""
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
    """A value for a message: as JSON, shortened, and safe for a terminal."""
    if isinstance(value, dict):
        parts = (f"{_scalar(name)}: {_scalar(item)}" for name, item in value.items())
        return _listed("{", parts, "}")
    if isinstance(value, list | tuple):
        return _listed("[", map(_scalar, value), "]")
    return _scalar(value)


def join(path: str, name: object) -> str:
    """The path of a field, or of an index of a list, below a path."""
    text = str(name) if type(name) is int else name
    if not isinstance(text, str) or not text.isprintable() or not 0 < len(text) <= SHOWN:
        text = shown(text)
    return f"{path}.{text}" if path else text


def is_text(value: str) -> bool:
    """Whether a string can be encoded as UTF-8: it must not contain lone surrogates."""
    return value.isascii() or _SURROGATE.search(value) is None


@dataclass(frozen=True)
class _Refused:
    """A placeholder in a parsed value for a part that JSON allows but this codec refuses."""

    expected: str
    got: str


def _text(content: bytes | str, document: Document) -> str:
    if isinstance(content, str):
        content = content.encode("utf-8", "surrogatepass")
    if len(content) > document.most_bytes:
        raise ValueError(f"more than {document.most_bytes} bytes")
    if content.startswith(_BYTE_ORDER_MARK):
        if not document.byte_order_mark:
            raise ValueError("a byte-order mark at the beginning")
        content = content.removeprefix(_BYTE_ORDER_MARK)
    return content.decode("utf-8")


def _check_depth(text: str, most: int) -> None:
    """Check the nesting before the text is parsed, so that the parser's stack is not exhausted."""
    depth = 0
    for match in _STRING_OR_BRACKET.finditer(text):
        if match[0] in "[{":
            depth += 1
            if depth > most:
                what = f"objects and lists nested more than {most} deep"
                raise json.JSONDecodeError(what, text, match.start())
        elif match[0] in "]}":
            depth -= 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        for name, count in Counter(name for name, _ in pairs).items():
            if count > 1:
                value[name] = _Refused("one such field", f"{count} of them")
    return value


def _integer(text: str) -> int | _Refused:
    digits = len(text.lstrip("-"))
    if digits <= _INTEGER_DIGITS and -(2**63) <= (value := int(text)) < 2**63:
        return value
    return _Refused("an integer of 64 bits", f"an integer of {digits} digits")


def _number(text: str) -> float | _Refused:
    if len(text) > _NUMBER_LENGTH:
        most = f"a number of at most {_NUMBER_LENGTH} characters"
        return _Refused(most, f"{len(text)} characters")
    value = float(text)
    return value if math.isfinite(value) else _Refused("a finite number", text)


def _first_refused(value: Any) -> tuple[list[object], _Refused] | None:
    """The path, as names, of the first part of a value that is refused, and the reason."""
    if isinstance(value, _Refused):
        return [], value
    if isinstance(value, str):
        return None if is_text(value) else ([], _surrogates(value))
    if not isinstance(value, dict | list):
        return None
    for name, item in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(name, str) and not is_text(name):
            return [name], _surrogates(name)
        refused = _first_refused(item)
        if refused is not None:
            names, reason = refused
            return [name, *names], reason
    return None


def _surrogates(value: str) -> _Refused:
    return _Refused("text without lone surrogates", shown(value))


def _decode(kind: Any, value: Any, path: str, document: Document) -> Any:
    """Read `value` as the annotated type `kind`; its type must match exactly."""
    if kind is Any:
        return value
    if is_dataclass(kind):
        _check_object(value, path, kind, document)
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
        # The message of a type's own refusal begins with the name of the field.
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


def _check_object(value: object, path: str, kind: Any, document: Document) -> None:
    names = _json_names(kind)
    if not isinstance(value, dict):
        raise document.wrong(path, "an object", value)
    for name in names:
        if name not in value:
            raise document.missing(join(path, name))
    for name in () if issubclass(kind, Excerpt) else value:
        if name not in names:
            raise document.unknown(join(path, name))


def _fit(value: object) -> str | None:
    """Make part of a type's message, which may quote the file, short and printable."""
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
    """A scalar as JSON; a container only as its brackets."""
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
