"""The codec: what it refuses, and that it is the inverse of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.mutations import Changed, Raw, changed, dumps, read_or_refused
from support.refusals import ANY, check_error, holds, naming, place, refused

from sgraf_deploy.errors import BundleError, DataError, InputError, SgrafDeployError
from sgraf_deploy.schema import (
    INLINE,
    SHOWN,
    Document,
    Excerpt,
    check_version,
    decode,
    encode,
    join,
    parse,
    shown,
)

Json = Any

DOCUMENT = Document("note", DataError, "write it again", most_bytes=1000, most_depth=4)
LARGE = Document("note", DataError, "write it again", most_bytes=2**20)


@dataclass(frozen=True)
class Size:
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width < 0:
            raise BundleError("width", expected="a size", got=self.width)


@dataclass(frozen=True)
class Page:
    kind: Literal["page", "cover"]
    version: Literal[1, 2]
    size: Size = field(metadata=INLINE)
    title: str | None
    scale: float
    rate: float | None
    shown: bool
    axes: tuple[str | int, ...]
    corner: tuple[int, str]


@dataclass(frozen=True)
class Book:
    pages: tuple[Page, ...]
    by_name: Mapping[Literal["a", "b"], Page]
    ranges: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    index: dict[str, int]
    notes: dict[str, Any] | None
    cover: Page | None


PAGE: dict[str, Json] = {
    "kind": "page",
    "version": 1,
    "width": 3,
    "height": 4,
    "title": None,
    "scale": 1.5,
    "rate": None,
    "shown": True,
    "axes": ["images", 3],
    "corner": [1, "left"],
}
BOOK: dict[str, Json] = {
    "pages": [PAGE],
    "by_name": {"a": PAGE},
    "ranges": {"x": [[1, 2], []]},
    "index": {"é": 1},
    "notes": {"free": [1, {"a": 0.5}]},
    "cover": PAGE,
}


def error_of(kind: Any, value: Json, document: Document = LARGE) -> SgrafDeployError:
    with refused(DataError, hint="write it again") as found:
        decode(kind, parse(dumps(value), document), document)
    assert str(found.error).isprintable()
    return found.error


def test_a_document_becomes_frozen_types_and_back() -> None:
    book = decode(Book, parse(dumps(BOOK), LARGE), LARGE)

    assert book.pages == (
        Page("page", 1, Size(3, 4), None, 1.5, None, True, ("images", 3), (1, "left")),
    )
    assert encode(book) == BOOK


@pytest.mark.parametrize(
    ("change", "path", "expected", "got"),
    [
        ({"kind": "leaf"}, "kind", naming("page", "cover"), '"leaf"'),
        ({"kind": ["page"]}, "kind", naming("page", "cover"), '["page"]'),
        ({"version": True}, "version", naming(1, 2), "true"),
        ({"version": 1.0}, "version", naming(1, 2), "1.0"),
        ({"width": True}, "width", ANY, "true"),
        ({"width": 1.0}, "width", ANY, "1.0"),
        ({"width": -1}, "width", ANY, -1),
        ({"title": 5}, "title", ANY, "5"),
        ({"scale": "1"}, "scale", ANY, '"1"'),
        ({"scale": None}, "scale", ANY, "null"),
        ({"scale": False}, "scale", ANY, "false"),
        ({"shown": 1}, "shown", ANY, "1"),
        ({"axes": "images"}, "axes", ANY, '"images"'),
        ({"axes": [1, None]}, "axes.1", ANY, "null"),
        ({"axes": {"0": 1}}, "axes", ANY, '{"0": 1}'),
        ({"corner": [1]}, "corner", naming(2), "[1]"),
        ({"corner": ["left", 1]}, "corner.0", ANY, '"left"'),
        ({"height": Raw("1e999")}, "height", ANY, "1e999"),
        ({"scale": Raw("1e999")}, "scale", ANY, "1e999"),
        ({"scale": Raw("NaN")}, "scale", ANY, "NaN"),
        ({"rate": Raw("-Infinity")}, "rate", ANY, "-Infinity"),
        ({"width": Raw("9" * 400)}, "width", naming(64), naming(400)),
        ({"scale": Raw("9" * 400)}, "scale", naming(64), naming(400)),
        ({"scale": Raw("9" * 6000)}, "scale", naming(64), naming(6000)),
        ({"width": 2**63}, "width", naming(64), naming(19)),
        ({"axes": [Raw(f"0.{'1' * 50}")]}, "axes.0", naming(40), naming(52)),
        ({"title": "\ud800"}, "title", ANY, '"\\ud800"'),
        ({"axes": ["a\udfffb"]}, "axes.0", ANY, '"a\\udfffb"'),
    ],
)
def test_a_wrong_value_is_named(change: Json, path: str, expected: object, got: object) -> None:
    error = error_of(Page, PAGE | change)
    check_error(error, expected=expected, got=got)
    assert error.what == path
    inside = error_of(Book, BOOK | {"cover": PAGE | change})
    assert inside.what == f"cover.{path}"
    assert (inside.expected, inside.got) == (error.expected, error.got)


@pytest.mark.parametrize("name", PAGE)
def test_a_missing_field_is_named(name: str) -> None:
    page = {key: value for key, value in PAGE.items() if key != name}
    error = error_of(Book, BOOK | {"pages": [PAGE, page]})
    assert place(error) == f"pages.1.{name}"
    check_error(error, expected=None, got=None)


@pytest.mark.parametrize("value", [1, [], {}, None])
def test_an_unknown_field_is_named(value: Json) -> None:
    error = error_of(Page, PAGE | {"more": value})
    assert place(error) == "more"
    check_error(error, expected=None, got=None)
    key = error_of(Book, BOOK | {"by_name": {"c": PAGE}})
    assert place(key) == "by_name.c"
    check_error(key, expected=naming("a", "b"), got='"c"')


@pytest.mark.parametrize("where", ["", "pages.0.", "notes.free.1."])
def test_a_repeated_field_is_named(where: str) -> None:
    text = {
        "": '{"a": 1, "b": 2, "a": 1}',
        "pages.0.": '{"pages": [{"a": 1, "b": 2, "a": 1}]}',
        "notes.free.1.": '{"notes": {"free": [1, {"a": 1, "a": 1}]}}',
    }[where]
    with refused(DataError, got=naming(2)) as found:
        parse(text, LARGE)
    assert found.error.what == f"{where}a"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"  ",
        b"{",
        b'{"a": 1',
        b'{"a": 1} {}',
        b"{}x",
        b"{}\0",
        b"[1,]",
        b'{"a": 01}',
        b"nul",
        b'"\x01"',
        b'"\xff"',
        b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-32"),
        "{}".encode("utf-16-le"),
        b"[" * 5 + b"]" * 5,
        b'{"a": [[[{}]]]}',
        b" " * 999 + b"{}",
        b"[" * 500 + b'"' + b"\\" * 499,
    ],
    ids=ascii,
)
def test_what_is_no_such_json_is_refused(content: bytes) -> None:
    with refused(DataError, "JSON", expected=naming("note", "UTF-8")) as found:
        parse(content, DOCUMENT)
    assert found.error.got
    assert isinstance(found.error.__cause__, ValueError)


def where_it_fails(content: str, document: Document) -> json.JSONDecodeError:
    """What is wrong with a text, as JSON's own reader says it."""
    with refused(DataError, "JSON") as found:
        parse(content, document)
    assert isinstance(found.error.got, json.JSONDecodeError)
    return found.error.got


def test_depth_is_bounded_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json, "loads", None)
    for content in ("[" * 400_000, '{"a":' * 150_000, '["[", ' * 100_000):
        assert holds(where_it_fails(content, LARGE).msg, 32)


@pytest.mark.parametrize("text", [r'["[[[[[[", "]", "\"[[[[[", "\\"]', r'[[[["\\\"[{["]]]]'])
def test_brackets_in_texts_are_no_depth(text: str) -> None:
    assert parse(text, DOCUMENT) == json.loads(text)


def test_depth_is_the_deepest_not_the_last() -> None:
    assert parse("[[[[]]], [[[]]], {}]", DOCUMENT) == [[[[]]], [[[]]], {}]
    error = where_it_fails("[[], [[[[]]]]]", DOCUMENT)
    assert holds(error.msg, 4)
    assert (error.lineno, error.colno) == (1, 9)


def test_a_byte_order_mark_is_read_where_editors_write_one() -> None:
    allowed = Document("note", DataError, None, most_bytes=1000, byte_order_mark=True)
    assert parse(b"\xef\xbb\xbf[1]", allowed) == [1]
    with refused(DataError, "JSON"):
        parse(b"\xef\xbb\xbf\xef\xbb\xbf[1]", allowed)


@pytest.mark.parametrize("text", ["1e-999", "-0", "-0.0", "1E3", str(2**63 - 1), str(-(2**63))])
def test_numbers_of_64_bits_are_read(text: str) -> None:
    assert parse(text, DOCUMENT) == json.loads(text)


def test_an_integer_may_stand_for_a_float() -> None:
    page = decode(Page, PAGE | {"scale": 3}, LARGE)
    assert (type(page.scale), page.scale) == (float, 3.0)


def test_what_a_type_refuses_keeps_its_own_hint() -> None:
    @dataclass(frozen=True)
    class Odd:
        number: int

        def __post_init__(self) -> None:
            raise InputError("number", expected="none", got=self.number, hint="leave it out")

    with refused(DataError, expected="none", got=1, hint="leave it out") as found:
        decode(dict[str, Odd], {"a": {"number": 1}}, LARGE)
    assert found.error.what == "a.number"


@pytest.mark.parametrize(
    ("value", "what"),
    [
        ([], "note"),
        ({}, "v"),
        ({"v": True}, "v"),
        ({"v": 3}, "v"),
        ({"v": "1"}, "v"),
    ],
)
def test_a_version_is_looked_at_first(value: Json, what: str) -> None:
    assert check_version({"v": 2, "other": 1}, "v", (1, 2), LARGE) == 2
    with refused(DataError) as found:
        check_version(value, "v", (1, 2), LARGE)
    assert place(found.error) == what


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (-5, "-5"),
        (0.1, "0.1"),
        ("é", '"é"'),
        ("\x1b[2J\x7f\ud800\u202e", '"\\u001b[2J\\u007f\\ud800\\u202e"'),
        ([1, [2], {"a": 1}], "[1, […], {…}]"),
        ({"a": "b", "c": []}, '{"a": "b", "c": […]}'),
        ({1, 2}, "set"),
    ],
    ids=range(9),
)
def test_a_value_is_shown(value: object, text: str) -> None:
    assert shown(value) == text


@pytest.mark.parametrize(("value", "bits"), [(2**64, 65), (10**5000, 16610)], ids=["65", "16610"])
def test_of_a_long_number_its_bits_are_shown(value: int, bits: int) -> None:
    assert holds(shown(value), bits)


@given(
    st.recursive(
        st.none() | st.integers() | st.floats() | st.text(st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters()), inner),
    )
)
@example("x" * 10_000)
@example(list(range(10_000)))
@example({"x" * 10_000: "\x1b" * 10_000})
def test_any_value_and_any_name_is_shown_short_and_printable(value: Json) -> None:
    for text in (shown(value), join("", shown(value)), join("", value)):
        assert text.isprintable()
        assert 0 < len(text) <= SHOWN + 1


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(JSON_VALUES)
def test_what_json_can_hold_is_read_as_it_is(value: Json) -> None:
    found = parse(json.dumps(value), LARGE)
    assert json.dumps(found) == json.dumps(value)


@given(changed(BOOK))
def test_a_changed_document_is_read_or_refused(change: Changed) -> None:
    def read(content: bytes) -> Book:
        return decode(Book, parse(content, LARGE), LARGE)

    found = read_or_refused(read, dumps(change.document), DataError)
    if found is not None:
        assert read(dumps(encode(found))) == found


@dataclass(frozen=True)
class Whole:
    a: int


@dataclass(frozen=True)
class Part(Excerpt):
    b: int
    inner: Whole


def test_an_excerpt_leaves_other_fields_out_and_what_is_in_it_does_not() -> None:
    value = {"b": 1, "c": 2, "inner": {"a": 3}}
    assert decode(Part, value, LARGE) == Part(1, Whole(3))
    assert place(error_of(Part, {**value, "inner": {"a": 3, "c": 4}})) == "inner.c"
    assert place(error_of(Part, {"c": 2, "inner": {"a": 3}})) == "b"
