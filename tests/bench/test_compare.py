"""Two saved reports: what of them is read, what is refused, and what the comparison says."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from support.refusals import naming, refused

from sgraf_deploy.bench import intervals
from sgraf_deploy.bench.compare import Comparison, Limits, compare_reports
from sgraf_deploy.bench.figures import FIGURES
from sgraf_deploy.bench.intervals import COLOURS, intervals_svg
from sgraf_deploy.bench.saved import read_report
from sgraf_deploy.errors import InputError
from sgraf_deploy.evaluation.workload import DataIdentity

IMAGES, PER_IMAGE, ROUNDS = 200, 2, 10
SCOPES = ("encode images", "encode captions", "score", "end to end")
LIMITS = Limits(drop=0.5, slowdown=10.0)


def ranks(missed: int = 0) -> dict[str, list[int]]:
    """Every query finds its ground truth first, but for the first images', which come second."""
    forward = np.ones(IMAGES, int)
    forward[:missed] = 2
    return {"image_to_text": forward.tolist(), "text_to_image": [1] * IMAGES * PER_IMAGE}


def timings(engine: str, seconds: float) -> dict[str, Any]:
    """An engine's rounds; the machine is slower in every second one."""
    rounds = [seconds * (1.0 + 0.5 * (number % 2)) for number in range(ROUNDS)]
    return {"engine": engine, "seconds": {scope: {"seconds": list(rounds)} for scope in SCOPES}}


def report(missed: int = 0, seconds: float = 1.0, label: str = "ort fp32") -> dict[str, Any]:
    """What `bench --json` writes, as much of it as is read."""
    data = DataIdentity("dev", IMAGES, IMAGES * PER_IMAGE, PER_IMAGE, "a" * 64, "b" * 64)
    return {
        "schema_version": 2,
        "run": {
            "bundle_sha256": "c" * 64,
            "time": "2026-01-02T03:04:05+00:00",
            "processor": "2 × a processor",
            "threads": 2,
            "engines": {label: {"engine": "ort", "device": "cpu"}},
            "data": asdict(data),
        },
        "ranks": {
            "SGR": {"literal loop": ranks(), label: ranks()},
            "SGRAF": {"literal loop": ranks(), label: ranks(missed)},
        },
        "throughput": {
            "images": 100,
            "captions": 100,
            "engines": [timings("literal loop", 3.0), timings(label, seconds)],
        },
    }


class Files:
    """Writes reports into a folder and compares them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, name: str, value: Any) -> Path:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(value))
        return path

    def compare(self, before: Any, after: Any, **options: Any) -> Comparison:
        one, other = (read_report(self.write(*x)) for x in (("a", before), ("b", after)))
        return compare_reports(one, other, LIMITS, **options)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_a_report_beside_itself_is_the_same(files: Files) -> None:
    found = files.compare(report(), report())
    assert found.verdict == "no worse"
    assert [row.figure for row in found.recall] == list(FIGURES)
    assert [row.figure for row in found.time] == ["score", "end to end"]
    assert {row.change.verdict for row in (*found.recall, *found.time)} == {"same"}
    assert (found.model, found.notes) == ("SGRAF", ())


def test_recall_that_is_lost_is_worse_and_names_its_figures(files: Files) -> None:
    found = files.compare(report(), report(missed=20))
    assert found.verdict == "worse"
    rows = {row.figure: row for row in found.recall}
    assert (rows["i→t R@1"].before, rows["i→t R@1"].after) == (100.0, 90.0)
    worse = {name for name, row in rows.items() if row.change.verdict == "worse"}
    assert worse == {"i→t R@1", "rsum"}
    assert rows["rsum"].change.limit == 2 * rows["i→t R@1"].change.limit
    assert files.compare(report(), report(missed=20), model="SGR").verdict == "no worse"


def test_the_picture_has_every_change_in_limits(files: Files) -> None:
    found = files.compare(report(), report(missed=20, seconds=1.05))
    drawn = ElementTree.fromstring(intervals_svg(found))
    rows = [*found.recall, *found.time]
    texts = [element.text for element in drawn.iter() if element.tag.endswith("text")]
    assert [text for text in texts if text in COLOURS] == [row.change.verdict for row in rows]
    points = [x for x in drawn.iter() if x.tag.endswith("rect") and x.get("height") == "10.0"]
    places = [float(point.get("x", "")) + 2.5 for point in points]
    edges = [intervals._place(limits) for limits in (-intervals.MOST, 0, 0.5, intervals.MOST)]
    by_figure = dict(zip((row.figure for row in rows), places, strict=True))
    assert by_figure["i→t R@1"] == edges[3], "far beyond its limit"
    assert by_figure["t→i R@1"] == edges[1]
    assert by_figure["score"] == pytest.approx(edges[2], abs=0.1)
    assert edges[0] <= min(places)


def test_time_is_divided_by_the_literal_loops_of_the_same_round(files: Files) -> None:
    """Both builds have rounds that scatter over half of the time, but so has the literal loop."""
    found = files.compare(report(), report(seconds=1.2))
    assert found.verdict == "worse"
    assert all(row.change.harm == pytest.approx(20.0) for row in found.time)
    assert found.time[0].before == pytest.approx(1 / 3)
    slower = report(seconds=1.2)
    slower["throughput"]["engines"][0] = timings("literal loop", 3.6)  # The machine was slower.
    assert files.compare(report(), slower).verdict == "no worse"


def test_engines_of_other_names_are_compared_where_there_is_no_choice(files: Files) -> None:
    found = files.compare(report(), report(label="native fp32"))
    assert found.recall[0].engine == "ort fp32 → native fp32"
    two = report()
    two["run"]["engines"]["torch fp32"] = {"device": "cpu"}
    for model in two["ranks"].values():
        model["torch fp32"] = ranks(missed=20)
    two["throughput"]["engines"].append(timings("torch fp32", 2.0))
    assert {row.engine for row in files.compare(report(), two).recall} == {"ort fp32"}
    pairs = [("ort fp32", "torch fp32")]
    assert files.compare(report(), two, pairs=pairs).verdict == "worse"
    with refused(InputError, hint="--pair"):
        files.compare(two, report(label="native fp32"))
    with refused(InputError, expected="ort fp32", got="none"):
        files.compare(report(), report(), pairs=[("ort fp32", "none")])


def test_what_cannot_be_compared_is_said(files: Files) -> None:
    other = report()
    other["run"]["processor"] = "4 × another one"
    found = files.compare(report(), other)
    assert (found.time, len(found.notes)) == ((), 1)
    emulated = report(label="torch fp16-rounded")
    del emulated["throughput"]["engines"][1]
    assert files.compare(emulated, emulated).time == ()
    unranked = report() | {"ranks": {}}
    found = files.compare(unranked, unranked)
    assert (found.recall, found.model, len(found.notes)) == ((), None, 1)
    other["ranks"] = {}
    with refused(InputError, got=naming("processor")):
        files.compare(unranked, other)
    with refused(InputError, "--model", expected="SGR or SGRAF", got="SAF"):
        files.compare(report(), report(), model="SAF")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("split", "test"),
        ("regions_sha256", "d" * 64),
        ("captions_sha256", "d" * 64),
        ("captions_per_image", None),
    ],
)
def test_other_data_are_refused(files: Files, field: str, value: object) -> None:
    other = report()
    other["run"]["data"][field] = value
    with refused(InputError, field, hint="--data"):
        files.compare(report(), other)


def test_other_models_and_other_timed_shapes_are_refused(files: Files) -> None:
    one, two = report(), report()
    one["ranks"].pop("SGR")
    two["throughput"]["images"] = 50
    for other in (one, two):
        with refused(InputError, hint="--data"):
            files.compare(report(), other)


BROKEN: dict[str, Callable[[Any], object]] = {
    "schema_version": lambda value: value.pop("schema_version"),
    "run.data.regions_sha256": lambda value: value["run"]["data"].pop("regions_sha256"),
    "run.engines.ort fp32.device": lambda value: value["run"]["engines"]["ort fp32"].clear(),
    "ranks.SGRAF.ort fp32": lambda value: value["ranks"]["SGRAF"]["ort fp32"][
        "image_to_text"
    ].pop(),
    "ranks.SGR.ort fp32": lambda value: value["ranks"]["SGR"]["ort fp32"][
        "text_to_image"
    ].__setitem__(0, 0),
    "ranks.SGRAF.literal loop": lambda value: value["ranks"]["SGRAF"].pop("literal loop"),
    "ranks.SGR.ort fp32 ": lambda value: value["ranks"]["SGR"].pop("ort fp32"),
    "throughput.engines.literal loop": lambda value: value["throughput"]["engines"].pop(0),
    "throughput.engines.ort fp32.seconds.end to end": lambda value: value["throughput"]["engines"][
        1
    ]["seconds"].pop("end to end"),
    "run.data.captions": lambda value: value["run"]["data"].update(images=7),
    "throughput.engines": lambda value: value["throughput"]["engines"][1]["seconds"]["score"][
        "seconds"
    ].pop(),
    "throughput.engines.ort fp32.seconds.score": lambda value: value["throughput"]["engines"][1][
        "seconds"
    ]["score"]["seconds"].__setitem__(0, -1.0),
}


def test_a_broken_report_is_named_with_its_file_and_field(files: Files) -> None:
    for where, damage in BROKEN.items():
        value = deepcopy(report())
        damage(value)
        path = files.write("broken", value)
        with refused(
            InputError, path, where.rpartition(".")[2].strip(), hint="sgraf-deploy bench --json"
        ):
            read_report(path)
    for text in ("", "[]", "{", '{"schema_version": 3}'):
        path = files.write("text", None)
        path.write_text(text)
        with refused(InputError, path):
            read_report(path)
    with refused(InputError, files.folder / "absent.json"):
        read_report(files.folder / "absent.json")
