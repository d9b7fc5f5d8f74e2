"""Pages that need nothing but themselves."""

from __future__ import annotations

from support.pages import read_page

from sgraf_deploy.html import document, escape


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
