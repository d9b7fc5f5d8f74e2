"""Small line plots on logarithmic axes, as SVG text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

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
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for index, panel in enumerate(panels):
        lines += [f'<g transform="translate({WIDTH * index} 0)">', *_panel(panel), "</g>"]
    lines += [_text(width / 2, height - 10, caption, fill="#555"), "</svg>"]
    return "\n".join(lines) + "\n"


def _panel(panel: Panel) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    x = _axis([point[0] for point in panel.points], LEFT, right, widen=1.2)
    y = _axis([point[1] for point in panel.points], bottom, TOP, widen=2)
    yield _text((LEFT + right) / 2, 22, panel.title, size=13, weight="bold")
    for value in x.ticks():
        place = x.place(value)
        yield _line(place, TOP, place, bottom)
        yield _text(place, bottom + 16, short(value))
    for value in y.ticks():
        place = y.place(value)
        yield _line(LEFT, place, right, place)
        yield _text(LEFT - 6, place + 4, short(value), anchor="end")
    box = f'x="{LEFT}" y="{TOP}" width="{right - LEFT}" height="{bottom - TOP}"'
    yield f'<rect {box} fill="none" stroke="#888"/>'
    yield _text((LEFT + right) / 2, bottom + 36, panel.x_label)
    middle = (TOP + bottom) / 2
    yield f'<g transform="rotate(-90 16 {middle})">{_text(16, middle, panel.y_label)}</g>'
    places = [(x.place(a), y.place(b)) for a, b in panel.points]
    joined = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
    yield f'<polyline points="{joined}" fill="none" stroke="#1f5fa8" stroke-width="2"/>'
    for (a, b), (_, value) in zip(places, panel.points, strict=True):
        yield f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="#1f5fa8"/>'
        yield _text(a, b - 9, short(value))


def _axis(values: Sequence[float], start: float, end: float, widen: float) -> _Axis:
    return _Axis(min(values) / widen, max(values) * widen, start, end)


def short(value: float) -> str:
    """A number in three digits, with k, M or G: 84.8k."""
    for size, unit in _UNITS:
        if value >= 0.9995 * size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.3g}"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#ddd"/>'


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "middle",
    size: int = 11,
    weight: str = "normal",
    fill: str = "black",
) -> str:
    style = f'text-anchor="{anchor}" font-size="{size}" font-weight="{weight}" fill="{fill}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
