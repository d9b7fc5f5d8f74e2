"""A page as one file: HTML and its style for a light and a dark screen, no script, no network."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

STYLE = """\
:root { color-scheme: light dark; --text: #1f2328; --soft: #59636e; --page: #ffffff;
--line: #d1d9e0; --panel: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9198a1; --page: #0d1117;
--line: #30363d; --panel: #151b23 } }
body { margin: 2rem auto; padding: 0 1.5rem; max-width: 75rem; color: var(--text);
background: var(--page); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse; font-size: 14px }
th, td { padding: .3rem .7rem; text-align: left; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 600 } td.number { text-align: right;
font-variant-numeric: tabular-nums }
.soft { color: var(--soft) } .wide { overflow-x: auto } svg { vertical-align: middle }"""
"""Of every page; `number` aligns a cell to the right, `wide` lets a table scroll."""

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""What a browser may load for the page: nothing that is not in the file."""

_UNSEEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls, which HTML forbids
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what reverses the text around it
    "\ud800-\udfff"  # lone surrogates, which UTF-8 cannot hold
    "]"
)


def escape(text: object) -> str:
    """The text as HTML shows it, in an attribute too; unseen characters by their code."""
    shown = _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode(), str(text))
    return html.escape(shown)


def document(title: str, body: Iterable[str], style: str = "") -> str:
    """A whole page; `body` is HTML, `style` is added to STYLE."""
    head = (
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<title>{escape(title)}</title>",
        f"<style>\n{STYLE}\n{style}\n</style></head><body>",
    )
    return "\n".join([*head, *body, "</body></html>"]) + "\n"
