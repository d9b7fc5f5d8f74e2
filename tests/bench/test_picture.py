"""The picture of a report: every R@K as high as it is, every speed beside the literal loop."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree as ET

import pytest

from sgraf_deploy.bench.picture import BOTTOM, TOP, comparison_svg

SVG = "{http://www.w3.org/2000/svg}"
LOOP = "literal loop"


def recall(first: float) -> dict[str, Any]:
    side = {"r1": first, "r5": 80.0, "r10": 100.0}
    return {"image_to_text": side, "text_to_image": side}


def speed(engine: str, rate: float, times: float | None) -> dict[str, Any]:
    return {"engine": engine, "per_second": {"score": rate}, "times_literal": times}


def report(*, ranked: bool = True, times: float | None = 4.0) -> dict[str, Any]:
    """Of two engines, the second too slow to be timed."""
    found = {"fast fp32": 25.0, "rounded <fp16>": 24.5}
    return {
        "run": {
            "module": "SGRAF",
            "workload": "split dev: 9 images & 45 captions",
            "processor": "2 × a processor",
            "threads": 2,
        },
        "reference": {"SGR": recall(1.0), "SGRAF": recall(25.0) if ranked else None},
        "parity": {
            engine: [
                {"model": "SGR", "recall": recall(1.0)},
                {"model": "SGRAF", "recall": recall(first) if ranked else None},
            ]
            for engine, first in found.items()
        },
        "throughput": {
            "images": 9,
            "captions": 45,
            "engines": [speed(LOOP, 1000.0, 1.0), speed("fast fp32", 4000.0, times)],
        },
    }


def bars(root: ET.Element) -> list[tuple[str, float]]:
    """Class and height of every bar, from the left; a legend's squares are none."""
    inside = [rect for part in root.findall(f"{SVG}g") for rect in part.findall(f"{SVG}rect")]
    return [(one.attrib["class"], float(one.attrib["height"])) for one in inside]


def texts(root: ET.Element) -> list[str]:
    return [one.text or "" for one in root.iter(f"{SVG}text")]


def test_equal_recalls_are_equally_high_and_speeds_in_proportion() -> None:
    root = ET.fromstring(comparison_svg(report()))
    found = bars(root)
    assert len(found) == 6 * 3 + 2
    loop, fast, rounded = found[:3]
    assert (loop[0], fast[0], rounded[0]) == ("a", "b", "c")
    assert loop[1] == fast[1] == pytest.approx(0.25 * (BOTTOM - TOP), abs=0.1)
    assert rounded[1] < fast[1]
    slow, quick = found[-2:]
    assert (slow[0], quick[0]) == ("a", "b")
    assert quick[1] == pytest.approx(4 * slow[1], abs=0.3)


def test_every_number_and_name_stands_in_it() -> None:
    found = texts(ET.fromstring(comparison_svg(report())))
    assert found.count("25.00") == 4
    assert found.count("24.50") == 2
    named = {LOOP, "fast fp32", "rounded <fp16>", "1k", "4k", "4.00 ×"}
    assert named <= set(found)
    assert any("9 images & 45 captions" in one for one in found)


def test_without_recalls_the_speeds_stand_alone() -> None:
    root = ET.fromstring(comparison_svg(report(ranked=False)))
    assert [kind for kind, _ in bars(root)] == ["a", "b"]
    assert "R@1" not in texts(root)


def test_a_ratio_that_was_withheld_is_not_drawn_as_a_number() -> None:
    found = texts(ET.fromstring(comparison_svg(report(times=None))))
    assert not any(one.endswith(" ×") and one != "1.00 ×" for one in found)
    assert "4k" in found


def test_colours_follow_the_page() -> None:
    style = ET.fromstring(comparison_svg(report())).findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme: dark" in style
