"""Steps that are run, resumed, skipped and refused, with a runner that only pretends."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from sgraf_deploy.bench.gpu.plan import PlanOptions, make_plan
from sgraf_deploy.bench.gpu.run import DESCRIBE, StepRun, World
from sgraf_deploy.bench.gpu.runner import Ended
from sgraf_deploy.bench.gpu.state import State, new_state, resume, save
from sgraf_deploy.bench.gpu.steps import Step
from sgraf_deploy.errors import InputError, UnavailableError

MACHINE = {"gpus": ["GPU A (9.0)"], "cuda": "13.0", "processor": "2 × CPU", "versions": {}}


class Killed(BaseException):
    """As a power cut."""


@dataclass
class Pretender:
    """Answers each command as its step's answer says; `kill` names the step to die in."""

    steps: list[Step]
    missing: dict[str, str] = field(default_factory=dict)
    answers: dict[str, Callable[[Step], Ended]] = field(default_factory=dict)
    kill: str | None = None
    machine: Ended | None = None
    asked: list[str] = field(default_factory=list)

    def __call__(
        self, command: Sequence[str], seconds: float, environment: Mapping[str, str]
    ) -> Ended:
        if list(command) == DESCRIBE.command:
            found = Ended(0, 1.0, json.dumps(MACHINE | {"missing": self.missing}))
            return self.machine or found
        step = next(one for one in self.steps if one.command == list(command))
        assert seconds == step.seconds
        assert dict(step.environment).items() <= environment.items()
        self.asked.append(step.name)
        if step.name == self.kill:
            self.kill = None
            raise Killed
        return self.answers.get(step.name, well)(step)


def well(step: Step) -> Ended:
    """It leaves what it makes, and reports its name."""
    if step.makes is not None:
        step.makes.mkdir(parents=True, exist_ok=True)
    if step.report is not None:
        step.report.write_text(json.dumps({"step": step.name}), encoding="utf-8")
    return Ended(0, 2.0, "", "a note\n")


def badly(
    exit_code: int | None, stderr: str = "Traceback\nValueError: no\n"
) -> Callable[[Step], Ended]:
    return lambda _: Ended(exit_code, 3.0, "", stderr)


@dataclass
class Bench:
    """A plan, and where its results are."""

    folder: Path
    options: PlanOptions
    steps: list[Step]
    pretender: Pretender
    told: list[str] = field(default_factory=list)
    seconds: Iterator[float] = field(default_factory=lambda: map(float, count()))

    def run(self, **more: Any) -> tuple[State, list[Step]]:
        state = resume(self.folder, self.options.key, small=self.options.small)
        world = World(
            self.pretender,
            lambda: {"clocks.sm": "1980 MHz"},
            lambda: "now",
            lambda: next(self.seconds),
        )
        run = StepRun(
            self.steps,
            state.with_command("sgraf-deploy bench gpu"),
            save=lambda state: save(self.folder, state),
            tell=self.told.append,
            packages=self.folder / "packages",
            world=world,
            **more,
        )
        left = run.run()
        return run.state, left

    def outcomes(self) -> dict[str, str]:
        state = resume(self.folder, self.options.key, small=self.options.small)
        return {one.step: one.outcome for one in state.records}


def bench_in(folder: Path, **more: Any) -> Bench:
    folder.mkdir()
    options = PlanOptions(folder / "work", **more)
    steps = make_plan(options)
    return Bench(folder, options, steps, Pretender(steps))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """Two engines, one module."""
    return bench_in(tmp_path / "r", engines=("torch", "trt"), modules=("SAF",))


def test_every_step_is_run_once_and_recorded(bench: Bench) -> None:
    state, left = bench.run()

    assert left == []
    assert bench.pretender.asked == [step.name for step in bench.steps]
    assert [one.step for one in state.records] == bench.pretender.asked
    assert {one.outcome for one in state.records} == {"ok"}
    record = state.record("speed-SAF-trt-fp16")
    assert record is not None
    assert (record.exit, record.seconds, record.error) == (0, 2.0, ())
    assert (record.module, record.engine, record.machine) == ("SAF", "trt:fp16", 0)
    assert record.result == {"step": "speed-SAF-trt-fp16"}
    assert record.gpu_before == record.gpu_after == {"clocks.sm": "1980 MHz"}
    assert state == resume(bench.folder, "demo", small=False)

    assert bench.run() == (state, [])
    assert len(bench.pretender.asked) == len(bench.steps)


def test_a_run_that_is_killed_in_any_step_goes_on_there(tmp_path: Path) -> None:
    engines, answers = (
        ("ort", "torch"),
        {"recall-ort-fp32": badly(2), "speed-SGR-ort-fp32": badly(None)},
    )
    whole = bench_in(tmp_path / "whole", engines=engines, modules=("SGR",), small=True)
    whole.pretender.answers = answers
    expected = without_folder(whole.run()[0], whole)
    runs = whole.pretender.asked
    assert len(runs) > 14

    for step in runs:
        cut = bench_in(tmp_path / f"cut-{step}", engines=engines, modules=("SGR",), small=True)
        cut.pretender.answers, cut.pretender.kill = answers, step
        with pytest.raises(Killed):
            cut.run()
        assert step not in cut.outcomes()
        found, left = cut.run()

        assert left == []
        assert without_folder(found, cut) == expected, step
        assert sorted(cut.pretender.asked) == sorted([*runs, step])


def without_folder(state: State, bench: Bench) -> str:
    return repr(state).replace(str(bench.folder), "")


def test_what_a_machine_lacks_is_no_failure_and_is_tried_again(bench: Bench) -> None:
    bench.pretender.missing = {"trt@cuda": "TensorRT is not available", "gpu": "no NVIDIA driver"}
    state, _ = bench.run()

    for name, reason in (
        ("kernels", "no NVIDIA driver"),
        ("compile-SAF", "TensorRT is not available"),
        (
            "speed-SAF-trt-fp16",
            "it needs compile-SAF, which was not run: TensorRT is not available",
        ),
    ):
        record = state.record(name)
        assert record is not None
        assert (record.outcome, record.reason, record.exit) == ("not run", reason, None)
    assert "speed-SAF-torch-fp16" in bench.pretender.asked

    bench.pretender.missing = {}
    bench.pretender.asked.clear()
    state, _ = bench.run()
    assert {one.outcome for one in state.records} == {"ok"}
    assert "speed-SAF-torch-fp16" not in bench.pretender.asked
    assert len(state.machines) == 2


def test_a_failure_takes_along_what_needs_it_alone(bench: Bench) -> None:
    lines = "\n".join(f"line {number}" for number in range(40))
    bench.pretender.answers = {"compile-SAF": badly(2, lines)}
    state, _ = bench.run()

    failed = state.record("compile-SAF")
    assert failed is not None
    assert (failed.outcome, failed.exit, failed.error[-1]) == ("failed", 2, "line 39")
    assert len(failed.error) < 20
    outcomes = bench.outcomes()
    assert [name for name, one in outcomes.items() if one == "not run"] == [
        "speed-SAF-trt-fp16",
        *(f"evaluation-SAF-trt-fp16-{gib}GiB" for gib in (8, 32, 1)),
        "profile-SAF-trt-fp16",
    ]

    bench.pretender.asked.clear()
    bench.run()
    assert bench.pretender.asked == []
    bench.pretender.answers = {}
    bench.run(again=True)
    assert set(bench.outcomes().values()) == {"ok"}
    assert bench.pretender.asked[0] == "compile-SAF"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (badly(None), "timed out"),
        (badly(-9), "failed"),
        (badly(1), "failed"),  # an exception that nobody expected
        (lambda step: replace(well(step), exit=1), "missed"),
        (lambda _: Ended(0, 1.0), "failed"),  # no report
    ],
    ids=["time", "signal", "exception", "bound", "no-report"],
)
def test_how_a_step_ends(bench: Bench, answer: Callable[[Step], Ended], outcome: str) -> None:
    bench.pretender.answers = {"speed-SAF-torch-fp16": answer}
    record = bench.run()[0].record("speed-SAF-torch-fp16")
    assert record is not None
    assert record.outcome == outcome
    assert record.reason
    assert (record.result is not None) == (outcome == "missed")


def test_a_report_of_an_earlier_try_is_not_taken(bench: Bench) -> None:
    step = next(one for one in bench.steps if one.name == "speed-SAF-torch-fp16")
    assert step.report is not None
    step.report.parent.mkdir(parents=True)
    step.report.write_text('{"old": 1}', encoding="utf-8")
    bench.pretender.answers = {step.name: lambda _: Ended(0, 1.0)}
    record = bench.run()[0].record(step.name)
    assert record is not None
    assert (record.outcome, record.result) == ("failed", None)


def test_no_report_that_is_no_json_is_taken(bench: Bench) -> None:
    step = next(one for one in bench.steps if one.name == "speed-SAF-torch-fp16")

    def garbage(step: Step) -> Ended:
        assert step.report is not None
        step.report.write_text('{"p99": NaN}', encoding="utf-8")
        return Ended(0, 1.0)

    bench.pretender.answers = {step.name: garbage}
    record = bench.run()[0].record(step.name)
    assert record is not None
    assert (record.outcome, record.result) == ("failed", None)


def test_what_a_step_made_and_is_gone_is_made_again(bench: Bench) -> None:
    bench.run()
    bundle = next(step.makes for step in bench.steps if step.name == "export-SAF")
    assert bundle is not None
    bundle.rmdir() if not any(bundle.iterdir()) else (bundle / "engines").rmdir()
    if bundle.exists():
        bundle.rmdir()
    bench.pretender.asked.clear()
    bench.run()
    assert bench.pretender.asked == ["export-SAF", "compile-SAF"]


def test_no_step_begins_once_the_time_is_up(bench: Bench) -> None:
    """The clock takes a second a look: one to begin with, and one a step."""
    state, left = bench.run(minutes=3.5 / 60)
    assert [one.step for one in state.records] == [step.name for step in bench.steps[:3]]
    assert left == bench.steps[3:]
    assert bench.run()[1] == []
    assert set(bench.outcomes().values()) == {"ok"}


def test_a_program_that_is_not_there_is_a_reason(bench: Bench) -> None:
    def absent(_: Step) -> Ended:
        raise UnavailableError("compute-sanitizer cannot be run")

    bench.pretender.answers = {"sanitize-kernels": absent}
    assert bench.run()[0].record("sanitize-kernels") is not None
    assert bench.outcomes()["sanitize-kernels"] == "not run"


def test_a_machine_that_cannot_be_described_ends_the_run(bench: Bench) -> None:
    bench.pretender.machine = Ended(1, 0.0, "", "ModuleNotFoundError: numpy\n")
    with pytest.raises(UnavailableError) as caught:
        bench.run()
    assert "numpy" in caught.value.reason


def test_results_of_other_sizes_or_data_are_not_gone_on_with(bench: Bench) -> None:
    bench.run()
    for data, small in (("demo", True), ("abc", False)):
        with pytest.raises(InputError) as caught:
            resume(bench.folder, data, small=small)
        assert "--results" in (caught.value.hint or "")
    assert new_state("demo", small=False).records == ()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1}'])
def test_what_is_no_state_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "gpu.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        resume(tmp_path, "demo", small=False)
    assert "gpu.json" in caught.value.reason
