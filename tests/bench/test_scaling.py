"""Scaling: which points are measured in which order, and what their numbers mean."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import accumulate, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.refusals import holds, naming, refused

from sgraf_deploy.bench.measure import WITHHELD
from sgraf_deploy.bench.point import Clocks, Job, measure, random_inputs
from sgraf_deploy.bench.scaling import ScalingOptions, Size, in_a_child, measure_scaling
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.cli.bench_scaling import scaling_lines, size_table
from sgraf_deploy.engines.policy import Choice
from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.runtime import EngineOptions

MB = 10**6
ORT = Choice("ort", "fp32", "cpu")


class Machine:
    """Stands in for a child process: a second per 1,000 pairs, times the round's slowness."""

    def __init__(self, *slowness: float) -> None:
        self.jobs: list[Job] = []
        self._slowness = slowness

    def __call__(self, job: Job) -> dict[str, Any]:
        earlier = sum(one == job for one in self.jobs)
        self.jobs.append(job)
        overhead = 1.0 if job.pairs < 1000 else 0.0  # seconds that a small matrix costs, too
        return {
            "images": job.images,
            "captions": job.captions,
            "pairs": job.pairs,
            "mean_words": (job.fewest + job.most) / 2,
            "tiles": 2,
            "padding": 0.0,
            "workers": 1,
            "runs": 1,
            "seconds": self._slowness[earlier] * (job.pairs / 1000 + overhead),
            "cpu_seconds": job.pairs / 1000,
            "encoded_bytes": 5 * MB,
            "result_bytes": 4 * job.pairs,
            "tile_bytes": MB,
            "rss_anon": {"loaded": 50 * MB, "start": 52 * MB, "peak": 80 * MB + earlier},
            "engine": "ort",
            "executed": "fp32",
            "device": "cpu",
        }


SMALL, LARGE = Size(10, 50), Size(100, 500)


def options(**changes: Any) -> ScalingOptions:
    """Two sizes and two lengths, once."""
    chosen: dict[str, Any] = {
        "sizes": (LARGE, SMALL),
        "word_counts": (5, 10),
        "repeats": 1,
    } | changes
    return ScalingOptions(ORT, **chosen)


def test_the_default_sizes_grow_by_three_orders_of_magnitude() -> None:
    sizes = ScalingOptions(ORT).chosen_sizes()
    assert [size.pairs for size in sizes] == pytest.approx([1e4, 1e5, 1e6, 1e7], rel=0.02)
    assert {size.captions / size.images for size in sizes} == {5.0}


@pytest.mark.parametrize(("limit", "largest"), [(10_000, 10_125), (10**6, 999_045)])
def test_larger_sizes_are_left_out(limit: int, largest: int) -> None:
    chosen = ScalingOptions(ORT, max_pairs=limit)
    assert chosen.chosen_sizes()[-1].pairs == largest
    assert chosen.size_of_lengths().pairs <= 1.02 * limit


def test_a_limit_below_every_size_is_an_error() -> None:
    with refused(InputError, "--max-pairs", expected=naming(500), got=400):
        options(max_pairs=400).chosen_sizes()


def test_rounds_go_up_and_down(exported: Bundle) -> None:
    machine, told = Machine(1.0, 1.0), []
    measure_scaling(exported, options(repeats=2), lambda *at: told.append(at), machine)
    words = [(job.pairs, job.fewest, job.most) for job in machine.jobs]
    up = [(500, 8, 20), (50_000, 8, 20), (99_405, 5, 5), (99_405, 10, 10)]
    assert words == [*up, *up[::-1]]
    assert told == [(done, 8) for done in range(1, 9)]
    assert {job.bundle for job in machine.jobs} == {str(exported.path)}


def test_costs_are_compared_round_by_round(exported: Bundle) -> None:
    """A machine that slows down threefold meanwhile changes no cost."""
    report = measure_scaling(exported, options(repeats=2), measure=Machine(1.0, 3.0))
    # The small one: 500 pairs in 1.5 s; the large one: 50,000 in 50 s.
    assert [one.cost.value for one in report.sizes] == [1.0, pytest.approx(1 / 3)]
    assert [one.pairs_per_second for one in report.sizes] == pytest.approx([500 / 3, 500])
    assert [one.cost.value for one in report.lengths] == pytest.approx([1.0, 1.0])


def test_costs_whose_rounds_scatter_are_withheld(exported: Bundle) -> None:
    """The large matrix takes four times as long in every other round, the small one never."""
    machine = Machine(1.0, 1.0, 1.0)
    turns = iter([1.0, 4.0, 1.0])

    def measure(job: Job) -> dict[str, Any]:
        found = machine(job)
        slowness = next(turns) if job.pairs == LARGE.pairs else 1.0
        return found | {"seconds": slowness * found["seconds"]}

    report = measure_scaling(exported, options(repeats=3), measure=measure)
    small, large = report.to_json()["sizes"]
    assert (small["cost_per_pair_relative_to_first"], small["withheld"]) == (1.0, {})
    assert large["cost_per_pair_relative_to_first"] is None
    assert list(large["withheld"]) == ["cost_per_pair_relative_to_first"]
    table = size_table(report.sizes)
    assert "\n".join(table).count(WITHHELD) == 1
    legend = [line for line in scaling_lines(report) if holds(line, WITHHELD) and line not in table]
    assert [holds(line, "50 %") for line in legend] == [True]


def test_memory_beyond_inputs_and_result(exported: Bundle) -> None:
    report = measure_scaling(exported, options(repeats=2), measure=Machine(1.0, 1.0))
    small, large = report.sizes
    assert small.rss_anon_peak == 80 * MB + 1  # the largest of the rounds
    assert small.rss_anon_beyond == 80 * MB + 1 - 2 * MB - 5 * MB - 2000
    assert large.rss_anon_beyond == 80 * MB + 1 - 2 * MB - 5 * MB - 200_000


def test_without_the_kernels_account_memory_is_unknown(exported: Bundle) -> None:
    def blind(job: Job) -> dict[str, Any]:
        unknown = dict.fromkeys(("loaded", "start", "peak"))
        return Machine(1.0)(job) | {"rss_anon": unknown}

    report = measure_scaling(exported, options(), measure=blind)
    assert {one.rss_anon_peak for one in report.sizes} == {None}
    assert {one.rss_anon_beyond for one in report.sizes} == {None}


def test_a_report_can_be_compared_with_another(exported: Bundle) -> None:
    report = measure_scaling(exported, options(), measure=Machine(1.0)).to_json()
    assert json.loads(json.dumps(report)) == report
    run = report["run"]
    assert (run["bundle_sha256"], run["engine"], run["seed"]) == (exported.sha256, "ort", 0)
    assert {"device", "versions", "processor", "executed", "precision"} <= set(run)
    assert [one["captions"] for one in report["sizes"]] == [50, 500]
    assert [one["mean_words"] for one in report["lengths"]] == [5, 10]


def test_a_point_is_measured_by_its_clocks(exported: Bundle) -> None:
    """A clock that moves by 60 s between two looks, over as many runs as make enough pairs."""
    ticks = [accumulate(repeat(seconds)) for seconds in (60.0, 90.0)]
    clocks = Clocks(lambda: next(ticks[0]), lambda: next(ticks[1]))
    job = Job(str(exported.path), 40, 1000, 3, 5, engine="ort", threads=1)

    found = measure(job, clocks)

    assert (found["pairs"], found["runs"]) == (40_000, 5)
    assert (found["seconds"], found["cpu_seconds"]) == (12.0, 18.0)
    assert found["result_bytes"] == 4 * 40_000
    assert (found["engine"], found["executed"], found["workers"]) == ("ort", "fp32", 1)
    assert 3 < found["mean_words"] < 5
    memory = found["rss_anon"]
    if memory["peak"] is not None:
        assert memory["peak"] >= memory["start"] >= memory["loaded"] > 0


def test_random_inputs_are_the_seeds(exported: Bundle) -> None:
    config = exported.manifest.members["sgr"].config
    job = Job("", 9, 30, 2, 4)
    regions, ids = random_inputs(job, exported)

    assert regions.shape == (9, config.regions, config.img_dim)
    assert regions.std() == pytest.approx(1, abs=0.1)
    assert not np.array_equal(regions[0], regions[1])
    assert {len(one) for one in ids} == {2, 3, 4}
    again = random_inputs(job, exported)
    np.testing.assert_array_equal(regions, again[0])
    other = random_inputs(Job("", 9, 30, 2, 4, seed=1), exported)
    assert not np.array_equal(regions, other[0])


def test_many_images_take_little_memory(exported: Bundle) -> None:
    config = exported.manifest.members["sgr"].config
    regions, _ = random_inputs(Job("", 1000, 1, 2, 4), exported)
    assert np.shares_memory(regions[0], regions[config.regions - 1])


def test_a_child_measures_a_bundle(exported: Bundle) -> None:
    found = in_a_child(Job(str(exported.path), 200, 1000, 3, 3, engine="ort", threads=1))
    assert (found["pairs"], found["engine"]) == (200_000, "ort")
    assert found["seconds"] > 0


def test_what_a_child_says_becomes_the_error(tmp_path: Path) -> None:
    bundle = tmp_path / "no.sgraf"
    with refused(SgrafDeployError, "2 images", "3 captions", got=naming(bundle)):
        in_a_child(Job(str(bundle), 2, 3, 5, 5))


def test_a_killed_child_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    killed = (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)")
    monkeypatch.setattr("sgraf_deploy.bench.scaling.COMMAND", killed)
    with refused(SgrafDeployError, got=naming("SIGKILL"), hint="--max-pairs"):
        in_a_child(Job("any.sgraf", 2, 3, 5, 5))


def test_a_child_opens_what_was_chosen(exported: Bundle) -> None:
    machine, folder = Machine(1.0), Path("somewhere")
    given = EngineOptions(3, "cuda", (Path("a.pth"),), folder, allow_unverified=True)
    chosen = ScalingOptions(
        Choice("trt", "fp16", "cuda:1"), given, sizes=(SMALL,), word_counts=(5,), repeats=1
    )
    measure_scaling(exported, chosen, measure=machine)
    job = machine.jobs[0]
    assert (job.engine, job.precision) == ("trt", "fp16")
    assert job.engine_options() == replace(given, device="cuda:1")
