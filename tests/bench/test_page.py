"""Reports as HTML pages: what they say first, what they hold, and where the paper stands beside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from sgraf_deploy.bench.changes import mean_intervals
from sgraf_deploy.bench.figures import FIGURES, recall_by_image
from sgraf_deploy.bench.page import bench_page, eval_page
from sgraf_deploy.bench.published import published
from sgraf_deploy.bench.rounds import rounds_svg

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results"
IMAGES, PER_IMAGE = 4, 2
RANKS = {"image_to_text": [1, 1, 2, 11], "text_to_image": [1, 1, 1, 2, 6, 1, 1, 20]}


@pytest.fixture
def report() -> dict[str, Any]:
    """A saved report of schema version 1, with what version 2 has beside."""
    found: dict[str, Any] = json.loads((RESULTS / "bench_f8k_dev200.json").read_text("utf-8"))
    data = {"split": "dev", "images": IMAGES, "captions_per_image": PER_IMAGE}
    found["run"] |= {"data": data, "time": "2026-01-02T03:04:05+00:00"}
    found["yardstick"] = {"dtype": "float32", "tf32": False}
    found["throughput"]["order"] = ["matrix product", "literal loop", "native fp32"]
    engines = ("literal loop", *found["parity"])
    found["ranks"] = {"SGRAF": dict.fromkeys(engines, RANKS)}
    return found


def test_the_verdict_comes_first(report: dict[str, Any]) -> None:
    page = bench_page(report)
    assert page.index('class="verdict good"') < page.index("<table>")
    failed = bench_page(report | {"failed": ["native fp32, SGR: logits 2 > 1"]})
    assert '<p class="verdict bad">Missed: native fp32, SGR: logits 2 &gt; 1' in failed


def test_the_page_holds_what_the_report_rests_on(report: dict[str, Any]) -> None:
    page = bench_page(report | {"warnings": ["a warning"]})
    assert "Warning: a warning" in page
    assert report["run"]["bundle_sha256"] in page
    assert report["command"].replace("&", "&amp;") in page
    for engine in report["parity"]:
        assert f'<td class="short">{engine}</td>' in page
    assert page.count("<svg") == 2
    for outside in ("http://", "https://", "<script", "<link", "@import"):
        assert outside not in page.replace('xmlns="http://www.w3.org/2000/svg"', "")


def test_figures_have_intervals_over_images(report: dict[str, Any]) -> None:
    values = recall_by_image(RANKS["image_to_text"], RANKS["text_to_image"])
    assert values.shape == (IMAGES, len(FIGURES))
    np.testing.assert_allclose(values.mean(axis=0)[:3], [50, 75, 75])
    np.testing.assert_allclose(values.mean(axis=0)[3:6], [62.5, 75, 87.5])
    np.testing.assert_allclose(values[:, -1], values[:, :6].sum(axis=1))
    low, high = mean_intervals(values)[0]
    assert f'<td class="number">50.00<small>{low:.1f} – {high:.1f}</small></td>' in bench_page(
        report
    )


def test_the_paper_stands_beside_only_where_that_is_said_and_can_be(report: dict[str, Any]) -> None:
    assert "the paper" not in bench_page(report)
    assert "the paper" not in bench_page(report, "f30k")  # Four images are not its test split.
    report["run"]["data"]["images"] = 1000
    assert bench_page(report, "f30k").count("the paper, Flickr30K") == 1
    assert "the paper" not in bench_page(report, "coco")
    for dataset, images, sums in (("f30k", 1000, [499.6]), ("coco", 5000, [524.3, 428.2])):
        found = [round(sum(row), 1) for row in published(dataset, images).values()]  # type: ignore[arg-type]
        assert found == sums


def test_the_page_of_an_evaluation(report: dict[str, Any]) -> None:
    evaluation = {
        "run": {"module": "SGRAF", "split": "a<b", "engine": "native", "executed": "fp32"}
        | {"images": IMAGES, "captions": IMAGES * PER_IMAGE, "versions": {"numpy": "2"}},
        "reports": {"SGRAF": report["reference"]["SGRAF"]},
        "warnings": ["odd data"],
    }
    page = eval_page(evaluation, {"SGRAF": {"native fp32": RANKS}})
    assert "split a&lt;b" in page
    assert "Warning: odd data" in page
    assert '<td class="short">native fp32</td>' in page


def test_every_round_is_a_point(report: dict[str, Any]) -> None:
    drawn = ElementTree.fromstring(rounds_svg(report["throughput"]))
    points = [x for x in drawn.iter() if x.tag.endswith("rect") and x.get("width") == "6.0"]
    engines = report["throughput"]["engines"]
    assert len(points) == sum(len(one["seconds"]["score"]["seconds"]) for one in engines)
