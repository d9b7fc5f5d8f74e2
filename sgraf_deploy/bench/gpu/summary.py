"""Merges what several runs found, and says of every bound whether it is met, machine by machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sgraf_deploy.bench.gpu.bounds import Records, Verdict, verdicts
from sgraf_deploy.bench.gpu.figures import figures
from sgraf_deploy.bench.gpu.state import Record, State
from sgraf_deploy.schema import encode

FILE = "summary.json"
UNKNOWN = "no machine was looked at"


def summarise(states: Sequence[State]) -> dict[str, Any]:
    """Everything of everyone: machines, commands, steps, and the bounds of every machine.

    Of a step that several runs took, the last one's record counts. A trial's verdicts say that they
    prove nothing.
    """
    found = []
    for small in (False, True):
        same = [state for state in states if state.small == small]
        for name, records in _by_machine(same).items():
            found.append(_of_machine(name, records, same, small=small))
    return {"machines": found}


def _by_machine(states: Sequence[State]) -> dict[str, list[Record]]:
    """Records by the machine that they were made on; what was not run anywhere is everyone's."""
    names = list(dict.fromkeys(name_of(machine) for one in states for machine in one.machines))
    found: dict[str, list[Record]] = {name: [] for name in names or ([UNKNOWN] if states else [])}
    for state in states:
        for record in state.records:
            own = record.machine
            machines = found if own is None else [name_of(state.machines[own])]
            for name in machines:
                found[name].append(record)
    return found


def name_of(machine: dict[str, Any]) -> str:
    """A machine by its GPUs, or its processor."""
    return ", ".join(machine["gpus"]) or machine["processor"]


def _of_machine(
    name: str, records: list[Record], states: Sequence[State], *, small: bool
) -> dict[str, Any]:
    latest = list({one.step: one for one in records}.values())
    described = [m for state in states for m in state.machines if name_of(m) == name]
    return {
        "machine": name,
        "trial": small,
        "described": described,
        "commands": list(dict.fromkeys(one for state in states for one in state.commands)),
        "bounds": [_plain(one, small=small) for one in verdicts(Records(records))],
        "figures": [{"step": step, "found": found} for step, found in figures(latest)],
        "steps": [encode(one) | {"result": None} for one in latest],
    }


def _plain(verdict: Verdict, *, small: bool) -> dict[str, Any]:
    found = verdict.to_json()
    if small and verdict.met != "not run":
        found["met"] = f"trial, {verdict.met}"
    return found


Rows = list[tuple[str, ...]]


def rows_of(summary: dict[str, Any]) -> list[tuple[str, Rows, Rows]]:
    """For people: of each machine its heading, step and figures; verdict, bound, wanted, found."""
    found = []
    for machine in summary["machines"]:
        trial = " (a trial of the script: its sizes prove nothing)" if machine["trial"] else ""
        measured: Rows = [(one["step"], one["found"]) for one in machine["figures"]]
        rows: Rows = [
            (one["met"], one["what"], one["wanted"], _shown(one)) for one in machine["bounds"]
        ]
        found.append((f"{machine['machine']}{trial}", measured, rows))
    return found


def _shown(verdict: dict[str, Any]) -> str:
    found = verdict["found"]
    if found is None:
        return str(verdict["reason"] or "")
    text = f"{found:.3g}" if isinstance(found, float) else str(found)
    return text if verdict["reason"] is None else f"{text}: {verdict['reason']}"
