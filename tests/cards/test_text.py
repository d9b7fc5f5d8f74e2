"""Texts of other people in YAML and Markdown."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sgraf_deploy.cards.text import LONGEST, markdown, printable, yaml_lines

yaml = pytest.importorskip("yaml", reason="comes with the extra hub")

HOSTILE = (
    "a\n---\nlicense: mine",
    '"quoted" \\ and #comment: [x]',
    "no: yes",
    "\u202eoverride\u2028line",
    "😀 smile",
    "null",
    "1e3",
    "\x1b[31mred",
    "",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_text_in_yaml_is_that_text(text: str) -> None:
    value = {"a": text, "b": [text, {"c": text, "d": 1}], "e": {"f": 2.5e-7}, "g": None}
    read = yaml.safe_load("\n".join(yaml_lines(value)))
    shown = printable(text)
    assert read == {"a": shown, "b": [shown, {"c": shown, "d": 1}], "e": {"f": 2.5e-7}}


@given(st.text())
def test_any_text_in_yaml_is_that_text(text: str) -> None:
    assert yaml.safe_load("\n".join(yaml_lines({"a": text}))) == {"a": printable(text)}


@given(st.text())
def test_any_text_in_markdown_is_one_line_without_markup(text: str) -> None:
    shown = markdown(text)
    assert shown.isprintable()
    bare = re.sub(r"\\[\\`*_{}\[\]()#!|~$@:.]|&(amp|lt|gt);", "", shown)
    assert re.search(r"[\\`*_{}\[\]()#!|~$@:<>&]", bare) is None
    assert len(printable(text)) <= LONGEST + 1


def test_a_link_in_markdown_is_none() -> None:
    assert markdown("[a](http://b) www.c.d <e>") == ("\\[a\\]\\(http\\://b\\) www\\.c.d &lt;e&gt;")
