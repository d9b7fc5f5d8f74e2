"""Every round of a throughput measurement as a picture: what a median stands on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sgraf_deploy.bench.plot import short
from sgraf_deploy.svg import SERIES, document, line, rect, text

LEFT, RIGHT, TOP, BOTTOM = 64, 560, 36, 216
HEIGHT, WIDTH, POINT = 268, 580, 6


def rounds_svg(throughput: Mapping[str, Any]) -> str:
    """Pairs scored per second in every round of every engine, from `Throughput.to_json()`."""
    pairs = throughput["images"] * throughput["captions"]
    rates = {
        one["engine"]: [pairs / seconds for seconds in one["seconds"]["score"]["seconds"]]
        for one in throughput["engines"]
    }
    highest = max(max(values) for values in rates.values())
    elements = [text((LEFT + RIGHT) / 2, 20, "Pairs scored per second, by round", "title")]
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = BOTTOM - share * (BOTTOM - TOP)
        elements += [
            line(LEFT, y, RIGHT, y),
            text(LEFT - 6, y + 4, short(share * highest), "right"),
        ]
    x = float(LEFT)
    for index, (engine, values) in enumerate(rates.items()):
        kind = SERIES[min(index, len(SERIES) - 1)]
        elements += _points(values, highest, kind)
        elements += [rect(x, HEIGHT - 22, 10, 10, kind), text(x + 14, HEIGHT - 13, engine, "left")]
        x += 30 + 6.2 * len(engine)
    elements.append(text((LEFT + RIGHT) / 2, BOTTOM + 18, "round", "soft"))
    return document(max(WIDTH, x), HEIGHT, elements)


def _points(values: list[float], highest: float, kind: str) -> Iterator[str]:
    step = (RIGHT - LEFT) / len(values)
    for number, value in enumerate(values):
        x = LEFT + (number + 0.5) * step
        y = BOTTOM - value / highest * (BOTTOM - TOP)
        yield rect(x - POINT / 2, y - POINT / 2, POINT, POINT, kind)
