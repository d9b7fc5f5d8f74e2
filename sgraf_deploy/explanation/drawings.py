"""The small drawings of an explanation's page, as inline SVG."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.explanation.regions import RegionLayout, Size
from sgraf_deploy.html import escape
from sgraf_deploy.svg import inline, line, rect, text

STYLE = """\
body { max-width: 90rem } .small { font-size: 12px; white-space: nowrap }
.caption { font-size: 1.15rem } .unknown { text-decoration: underline dotted }
.hidden { position: absolute } .side { display: flex; flex-wrap: wrap; gap: 2rem }
figure { margin: 0 } figcaption { max-width: 24rem } .heat { fill: #bc4c00 }
.found { fill: none; stroke: #bc4c00; stroke-width: 2 } .for { fill: #0969da }
.against { fill: #bc4c00 } .faded { opacity: .55 }
@media (prefers-color-scheme: dark) { .heat { fill: #f0883e } .found { stroke: #f0883e }
.for { fill: #4493f8 } .against { fill: #f0883e } }"""
"""Of the drawings: `for` and `against` are parts that speak for a pair, and against it."""

THUMBNAIL, FIGURE = 96.0, 420.0
"""Widths of a word's picture and of the regions' picture, in pixels."""

BAR, ROW = 44.0, 16.0
"""A bar's greatest length and a row's height."""

NAMED = 3
"""How many regions are named beside a picture, and framed where boxes overlap."""

STRONGEST = 0.8
"""The opacity of the largest weight."""


def change_bar(change: float, largest: float) -> str:
    """A bar to the left for a fall of the logit, to the right for a rise; a dash for none."""
    if np.isnan(change):
        return '<span class="soft">–</span>'
    length = BAR * abs(change) / largest if largest else 0.0
    kind, start = ("for", BAR - length) if change < 0 else ("against", BAR)
    drawn = [
        line(BAR, 0, BAR, ROW),
        rect(start, 3, length, ROW - 6, kind),
        text(2 * BAR + 44, ROW - 4, f"{change:+.3f}", "right"),
    ]
    return inline(2 * BAR + 46, ROW, f"{change:+.3f}", drawn)


def weight_bar(weight: float, largest: float) -> str:
    """A bar as long as a weight's share of the largest."""
    length = BAR * weight / largest if largest else 0.0
    drawn = [rect(0, 3, length, ROW - 6, "a"), text(BAR + 42, ROW - 4, f"{weight:.3f}", "right")]
    return inline(BAR + 44, ROW, f"{weight:.3f}", drawn)


def heat(
    weights: NDArray[np.float32], largest: float, layout: RegionLayout, picture: str | None
) -> str:
    """A word's attention on the picture, if places are known, and its first region by name.

    `largest` is the weight that is drawn strongest, the same for all words of a member.
    """
    best = np.argsort(-weights, kind="stable")[:NAMED]
    names = [f"{layout.names[each]} {weights[each]:.2f}" for each in best]
    if layout.boxes is None or layout.size is None:
        return f'<span class="small">{escape(", ".join(names[:2]))}</span>'
    opacity = STRONGEST * weights / largest
    drawn = _drawn(layout, opacity, np.full(len(weights), "heat"), THUMBNAIL, picture)
    size = _scaled(layout.size, THUMBNAIL)
    told = f'<div class="soft small">{escape(names[0])}</div>'
    return f"{inline(*size, ', '.join(names), drawn)}{told}"


def changed_regions(
    name: str, changes: NDArray[np.float32], layout: RegionLayout, picture: str | None
) -> str:
    """A figure of the logit's change by region, with the regions that change it most below."""
    best = np.argsort(-np.abs(changes), kind="stable")[: 2 * NAMED]
    told = ", ".join(f"{escape(layout.names[each])} {changes[each]:+.3f}" for each in best)
    caption = f"<figcaption>{escape(name)}, the largest changes: {told}</figcaption>"
    if layout.boxes is None or layout.size is None:
        return f"<figure>{caption}</figure>"
    largest = float(np.abs(changes).max()) or 1.0
    kinds = np.where(changes < 0, "for", "against")
    drawn = _drawn(layout, STRONGEST * np.abs(changes) / largest, kinds, FIGURE, picture)
    return f"<figure>{inline(*_scaled(layout.size, FIGURE), name, drawn)}{caption}</figure>"


def _drawn(
    layout: RegionLayout,
    opacity: NDArray[np.floating[Any]],
    kinds: NDArray[np.str_],
    width: float,
    picture: str | None,
) -> list[str]:
    """The photograph or a frame, and over it the regions: all cells, or the first boxes."""
    assert layout.boxes is not None  # noqa: S101  # callers have looked
    assert layout.size is not None  # noqa: S101
    boxes = layout.boxes * (width / layout.size[0])
    full = _scaled(layout.size, width)
    size = f'width="{full[0]:.0f}" height="{full[1]:.0f}"'
    drawn = [] if picture is None else [f'<use href="#{picture}" {size} class="faded"/>']
    order = np.argsort(opacity, kind="stable")
    for each in order if layout.cells else order[-NAMED:]:
        x1, y1, x2, y2 = boxes[each].tolist()
        drawn.append(rect(x1, y1, x2 - x1, y2 - y1, str(kinds[each]), float(opacity[each])))
        if not layout.cells:
            drawn.append(rect(x1, y1, x2 - x1, y2 - y1, "found"))
    return [*drawn, rect(0.5, 0.5, full[0] - 1, full[1] - 1, "box")]


def _scaled(size: Size, width: float) -> tuple[float, float]:
    return width, width * size[1] / size[0]
