"""A page as one file: HTML and its style for a light and a dark screen, no script, no network."""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

STYLE = """\
:root { color-scheme: light dark; --text: #1f2328; --soft: #59636e; --page: #ffffff;
--line: #d1d9e0; --panel: #f6f8fa; --good: #1a7f37; --bad: #cf222e }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --soft: #9198a1; --page: #0d1117;
--line: #30363d; --panel: #151b23; --good: #3fb950; --bad: #f85149 } }
body { margin: 2rem auto; padding: 0 1.5rem; max-width: 75rem; color: var(--text);
background: var(--page); font: 15px/1.5 system-ui, sans-serif }
h1 { font-size: 1.5rem; margin: 0 0 .5rem } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse; font-size: 14px }
th, td { padding: .3rem .7rem; text-align: left; border-bottom: 1px solid var(--line) }
th { color: var(--soft); font-weight: 600 } th.number, td.number { text-align: right;
font-variant-numeric: tabular-nums } td { vertical-align: top }
td.short { white-space: nowrap } td small { display: block; color: var(--soft) }
p { margin: .35rem 0 } caption { text-align: left; padding: .25rem 0 }
.soft, caption { color: var(--soft) } .good { color: var(--good) } .bad { color: var(--bad) }
.verdict { font-size: 1.2rem; font-weight: 600 } .wide { overflow-x: auto }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: 14px }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere }
svg { vertical-align: middle; max-width: 100% }"""
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


def section(title: str, body: Iterable[str]) -> Iterator[str]:
    """A heading, and what stands below it."""
    yield f"<h2>{escape(title)}</h2>"
    yield from body


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text, of a class of STYLE."""
    named = f' class="{kind}"' if kind else ""
    return f"<p{named}>{escape(text)}</p>"


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: Collection[str] = (),
    long: Collection[str] = (),
    caption: str = "",
) -> Iterator[str]:
    """A table of plain texts; a pair is a text, and a smaller one that stands below it.

    Columns in `numbers` are aligned to the right, and only texts in those of `long` are wrapped.
    """
    marked = {**dict.fromkeys(columns, "short"), **dict.fromkeys(numbers, "number")}
    marked |= dict.fromkeys(long, "long")
    kinds = [marked[column] for column in columns]
    yield '<div class="wide"><table>'
    if caption:
        yield f"<caption>{escape(caption)}</caption>"
    head = (f'<th class="{kind}">{escape(x)}</th>' for kind, x in zip(kinds, columns, strict=True))
    yield f"<thead><tr>{''.join(head)}</tr></thead>\n<tbody>"
    for row in rows:
        cells = (f'<td class="{kind}">{_cell(x)}</td>' for kind, x in zip(kinds, row, strict=True))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def facts(pairs: Iterable[tuple[str, object]]) -> Iterator[str]:
    """Names and their values, one beside the other."""
    yield "<dl>"
    for name, value in pairs:
        yield f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>"
    yield "</dl>"


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return f"{escape(value[0])}<small>{escape(value[1])}</small>"
    return escape(value)
