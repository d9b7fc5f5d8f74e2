"""Of every bound: met, missed or not run, whatever was run, where and how often."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from sgraf_deploy.bench.gpu.bounds import EVALUATION_SECONDS, NO_STEP, Records, Verdict, verdicts
from sgraf_deploy.bench.gpu.state import Outcome, Record, State, new_state
from sgraf_deploy.bench.gpu.steps import Step
from sgraf_deploy.bench.gpu.summary import UNKNOWN, rows_of, summarise

MACHINE: dict[str, Any] = {"gpus": ["GPU A (9.0)"], "processor": "CPU", "missing": {}}
OTHER = MACHINE | {"gpus": ["GPU B (12.0)"]}
FULL = new_state("demo", small=False)


def record(
    kind: str, outcome: Outcome = "ok", name: str | None = None, machine: int = 0, **more: Any
) -> Record:
    fields = {key: more.pop(key) for key in ("module", "engine", "gib") if key in more}
    step = Step(
        name or f"{kind}-{'-'.join(map(str, fields.values()))}", kind, ("python",), 1, **fields
    )
    return Record.of(step, outcome, more.pop("reason", None), machine=machine, **more)


def judged(*records: Record) -> dict[str, list[Verdict]]:
    found: dict[str, list[Verdict]] = {}
    for one in verdicts(Records(records)):
        found.setdefault(one.what, []).append(one)
    return found


def speed(
    times: float | None = 31.0,
    percent: float = 26.0,
    p99: float = 1.5,
    failed: tuple[str, ...] = (),
) -> dict[str, Any]:
    engine = {
        "engine": "fused fp16 on cuda:0",
        "times_literal": times,
        "percent_of_product_rate": percent,
        "withheld": {} if times is not None else {"times_literal": "the rounds scatter"},
        "per_second": {"score": 3e7},
    }
    literal = engine | {
        "engine": "literal loop",
        "times_literal": 1.0,
        "percent_of_product_rate": None,
    }
    return {
        "run": {"engines": {"fused fp16 on cuda:0": {}}},
        "throughput": {"engines": [literal, engine]},
        "latency": [
            {"candidates": n, "score_ms": {"p50": p99 / 2, "p99": p99 * n / 1000}, "cold_ms": {}}
            for n in (10, 1000)
        ],
        "failed": list(failed),
    }


def evaluation(gib: int, score: float | None, first: float = 99.0) -> dict[str, Any]:
    return {
        "asked_gib": gib,
        "memory_budget": gib * 2**30,
        "seconds": {"encode": 1.0, "score": score, "first_score": first},
        "images": 5000,
        "captions": 25000,
        "tiles": 100,
    }


def parity(model: str, *missed: str) -> dict[str, Any]:
    return {
        "model": model,
        "bounds": [{"name": name, "met": name not in missed} for name in ("logits", "r1")],
    }


def test_of_nothing_every_bound_is_not_run() -> None:
    found = [one for group in judged().values() for one in group]
    assert len(found) == 1 + 4 + 3 + 8 * 3 + 1 + 2 * (4 + 3 + 3 + 3)
    assert {(one.met, one.reason, one.found) for one in found} == {("not run", NO_STEP, None)}
    assert len({(one.what, one.wanted) for one in found}) == len(found)


def test_what_was_measured_never_changes_which_bounds_there_are() -> None:
    before = {(one.what, one.wanted) for group in judged().values() for one in group}
    after = judged(
        record("kernels"),
        record("speed", module="SGR", engine="fused:fp16", result=speed()),
        record("recall", engine="fused:fp16", result={"parity": [parity("SGR")]}),
        record("evaluation", "timed out", module="SAF", engine="fused:fp16", gib=8, reason="long"),
    )
    assert {(one.what, one.wanted) for group in after.values() for one in group} == before


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (speed(), ["met", "met", "met", "met"]),
        (speed(times=29.0, percent=24.0), ["missed", "missed", "met", "met"]),
        (speed(times=None), ["missed", "met", "met", "met"]),
        (speed(p99=2.5, failed=("fp16, SGR: logits",)), ["met", "met", "missed", "missed"]),
    ],
    ids=["met", "slow", "unstable", "late-and-wrong"],
)
def test_speed_is_judged(report: dict[str, Any], expected: list[str]) -> None:
    outcome: Outcome = "missed" if report["failed"] else "ok"
    found = judged(record("speed", outcome, module="SGR", engine="fused:fp16", result=report))
    assert [one.met for one in found["SGR by fused"]] == expected
    assert {one.met for one in found["SAF by fused"]} == {"not run"}


def test_an_engine_whose_speed_means_nothing_is_not_judged() -> None:
    """fp16-rounded on a CPU is in the report, and timed by nobody."""
    report = speed()
    report["throughput"]["engines"] = report["throughput"]["engines"][:1]
    report["latency"] = []
    found = judged(record("speed", module="SGR", engine="fused:fp16", result=report))
    assert [one.met for one in found["SGR by fused"]] == ["not run", "not run", "not run", "met"]


def test_the_fastest_budget_is_judged_and_all_are_told() -> None:
    within = EVALUATION_SECONDS["SAF"]
    found = judged(
        record("evaluation", module="SAF", engine="fused:fp16", gib=1, result=evaluation(1, 40.0)),
        record(
            "evaluation", module="SAF", engine="fused:fp16", gib=8, result=evaluation(8, within)
        ),
        record(
            "evaluation",
            module="SGR",
            engine="fused:fp16",
            gib=8,
            result=evaluation(8, None, 200.0),
        ),
    )
    (saf,) = found["SAF by fused, 5,000 × 25,000 with R@K"]
    assert saf.met == "met"
    assert "1 GiB 40.0 s" in saf.found
    (sgr,) = found["SGR by fused, 5,000 × 25,000 with R@K"]
    assert sgr.met == "missed"


def test_recall_is_judged_model_by_model_and_none_is_left_out() -> None:
    report = {"parity": [parity("SGR"), parity("SAF", "r1")]}
    found = judged(record("recall", "missed", engine="trt:fp16", result=report))
    verdict = {
        name: found[f"{name} by trt:fp16 on real data"][0] for name in ("SGR", "SAF", "SGRAF")
    }
    assert {name: one.met for name, one in verdict.items()} == {
        "SGR": "met",
        "SAF": "missed",
        "SGRAF": "not run",
    }
    assert verdict["SAF"].found == ["r1"]
    assert judged(record("recall", engine="ort:fp32", result=report))[
        "SGR by ort:fp32 on real data"
    ]


def test_kernels_and_values_are_judged_by_what_they_found() -> None:
    found = judged(
        record("kernels", "missed", result={"failed": ["gather a"]}),
        record(
            "fused-values",
            "missed",
            module="SGR",
            engine="fused",
            result={
                "fused_values": [
                    {"precision": "fp32", "met": True, "share_of_bound": 0.1},
                    {"precision": "fp16", "met": False, "share_of_bound": None},
                ]
            },
        ),
        record("sanitizer", "ok", "sanitize-kernels"),
        record(
            "sanitizer", "missed", module="SGR", engine="fused", error=("ERROR SUMMARY: 3 errors",)
        ),
        record("sanitizer", "timed out", module="SAF", engine="fused", reason="540 seconds"),
        record("portable", result={"opens": False, "runs": None, "mask": "0x7e", "reason": "no"}),
    )
    expected = {
        "gathered rows and counted ranks on the device": "missed",
        "SGR by fused:fp32 against float64": "met",
        "SGR by fused:fp16 against float64": "missed",
        "SAF by fused:fp16 against float64": "not run",
        "compute-sanitizer, kernels": "met",
        "compute-sanitizer, SGR by fused": "missed",
        "compute-sanitizer, SAF by fused": "not run",
        "does a portable plan of TensorRT for RTX open here": "met",
    }
    assert {name: found[name][0].met for name in expected} == expected
    assert "540 seconds" in (found["compute-sanitizer, SAF by fused"][0].reason or "")


def state(
    *records: Record, machines: tuple[dict[str, Any], ...] = (MACHINE,), **more: Any
) -> State:
    found = replace(FULL, machines=machines, commands=("sgraf-deploy bench gpu",), **more)
    for one in records:
        found = found.with_record(one)
    return found


def test_runs_of_one_machine_are_one_and_the_last_of_a_step_counts() -> None:
    summary = summarise(
        [
            state(
                record("kernels", "failed"),
                record("speed", module="SGR", engine="fused:fp16", result=speed(1.0)),
            ),
            state(record("speed", module="SGR", engine="fused:fp16", result=speed(40.0))),
        ]
    )
    (machine,) = summary["machines"]
    assert (machine["machine"], machine["trial"]) == ("GPU A (9.0)", False)
    by_name = {(one["what"], one["wanted"]): one for one in machine["bounds"]}
    assert by_name["SGR by fused", "≥ 30 × the literal loop"]["found"] == 40.0
    assert [one["step"] for one in machine["steps"]] == ["kernels-", "speed-SGR-fused:fp16"]
    assert [one["step"] for one in machine["figures"]] == ["speed-SGR-fused:fp16"]
    json.dumps(summary, allow_nan=False)


def test_machines_and_trials_are_kept_apart() -> None:
    here = state(record("kernels"))
    there = state(
        record("kernels", "not run", machine=1),
        record("kernels", name="again"),
        machines=(MACHINE, OTHER),
    )
    trial = state(record("kernels"), small=True)
    summary = summarise([here, there, trial])
    assert [(one["machine"], one["trial"]) for one in summary["machines"]] == [
        ("GPU A (9.0)", False),
        ("GPU B (12.0)", False),
        ("GPU A (9.0)", True),
    ]
    assert [one["bounds"][0]["met"] for one in summary["machines"]] == [
        "met",
        "not run",
        "trial, met",
    ]
    headings = [heading for heading, _, _ in rows_of(summary)]
    assert "trial" in headings[2]
    assert "trial" not in headings[0]


def test_a_run_that_saw_no_machine_is_summarised_too() -> None:
    (machine,) = summarise([FULL])["machines"]
    assert machine["machine"] == UNKNOWN
    assert {one["met"] for one in machine["bounds"]} == {"not run"}


def test_figures_say_what_was_found() -> None:
    kernels = [{"name": f"k{i}", "share": 0.4, "us_each": 2.0} for i in range(3)]
    recall = {"recall": {"SGR": {"rsum": 400.0}}, "images": 9, "captions": 45, "seconds": 1.0}
    (machine,) = summarise(
        [
            state(
                record("reference", result=recall),
                record("speed", module="SGR", engine="fused:fp16", result=speed()),
                record(
                    "evaluation",
                    module="SAF",
                    engine="fused:fp16",
                    gib=8,
                    result=evaluation(8, 9.5),
                ),
                record("profile", module="SAF", engine="fused:fp16", result={"kernels": kernels}),
            )
        ]
    )["machines"]
    said = [one["found"] for one in machine["figures"]]
    for text, part in zip(said, ("rsum 400.0", "31.0 × literal", "9.50", "k1: 40 %"), strict=True):
        assert part in text
