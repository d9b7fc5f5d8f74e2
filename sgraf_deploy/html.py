"""The few elements of the pages that are written: one HTML file, without scripts or requests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from html import escape

STYLE = """\
:root { color-scheme: light dark; --page: #ffffff; --ink: #1f2328; --soft: #59636e; --rule: #d1d9e0;
--good: #1a7f37; --bad: #cf222e; --panel: #f6f8fa }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --ink: #e6edf3; --soft: #9198a1;
--rule: #30363d; --good: #3fb950; --bad: #f85149; --panel: #151b23 } }
body { background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif;
max-width: 66rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .25rem } h2 { font-size: 1.1rem; margin: 2rem 0 .5rem }
p { margin: .35rem 0 } .soft, caption { color: var(--soft) } .good { color: var(--good) }
.bad { color: var(--bad) } .verdict { font-size: 1.2rem; font-weight: 600 }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
caption { text-align: left; padding: .25rem 0 } th { font-weight: 600 }
th, td { border-bottom: 1px solid var(--rule); padding: .3rem .7rem; text-align: left;
white-space: nowrap; vertical-align: top } td.long { white-space: normal; min-width: 16rem }
td small { display: block; color: var(--soft) } th.number, td.number { text-align: right;
font-variant-numeric: tabular-nums }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; font-size: .9rem }
dt { color: var(--soft) } dd { margin: 0; overflow-wrap: anywhere } svg { max-width: 100%;
height: auto } code { background: var(--panel); padding: .1rem .3rem; border-radius: 4px }"""

_HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; style-src 'unsafe-inline'; img-src data:">
"""


def page(title: str, body: Iterable[str]) -> str:
    """A whole page, for a light and a dark screen; `body` is HTML."""
    head = f"{_HEAD}<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>"
    return (
        "\n".join([head, "<body>", f"<h1>{escape(title)}</h1>", *body, "</body>\n</html>"]) + "\n"
    )


def section(title: str, body: Iterable[str]) -> Iterator[str]:
    """A heading, and what stands below it."""
    yield f"<h2>{escape(title)}</h2>"
    yield from body


def paragraph(text: str, kind: str = "") -> str:
    """A paragraph of plain text."""
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

    Columns in `numbers` are aligned to the right, and texts in those of `long` are wrapped.
    """
    marked = {**dict.fromkeys(numbers, "number"), **dict.fromkeys(long, "long")}
    kinds = [f' class="{marked[column]}"' if column in marked else "" for column in columns]
    yield '<div class="wide"><table>'
    if caption:
        yield f"<caption>{escape(caption)}</caption>"
    head = (f"<th{kind}>{escape(x)}</th>" for kind, x in zip(kinds, columns, strict=True))
    yield f"<thead><tr>{''.join(head)}</tr></thead>\n<tbody>"
    for row in rows:
        cells = (f"<td{kind}>{_cell(x)}</td>" for kind, x in zip(kinds, row, strict=True))
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</tbody></table></div>"


def facts(pairs: Iterable[tuple[str, object]]) -> Iterator[str]:
    """Names and their values, one beside the other."""
    yield "<dl>"
    for name, value in pairs:
        yield f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>"
    yield "</dl>"


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return f"{escape(str(value[0]))}<small>{escape(str(value[1]))}</small>"
    return escape(str(value))
