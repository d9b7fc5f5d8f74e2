"""The steps: their order, their limits, and which of them a pattern names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sgraf_deploy.bench.gpu.plan import BUDGETS, DEFAULT_ENGINES, PlanOptions, make_plan
from sgraf_deploy.bench.gpu.steps import MOST_SECONDS, Step, select
from sgraf_deploy.errors import InputError

FULL = PlanOptions(Path("/w"))
TRIAL = replace(FULL, small=True, engines=("ort", "torch"))
PREPARED = replace(FULL, prepared=Path("/p"), key="abc")


def names(steps: list[Step]) -> list[str]:
    return [step.name for step in steps]


@pytest.mark.parametrize("options", [FULL, TRIAL, PREPARED], ids=["full", "trial", "prepared"])
def test_a_step_is_short_and_needs_earlier_ones_alone(options: PlanOptions) -> None:
    seen: set[str] = set()
    for step in make_plan(options):
        assert step.name not in seen
        assert 0 < step.seconds <= MOST_SECONDS
        assert set(step.needs) <= seen
        assert step.words[0] in ("python", "compute-sanitizer")
        seen.add(step.name)


def test_values_come_before_speed_and_whole_evaluations_last() -> None:
    kinds = list(dict.fromkeys(step.kind for step in make_plan(FULL) if step.kind != "setup"))
    order = ["kernels", "fused-values", "sanitizer", "reference", "recall", "compile", "portable"]
    assert kinds == [*order, "speed", "evaluation", "profile"]


def test_every_engine_is_compared_in_its_precisions_and_timed_once_per_module() -> None:
    plan = make_plan(FULL)
    compared = [step.engine for step in plan if step.kind == "recall"]
    assert compared == [f"{name}:{each}" for name in DEFAULT_ENGINES for each in ("fp32", "fp16")]
    timed = [(step.module, step.engine) for step in plan if step.kind == "speed"]
    assert timed == [(m, f"{name}:fp16") for m in ("SGR", "SAF") for name in DEFAULT_ENGINES]
    budgets = [step.gib for step in plan if step.kind == "evaluation"]
    assert budgets == [gib for gib in BUDGETS for _ in range(2 * len(DEFAULT_ENGINES))]


def test_a_full_run_asks_for_a_gpu_of_engines_that_could_do_without() -> None:
    by_name = {step.name: step for step in make_plan(FULL)}
    assert by_name["speed-SGR-torch-fp16"].requires == ("torch@cuda",)
    trial = {step.name: step for step in make_plan(TRIAL)}
    assert trial["speed-SGR-torch-fp32"].requires == ("torch",)


def test_a_precision_may_be_named() -> None:
    plan = make_plan(replace(FULL, engines=("torch:fp32",), modules=("SAF",)))
    engines = {step.engine for step in plan if step.engine is not None}
    assert engines == {"torch:fp32"}
    assert {step.module for step in plan} == {None, "SAF"}


@pytest.mark.parametrize("engine", ["turbo", "ort:fp16", "torch:fp8"])
def test_an_engine_that_there_is_not_is_refused(engine: str) -> None:
    with pytest.raises(InputError) as caught:
        make_plan(replace(FULL, engines=(engine,)))
    assert caught.value.expected is not None


def test_only_takes_what_a_step_needs_along() -> None:
    plan = make_plan(FULL)
    assert names(select(plan, ["speed-SAF-trt*"])) == [
        "export-SAF",
        "compile-SAF",
        "speed-SAF-trt-fp16",
    ]
    assert names(select(plan, ["recall-torch-fp16"])) == [
        *("prepare", "unpack", "reference", "recall-torch-fp16")
    ]
    assert select(plan, []) == plan
    with pytest.raises(InputError) as caught:
        select(plan, ["speed-*", "nothing"])
    assert "--dry-run" in (caught.value.hint or "")


def test_a_command_is_shown_without_folders() -> None:
    by_name = {step.name: step for step in make_plan(FULL)}
    assert "/" not in by_name["speed-SGR-torch-fp16"].shown
    assert "random-SGR.sgraf" in by_name["speed-SGR-torch-fp16"].shown
    assert by_name["sanitize-fused-SGR"].shown.startswith(
        "PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-"
    )


def test_what_was_prepared_is_unpacked_without_preparing() -> None:
    plan = {step.name: step for step in make_plan(PREPARED)}
    assert "prepare" not in plan
    assert plan["unpack"].needs == ()
    assert plan["unpack"].words[-2:] == ("/p", "/w/data-abc")
