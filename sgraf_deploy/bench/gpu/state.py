"""The results so far, in one file: every step's record, and the machines that they ran on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from sgraf_deploy.bench.gpu.steps import Step
from sgraf_deploy.errors import InputError
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.schema import Document, check_version, decode, encode, parse

FILE = "gpu.json"
SCHEMA = 1

Outcome = Literal["ok", "missed", "failed", "timed out", "not run"]
"""`missed`: the command ran and missed a bound (exit 1). A step that was `not run` is tried again
in every run, because what it lacked may exist by then."""

DOCUMENT = Document("results", InputError, "use a file that bench gpu wrote", 256 * 2**20)


@dataclass(frozen=True)
class Record:
    """The record of a step that ended or could not be run.

    `reason` says why its outcome is not ok; `error` has the last lines of a failed step's standard
    error; `result` is the step's report. `gpu_before` and `gpu_after` are the clocks, temperature
    and power from nvidia-smi, None without it. `machine` is an index into the state's machines.
    """

    step: str
    kind: str
    module: str | None
    engine: str | None
    gib: int | None
    command: str
    outcome: Outcome
    machine: int | None
    ended: str | None
    exit: int | None
    seconds: float | None
    reason: str | None
    error: tuple[str, ...]
    gpu_before: dict[str, Any] | None
    gpu_after: dict[str, Any] | None
    result: dict[str, Any] | None

    @classmethod
    def of(cls, step: Step, outcome: Outcome, reason: str | None = None, **more: Any) -> Record:
        """A record of a step with the given fields, and None for all others."""
        fields = dict.fromkeys(
            ("machine", "ended", "exit", "seconds", "gpu_before", "gpu_after", "result")
        )
        known: dict[str, Any] = {**fields, "error": (), **more}
        return cls(
            step=step.name,
            kind=step.kind,
            module=step.module,
            engine=step.engine,
            gib=step.gib,
            command=step.shown,
            outcome=outcome,
            reason=reason,
            **known,
        )


@dataclass(frozen=True)
class State:
    """The results of all runs so far; a later run continues from them."""

    schema: int
    small: bool
    data: str
    """The identity of the real data: `PlanOptions.key`."""
    commands: tuple[str, ...]
    machines: tuple[dict[str, Any], ...]
    records: tuple[Record, ...]

    def record(self, step: str) -> Record | None:
        """The record of a step, if there is one."""
        return next((record for record in self.records if record.step == step), None)

    def with_record(self, record: Record) -> State:
        """A state in which the record replaces the step's old one."""
        records = {old.step: old for old in self.records} | {record.step: record}
        return replace(self, records=tuple(records.values()))

    def with_machine(self, machine: dict[str, Any]) -> tuple[State, int]:
        """A state that has the machine, and the machine's index."""
        machines = self.machines if machine in self.machines else (*self.machines, machine)
        return replace(self, machines=machines), machines.index(machine)

    def with_command(self, command: str) -> State:
        """A state that has the command line."""
        commands = dict.fromkeys((*self.commands, command))
        return replace(self, commands=tuple(commands))


def new_state(data: str, *, small: bool) -> State:
    """A state without results."""
    return State(SCHEMA, small, data, (), (), ())


def read_state(path: Path) -> State:
    """Read a file of an earlier run, or the one in a folder; InputError if it is not one."""
    file = path / FILE if path.is_dir() else path
    try:
        value = parse(DOCUMENT.read(file), DOCUMENT)
        check_version(value, "schema", (SCHEMA,), DOCUMENT)
        return decode(State, value, DOCUMENT)
    except OSError as error:
        raise InputError(f"results {file} cannot be read", got=error.strerror or error) from error
    except InputError as error:
        raise error.at(file) from error


def resume(folder: Path, data: str, *, small: bool) -> State:
    """The state in a folder, or a new one if there is none.

    Raises InputError for a state of other sizes or other data, whose steps cannot be continued.
    """
    if not (folder / FILE).exists():
        return new_state(data, small=small)
    state = read_state(folder)
    if (state.small, state.data) != (small, data):
        raise InputError(
            f"results in {folder}",
            expected=_described(small, data),
            got=_described(state.small, state.data),
            hint="choose another folder with --results",
        )
    return state


def save(folder: Path, state: State) -> None:
    """Write the state atomically."""
    write_json(folder / FILE, encode(state), what="results")


def _described(small: bool, data: str) -> str:
    return f"{'the trial' if small else 'the full'} sizes on data {data}"
