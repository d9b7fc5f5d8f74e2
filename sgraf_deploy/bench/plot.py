"""Small line plots on logarithmic axes, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgraf_deploy.svg import document, group, line, rect, text

WIDTH, HEIGHT = 420, 320
"""The size of one panel, in pixels."""

LEFT, RIGHT, TOP, BOTTOM = 64, 18, 40, 48
_STEPS = (1, 2, 5)
_DECADES_OF_WHOLE_POWERS = 2.5
"""An axis that spans more decades has ticks only at powers of ten."""

_UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True)
class Panel:
    """One line of points (x, y), all above zero."""

    title: str
    x_label: str
    y_label: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Axis:
    """Maps values from low to high onto pixels, logarithmically."""

    low: float
    high: float
    start: float
    end: float

    def place(self, value: float) -> float:
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        whole = math.log10(self.high / self.low) > _DECADES_OF_WHOLE_POWERS
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1,) if whole else _STEPS
        candidates = (step * 10.0**power for power in powers for step in steps)
        return [value for value in candidates if self.low <= value <= self.high]


def svg(panels: Sequence[Panel], caption: str) -> str:
    """The panels side by side, and a line of text below them."""
    width, height = WIDTH * len(panels), HEIGHT + 24
    elements = [
        element
        for index, panel in enumerate(panels)
        for element in group(WIDTH * index, 0, _panel(panel))
    ]
    return document(width, height, [*elements, text(width / 2, height - 10, caption, "soft")])


def _panel(panel: Panel) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x = _axis([point[0] for point in panel.points], LEFT, right, widen=1.2)
    y = _axis([point[1] for point in panel.points], bottom, TOP, widen=2)
    yield text((LEFT + right) / 2, 22, panel.title, "title")
    for value in x.ticks():
        place = x.place(value)
        yield line(place, TOP, place, bottom)
        yield text(place, bottom + 16, short(value))
    for value in y.ticks():
        place = y.place(value)
        yield line(LEFT, place, right, place)
        yield text(LEFT - 6, place + 4, short(value), "right")
    yield rect(LEFT, TOP, right - LEFT, bottom - TOP, "box")
    yield text((LEFT + right) / 2, bottom + 36, panel.x_label)
    yield text(16, (TOP + bottom) / 2, panel.y_label, turned=True)
    places = [(x.place(a), y.place(b)) for a, b in panel.points]
    joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    yield f'<polyline class="line" points="{joined}"/>'
    for (a, b), (_, value) in zip(places, panel.points, strict=True):
        yield f'<circle class="b" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>'
        yield text(a, b - 9, short(value))


def _axis(values: Sequence[float], start: float, end: float, widen: float) -> _Axis:
    return _Axis(min(values) / widen, max(values) * widen, start, end)


def short(value: float) -> str:
    """A number in three digits, with k, M or G: 84.8k."""
    for size, unit in _UNITS:
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"
