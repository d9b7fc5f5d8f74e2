"""A comparison of two reports as a picture: every change with its interval, beside its limit."""

from __future__ import annotations

from collections.abc import Iterator

from sgraf_deploy.bench.changes import Verdict
from sgraf_deploy.bench.compare import Comparison, Row
from sgraf_deploy.svg import document, line, rect, text

LABELS, RIGHT, WIDTH = 250, 610, 740
TOP, STEP = 66, 22

MOST = 3.0
"""What is drawn to either side, in limits; an interval that goes on ends at the edge."""

COLOURS: dict[Verdict, str] = {
    "worse": "c",
    "undecided": "a",
    "same": "d",
    "no worse": "d",
    "better": "b",
}


def intervals_svg(found: Comparison) -> str:
    """The picture of a comparison, as SVG text: harm to the right, and its limit as a band."""
    rows = [*found.recall, *found.time]
    bottom = TOP + STEP * len(rows)
    band = rect(_place(-1), TOP - 8, _place(1) - _place(-1), bottom - TOP + 8, "a", opacity=0.15)
    elements = [
        text(WIDTH / 2, 20, "How much worse the second report is, in limits", "title"),
        text(WIDTH / 2, 38, f"in all: {found.verdict}", "soft"),
        band,
    ]
    for mark in range(-int(MOST), int(MOST) + 1):
        elements += [
            line(_place(mark), TOP - 8, _place(mark), bottom),
            text(_place(mark), bottom + 16, f"{mark:+d}" if mark else "0", "soft"),
        ]
    for number, row in enumerate(rows):
        elements += _row(row, TOP + STEP * (number + 0.5))
    return document(WIDTH, bottom + 30, elements)


def _row(row: Row, y: float) -> Iterator[str]:
    change = row.change
    kind = COLOURS[change.verdict]
    limit = change.limit or 1e-9
    low, high = _place(change.low / limit), _place(change.high / limit)
    yield text(LABELS - 12, y + 4, f"{row.engine}, {row.figure}", "right small")
    yield rect(low, y - 1.5, max(high - low, 3), 3, kind)
    yield rect(_place(change.harm / limit) - 2.5, y - 5, 5, 10, kind)
    yield text(RIGHT + 12, y + 4, change.verdict, "left small")


def _place(limits: float) -> float:
    """Pixels from the left of a change in limits, at the edge if it is beyond."""
    share = (max(-MOST, min(MOST, limits)) + MOST) / (2 * MOST)
    return LABELS + share * (RIGHT - LABELS)
