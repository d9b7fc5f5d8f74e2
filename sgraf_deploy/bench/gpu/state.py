"""What was found so far, in one file: every step's record, and the machines that they ran on."""

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
"""`missed`: the command ran and found a bound that is not met (exit 1). `not run` is tried again
whenever the steps are run: what it lacked may be there by then."""

DOCUMENT = Document("results", InputError, "take the file that bench gpu wrote", 256 * 2**20)


@dataclass(frozen=True)
class Record:
    """How a step ended.

    `reason` says why it was not run; `error` is the end of what a failed one wrote to standard
    error; `result` what it found. `gpu_before` and `gpu_after` are the clocks, temperature and
    power that nvidia-smi gives, None where it is not there. `machine` is a place among the state's.
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
        """A record of a step with what is known of it, and None for all else."""
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
    """Everything that a run has found; a later run goes on from it."""

    schema: int
    small: bool
    data: str
    """What tells the real data from others: `PlanOptions.key`."""
    commands: tuple[str, ...]
    machines: tuple[dict[str, Any], ...]
    records: tuple[Record, ...]

    def record(self, step: str) -> Record | None:
        """A step's, if there is one."""
        return next((one for one in self.records if one.step == step), None)

    def with_record(self, record: Record) -> State:
        """The same with a step's new record at the place of its old one."""
        records = {one.step: one for one in self.records} | {record.step: record}
        return replace(self, records=tuple(records.values()))

    def with_machine(self, machine: dict[str, Any]) -> tuple[State, int]:
        """The same with a machine among those that steps ran on, and its place."""
        machines = self.machines if machine in self.machines else (*self.machines, machine)
        return replace(self, machines=machines), machines.index(machine)

    def with_command(self, command: str) -> State:
        """The same with a command line among those that ran the steps."""
        commands = dict.fromkeys((*self.commands, command))
        return replace(self, commands=tuple(commands))


def new_state(data: str, *, small: bool) -> State:
    """Nothing is known yet."""
    return State(SCHEMA, small, data, (), (), ())


def read_state(path: Path) -> State:
    """A file of an earlier run, or the one in a folder; InputError for what is none."""
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
    """The state in a folder, a new one where there is none.

    Raises InputError for one of another size or of other data: a step is not run twice.
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
    """Write it, whole or not at all."""
    write_json(folder / FILE, encode(state), what="results")


def _described(small: bool, data: str) -> str:
    return f"{'the trial' if small else 'the full'} sizes on data {data}"
