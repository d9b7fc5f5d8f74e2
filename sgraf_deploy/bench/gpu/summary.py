"""Merges the results of several runs, and checks every bound for each machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sgraf_deploy.bench.gpu.bounds import Records, Verdict, verdicts
from sgraf_deploy.bench.gpu.figures import figures
from sgraf_deploy.bench.gpu.state import Record, State
from sgraf_deploy.schema import encode

FILE = "summary.json"
UNKNOWN = "unknown machine"


def summarise(states: Sequence[State]) -> dict[str, Any]:
    """Machines, commands and steps of all runs, and the bounds of every machine.

    If several runs have a record of a step, the last one counts. Verdicts of a trial are marked,
    because they prove nothing.
    """
    machines = []
    for small in (False, True):
        same = [state for state in states if state.small == small]
        for name, records in _by_machine(same).items():
            machines.append(_of_machine(name, records, same, small=small))
    return {"machines": machines}


def _by_machine(states: Sequence[State]) -> dict[str, list[Record]]:
    """Records by the name of their machine; a record without a machine belongs to all of them."""
    names = list(dict.fromkeys(name_of(machine) for state in states for machine in state.machines))
    by_name: dict[str, list[Record]] = {n: [] for n in names or ([UNKNOWN] if states else [])}
    for state in states:
        for record in state.records:
            index = record.machine
            machines = by_name if index is None else [name_of(state.machines[index])]
            for name in machines:
                by_name[name].append(record)
    return by_name


def name_of(machine: dict[str, Any]) -> str:
    """The name of a machine: its GPUs, or its processor if it has none."""
    return ", ".join(machine["gpus"]) or machine["processor"]


def _of_machine(
    name: str, records: list[Record], states: Sequence[State], *, small: bool
) -> dict[str, Any]:
    latest = list({record.step: record for record in records}.values())
    described = [m for state in states for m in state.machines if name_of(m) == name]
    return {
        "machine": name,
        "trial": small,
        "described": described,
        "commands": list(dict.fromkeys(command for state in states for command in state.commands)),
        "bounds": [_plain(verdict, small=small) for verdict in verdicts(Records(records))],
        "figures": [{"step": step, "found": text} for step, text in figures(latest)],
        "steps": [encode(record) | {"result": None} for record in latest],
    }


def _plain(verdict: Verdict, *, small: bool) -> dict[str, Any]:
    fields = verdict.to_json()
    if small and verdict.met != "not run":
        fields["met"] = f"trial, {verdict.met}"
    return fields


Rows = list[tuple[str, ...]]


def rows_of(summary: dict[str, Any]) -> list[tuple[str, Rows, Rows]]:
    """The tables of each machine: its heading, rows of (step, figures), and rows of (verdict,
    bound, requirement, measured value)."""
    tables = []
    for machine in summary["machines"]:
        trial = " (a trial of the script: its sizes prove nothing)" if machine["trial"] else ""
        measured: Rows = [(step["step"], step["found"]) for step in machine["figures"]]
        rows: Rows = [
            (bound["met"], bound["what"], bound["wanted"], _shown(bound))
            for bound in machine["bounds"]
        ]
        tables.append((f"{machine['machine']}{trial}", measured, rows))
    return tables


def _shown(verdict: dict[str, Any]) -> str:
    value = verdict["found"]
    if value is None:
        return str(verdict["reason"] or "")
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text if verdict["reason"] is None else f"{text}: {verdict['reason']}"
