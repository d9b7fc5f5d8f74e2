"""Runs the unfinished steps one after the other, and writes the state after each."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sgraf_deploy.bench.gpu.machine import snapshot
from sgraf_deploy.bench.gpu.runner import Ended, Runner, environment_of, run_command
from sgraf_deploy.bench.gpu.state import Outcome, Record, State
from sgraf_deploy.bench.gpu.steps import PYTHON, Step
from sgraf_deploy.errors import InputError, SgrafDeployError, UnavailableError
from sgraf_deploy.schema import Document, parse

DESCRIBE = Step(
    "machine",
    "setup",
    (PYTHON, "-m", "sgraf_deploy.bench.gpu.machine"),
    120,
)

REPORT = Document("report of the step", InputError, None, 64 * 2**20)

Save = Callable[[State], None]
Tell = Callable[[str], None]


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


@dataclass(frozen=True)
class World:
    """The effects of steps besides the state, which tests replace."""

    run: Runner = run_command
    snapshot: Callable[[], dict[str, Any] | None] = snapshot
    now: Callable[[], str] = _now
    clock: Callable[[], float] = time.monotonic


@dataclass
class StepRun:
    """One run of `bench gpu`.

    `again` also runs the steps that failed. `minutes` is the time limit of the whole run, after
    which no step is started. `packages` is a folder of modules that steps may import.
    """

    steps: Sequence[Step]
    state: State
    save: Save
    tell: Tell
    packages: Path
    world: World
    again: bool = False
    minutes: float | None = None
    _machine: int | None = None

    def run(self) -> list[Step]:
        """Run the unfinished steps; return those that were not started because the time was up."""
        self.save(self.state)
        begin = self.world.clock()
        for place, step in enumerate(self.steps):
            if self._has_ended(step):
                continue
            if self.minutes is not None and self.world.clock() - begin >= 60 * self.minutes:
                return [later for later in self.steps[place:] if not self._has_ended(later)]
            self._keep(self._blocked(step) or self._run(step))
        return []

    def _has_ended(self, step: Step) -> bool:
        record = self.state.record(step.name)
        if record is None or record.outcome == "not run":
            return False
        if record.outcome == "ok":
            return step.makes is None or step.makes.exists()
        return not self.again

    def _blocked(self, step: Step) -> Record | None:
        """A record of why a step cannot be run: a step that it needs, or this machine; or None."""
        for need in step.needs:
            record = self.state.record(need)
            if record is None or record.outcome != "ok":
                why = "" if record is None or record.reason is None else f": {record.reason}"
                outcome = "was not run" if record is None else _ENDED[record.outcome]
                return Record.of(step, "not run", f"it needs {need}, which {outcome}{why}")
        if step.requires:
            machine = self._describe()
            missing = self.state.machines[machine]["missing"]
            reasons = [missing[name] for name in step.requires if name in missing]
            if reasons:
                return Record.of(step, "not run", reasons[0], machine=machine)
        return None

    def _run(self, step: Step) -> Record:
        self.tell(f"== {step.name}, at most {step.seconds / 60:.0f} minutes: {step.shown}")
        world = self.world
        if step.report is not None:  # An earlier run's report must not be taken for this one's.
            step.report.parent.mkdir(parents=True, exist_ok=True)
            step.report.unlink(missing_ok=True)
        before = world.snapshot()
        # Setup steps may install packages, so the machine is not described before them.
        machine = None if step.kind == "setup" else self._describe()
        try:
            ended = self._execute(step)
        except UnavailableError as error:
            return Record.of(step, "not run", error.reason, machine=machine)
        outcome, reason, result = _judge(step, ended)
        return Record.of(
            step,
            outcome,
            reason,
            machine=machine,
            ended=world.now(),
            exit=ended.exit,
            seconds=round(ended.seconds, 1),
            error=() if outcome == "ok" else ended.last_lines,
            gpu_before=before,
            gpu_after=world.snapshot(),
            result=result,
        )

    def _execute(self, step: Step) -> Ended:
        environment = environment_of(self.packages) | dict(step.environment)
        return self.world.run(step.command, step.seconds, environment)

    def _describe(self) -> int:
        """The index of this machine in the state; the machine is described once, when needed.

        Raises UnavailableError if it cannot be described.
        """
        if self._machine is None:
            ended = self._execute(DESCRIBE)
            if ended.exit != 0:
                got = " ".join(ended.last_lines) or f"exit {ended.exit}"
                raise UnavailableError("this machine cannot be described", got=got)
            machine = parse(ended.stdout, REPORT)
            self.state, self._machine = self.state.with_machine(machine)
        return self._machine

    def _keep(self, record: Record) -> None:
        self.state = self.state.with_record(record)
        self.save(self.state)
        self.tell(outcome_line(record))


_ENDED: dict[Outcome, str] = {
    "ok": "left nothing",
    "missed": "missed a bound",
    "failed": "failed",
    "timed out": "timed out",
    "not run": "was not run",
}


def outcome_line(record: Record) -> str:
    """One line on how a step ended."""
    parts = [f"{record.step}: {record.outcome}"]
    if record.seconds is not None:
        parts[0] += f" after {record.seconds:.1f} s"
    parts += [part for part in (record.reason, *record.error[-1:]) if part]
    return "; ".join(parts)


def _judge(step: Step, ended: Ended) -> tuple[Outcome, str | None, dict[str, Any] | None]:
    """The outcome of a step, the reason if it is not ok, and its result."""
    if ended.exit is None:
        return "timed out", f"it exceeded its limit of {step.seconds} seconds", None
    result, defect = None, None
    try:
        result = _result(step)
    except SgrafDeployError as error:
        defect = error.reason
    if ended.exit == 0 and defect is None:
        if step.makes is not None and not step.makes.exists():
            return "failed", f"it did not write {step.makes.name}", result
        return "ok", None, result
    if ended.exit == step.missed_exit or (ended.exit == 1 and result is not None):
        return "missed", "it missed a bound", result
    if ended.exit == 0:
        return "failed", defect, None
    how = f"exit code {ended.exit}" if ended.exit > 0 else f"signal {-ended.exit}"
    return "failed", how, result


def _result(step: Step) -> dict[str, Any] | None:
    """The report of a step, None if it writes none; InputError if it is not a JSON object."""
    if step.report is None:
        return None
    try:
        content = REPORT.read(step.report)
    except OSError as error:
        raise InputError("report of the step", got=error.strerror or error) from error
    report = parse(content, REPORT)
    if not isinstance(report, dict):
        raise InputError("report of the step", expected="an object", got="another JSON value")
    return report
