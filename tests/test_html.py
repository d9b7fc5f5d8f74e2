"""Pages that need nothing but themselves."""

from __future__ import annotations

from support.pages import read_page

from sgraf_deploy.html import document, escape, facts, paragraph, section, table

AWKWARD = "<script>alert('&')</script> \"x\""


def test_a_page_is_whole_and_loads_nothing() -> None:
    found = read_page(document("a < b & c", ["<h1>x</h1>"], ".more { color: red }"))

    assert found.title == "a < b & c"
    assert found.text == "x"
    assert found.loads == []
    assert "default-src 'none'" in found.policy
    assert ".more" in found.style
    assert "prefers-color-scheme: dark" in found.style


def test_text_is_shown_as_it_is_and_never_obeyed() -> None:
    assert escape("<b>\"'&") == "&lt;b&gt;&quot;&#x27;&amp;"
    assert escape("a\x00\x1b\u202e\udcffé🙂") == "a\\x00\\x1b\\u202e\\udcffé🙂"
    assert escape(3) == "3"


def test_every_text_in_every_element_is_text() -> None:
    body = [
        paragraph(AWKWARD, "soft"),
        *section(AWKWARD, table((AWKWARD, "b"), [(AWKWARD, (AWKWARD, 1))], caption=AWKWARD)),
        *facts([(AWKWARD, AWKWARD)]),
    ]
    found = read_page(document(AWKWARD, body))
    assert found.title == AWKWARD
    assert found.text.count(AWKWARD) == 8
    assert found.loads == []


def test_columns_are_marked_as_what_they_hold() -> None:
    lines = list(table(("a", "b", "c"), [(1, 2, 3)], numbers="b", long="c"))
    row = '<tr><td class="short">1</td><td class="number">2</td><td class="long">3</td></tr>'
    assert row in lines
