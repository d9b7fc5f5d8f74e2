"""The plot: well-formed, every point in its panel at its logarithmic place."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from sgraf_deploy.bench.plot import HEIGHT, WIDTH, Panel, short, svg

SVG = "{http://www.w3.org/2000/svg}"


def drawn(*panels: Panel) -> list[ET.Element]:
    """The panels of a plot."""
    root = ET.fromstring(svg(panels, "SGRAF < on & two cores"))
    assert "SGRAF < on & two cores" in {text.text for text in root.iter(f"{SVG}text")}
    return [group for group in root.findall(f"{SVG}g") if "translate" in group.attrib["transform"]]


def circles(panel: ET.Element) -> list[tuple[float, float]]:
    return [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in panel.iter(f"{SVG}circle")]


def texts(panel: ET.Element) -> list[str]:
    return [text.text or "" for text in panel.iter(f"{SVG}text")]


def test_equal_ratios_are_equally_far_apart() -> None:
    (panel,) = drawn(Panel("t", "x", "y", [(1e4, 10), (1e5, 20), (1e6, 40)]))
    (x1, y1), (x2, y2), (x3, y3) = circles(panel)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.11)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.11)
    assert y1 > y3  # larger values stand higher


def test_every_point_lies_inside() -> None:
    panels = [Panel("one", "x", "y", [(5, 1e-3), (80, 1e7)]), Panel("two", "x", "y", [(3, 3)])]
    left, right = drawn(*panels)
    assert (left.attrib["transform"], right.attrib["transform"]) == (
        "translate(0 0)",
        f"translate({WIDTH} 0)",
    )
    for x, y in circles(left) + circles(right):
        assert 0 < x < WIDTH
        assert 0 < y < HEIGHT


def test_an_axis_has_ticks_however_short_it_is() -> None:
    (short_one,) = drawn(Panel("t", "x", "y", [(5, 70_000), (80, 90_000)]))
    assert {"5", "10", "20", "50", "50k", "100k"} <= set(texts(short_one))
    (long_one,) = drawn(Panel("t", "x", "y", [(1e4, 1), (1e7, 1e5)]))
    assert {"10k", "100k", "1M", "10M"} <= set(texts(long_one))
    assert "20k" not in texts(long_one)


@pytest.mark.parametrize(
    ("value", "text"),
    [(84_750, "84.8k"), (999_900, "1M"), (1e7, "10M"), (5, "5"), (0.25, "0.25"), (2e9, "2G")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert short(value) == text
