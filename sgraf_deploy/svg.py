"""The few elements of the drawings, as SVG text that suits a light and a dark page."""

from __future__ import annotations

from collections.abc import Iterable
from xml.sax.saxutils import escape

STYLE = """\
text { fill: #1f2328; font: 11px sans-serif; text-anchor: middle }
.page { fill: #ffffff } .soft { fill: #59636e } .title { font: bold 13px sans-serif }
.left { text-anchor: start } .right { text-anchor: end } .small { font: 10px sans-serif }
.grid { stroke: #d1d9e0 } .box { fill: none; stroke: #818b98 }
.a { fill: #6e7781 } .b { fill: #0969da } .c { fill: #bc4c00 } .d { fill: #1a7f37 }
text.on { fill: #ffffff } .line { fill: none; stroke: #0969da; stroke-width: 2 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 } .page { fill: #0d1117 } .soft { fill: #9198a1 }
.grid { stroke: #30363d } .box { stroke: #656c76 }
.a { fill: #6e7681 } .b { fill: #1f6feb } .c { fill: #bd561d } .d { fill: #238636 }
.line { stroke: #4493f8 }
}"""
"""Classes of the elements; `a` to `d` are the series in their order."""

SERIES = "abcd"


def document(width: float, height: float, elements: Iterable[str]) -> str:
    """A whole picture of so many pixels."""
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">'
    )
    page = f'<rect class="page" width="{width}" height="{height}"/>'
    return "\n".join([head, f"<style>{STYLE}</style>", page, *elements, "</svg>"]) + "\n"


def inline(width: float, height: float, label: str, elements: Iterable[str]) -> str:
    """A picture inside a page, which has STYLE; `label` says what it shows to who cannot see it."""
    size = f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" height="{height:.0f}"'
    named = escape(label, {'"': "&quot;"})
    return f'<svg {size} role="img" aria-label="{named}">{"".join(elements)}</svg>'


def group(x: float, y: float, elements: Iterable[str]) -> list[str]:
    """Elements moved to the right and down."""
    return [f'<g transform="translate({x} {y})">', *elements, "</g>"]


def text(x: float, y: float, content: str, kind: str = "", *, turned: bool = False) -> str:
    """A line of text whose middle (or its end, by class) is at x; turned, it is read upwards."""
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}"{named}{turn}>{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    """A thin line of the grid."""
    return f'<path class="grid" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>'


def rect(
    x: float, y: float, width: float, height: float, kind: str, opacity: float | None = None
) -> str:
    """A rectangle from its upper left corner."""
    size = f'width="{width:.1f}" height="{height:.1f}"'
    seen = "" if opacity is None else f' opacity="{opacity:.2f}"'
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" {size}{seen}/>'
