"""A report of `bench` as a picture: R@K by engine, and speed beside the literal loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sgraf_deploy.bench.plot import short
from sgraf_deploy.evaluation.workload import LITERAL
from sgraf_deploy.svg import SERIES, document, group, line, rect, text

TOP, BOTTOM = 44, 224
"""Of the bars, in pixels from above."""

LEGEND, HEIGHT, LEAST_WIDTH = BOTTOM + 60, BOTTOM + 108, 440

BAR, GAP, MARGIN = 20, 18, 30
"""A bar's width, what is between two groups of bars, and beside the first and the last."""

SPEED_BAR, SPEED_GAP = 48, 40

DIRECTIONS = {"image_to_text": "image → text", "text_to_image": "text → image"}
RECALLS = {"r1": "R@1", "r5": "R@5", "r10": "R@10"}


@dataclass(frozen=True)
class _Bar:
    """One bar: its height as a share of the highest that there may be, and what stands at it."""

    share: float
    label: str
    kind: str


def comparison_svg(report: Mapping[str, Any]) -> str:
    """The picture of `BenchReport.to_json()`, as SVG text.

    Two panels: R@K of the literal loop and of every engine, in percent, if the report has R@K, and
    pairs scored per second of what was timed. A series keeps its colour in both.
    """
    recalls = _recalls(report)
    speeds = report["throughput"]["engines"]
    names = list(dict.fromkeys([*recalls, *(one["engine"] for one in speeds)]))
    kinds = {name: SERIES[min(index, len(SERIES) - 1)] for index, name in enumerate(names)}
    panels = [_recall_panel(recalls, kinds)] if recalls else []
    panels.append(_speed_panel(speeds, kinds, report))
    drawn = sum(width for _, width in panels)
    total = max(LEAST_WIDTH, drawn)
    x, elements = (total - drawn) / 2, list(_legend(kinds, total))
    for panel, width in panels:
        elements += group(x, 0, panel)
        x += width
    run = report["run"]
    below = (
        f"{run['module']}, {run['workload']}",
        f"{run['processor']}, {run['threads']} threads",
    )
    for index, told in enumerate(below):
        elements.append(text(total / 2, LEGEND + 20 + 16 * index, told, "soft"))
    return document(total, HEIGHT, elements)


def _recalls(report: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """R@K of the bundle's own model, by the name of what computed it; nothing without R@K."""
    model = report["run"]["module"]
    reference = report["reference"].get(model)
    if reference is None:
        return {}
    return {LITERAL: reference} | {
        engine: parity["recall"]
        for engine, parities in report["parity"].items()
        for parity in parities
        if parity["model"] == model and parity["recall"] is not None
    }


def _recall_panel(
    recalls: Mapping[str, Mapping[str, Any]], kinds: Mapping[str, str]
) -> tuple[list[str], float]:
    """The groups R@1, R@5 and R@10 of both directions, and the panel's width."""
    step = BAR * len(recalls) + GAP
    width = 2 * MARGIN + 6 * step - GAP
    elements = [text(width / 2, 22, "R@K, percent", "title"), *_grid(width)]
    x = float(MARGIN)
    for direction, shown in DIRECTIONS.items():
        elements.append(text(x + 1.5 * step - GAP / 2, BOTTOM + 32, shown, "soft"))
        for field, name in RECALLS.items():
            values = {engine: float(recall[direction][field]) for engine, recall in recalls.items()}
            bars = [
                _Bar(value / 100, f"{value:.2f}", kinds[engine]) for engine, value in values.items()
            ]
            elements += _bars(x, BAR, bars, inside=True)
            elements.append(text(x + BAR * len(bars) / 2, BOTTOM + 15, name))
            x += step
    return elements, width


def _speed_panel(
    speeds: Sequence[Mapping[str, Any]], kinds: Mapping[str, str], report: Mapping[str, Any]
) -> tuple[list[str], float]:
    """A bar for each engine that was timed, and the panel's width."""
    step = SPEED_BAR + SPEED_GAP
    width = max(240, 2 * MARGIN + len(speeds) * step)
    highest = max(one["per_second"]["score"] for one in speeds)
    elements = [text(width / 2, 22, "Pairs scored per second", "title"), *_grid(width)]
    x = (width - len(speeds) * step + SPEED_GAP) / 2
    for one in speeds:
        rate, times = one["per_second"]["score"], one["times_literal"]
        bar = _Bar(rate / highest * 0.94, short(rate), kinds[one["engine"]])
        elements += _bars(x, SPEED_BAR, [bar], inside=False)
        told = "unstable" if times is None else f"{times:.2f} ×"
        elements.append(text(x + SPEED_BAR / 2, BOTTOM + 15, told))
        x += step
    sizes = report["throughput"]
    told = f"{sizes['images']:,} images × {sizes['captions']:,} captions"
    elements.append(text(width / 2, BOTTOM + 32, told, "soft"))
    return elements, width


def _grid(width: float) -> Iterator[str]:
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = BOTTOM - share * (BOTTOM - TOP)
        yield line(MARGIN - 12, y, width - MARGIN + 12, y)


def _bars(x: float, width: float, bars: Sequence[_Bar], *, inside: bool) -> Iterator[str]:
    """Draw a bar for each value, side by side, its label inside and read upwards, or above it."""
    for bar in bars:
        height = bar.share * (BOTTOM - TOP)
        yield rect(x + 1, BOTTOM - height, width - 2, height, bar.kind)
        middle = x + width / 2
        if inside and height > 40:
            yield text(middle + 4, BOTTOM - height + 22, bar.label, "on small", turned=True)
        elif inside:
            yield text(middle + 4, BOTTOM - height - 18, bar.label, "small", turned=True)
        else:
            yield text(middle, BOTTOM - height - 5, bar.label)
        x += width


def _legend(kinds: Mapping[str, str], width: float) -> Iterator[str]:
    """A square and a name for each series, below the panels."""
    widths = [26 + 6.2 * len(name) for name in kinds]
    x = (width - sum(widths)) / 2
    for (name, kind), own in zip(kinds.items(), widths, strict=True):
        yield rect(x, LEGEND - 10, 10, 10, kind)
        yield text(x + 14, LEGEND, name, "left")
        x += own
