"""Compares two reports of `bench`: may the second build go live in place of the first?

Recall is compared query by query on the same data, and time round by round, each divided by the
literal loop's time of that round: what the machine did meanwhile weighs less. What each verdict
means stands in `changes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sgraf_deploy.bench.changes import Change, Verdict, paired_changes, slowdown
from sgraf_deploy.bench.figures import FIGURES, RSUM, recall_by_image
from sgraf_deploy.bench.saved import SCOPES, QueryRanks, SavedReport
from sgraf_deploy.errors import InputError
from sgraf_deploy.evaluation.workload import LITERAL

_WEIGHT: Mapping[Verdict, int] = {"worse": 2, "undecided": 1, "same": 0, "no worse": 0, "better": 0}


@dataclass(frozen=True)
class Limits:
    """The most points that an R@K may drop, and the most percent that a scope may take longer.

    rsum is the sum of six R@K and may drop by twice as much.
    """

    drop: float
    slowdown: float


@dataclass(frozen=True)
class Row:
    """One figure of an engine before and after: R@K and rsum in percent, time in literal loops."""

    engine: str
    figure: str
    before: float
    after: float
    change: Change


@dataclass(frozen=True)
class Comparison:
    """What two reports say of each other; `notes` say what could not be compared, and why."""

    model: str | None
    recall: tuple[Row, ...]
    time: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of all; no worse if neither worse nor undecided is among them."""
        verdicts = [row.change.verdict for row in (*self.recall, *self.time)]
        worst = max(verdicts, key=_WEIGHT.__getitem__)
        return worst if _WEIGHT[worst] else "no worse"

    def to_json(self) -> dict[str, Any]:
        """The rows and verdicts as a JSON object."""
        return {
            "verdict": self.verdict,
            "model": self.model,
            **{
                name: [vars(row) | {"change": row.change.to_json()} for row in rows]
                for name, rows in (("recall", self.recall), ("time", self.time))
            },
            "notes": list(self.notes),
        }


def compare_reports(
    before: SavedReport,
    after: SavedReport,
    limits: Limits,
    *,
    pairs: Sequence[tuple[str, str]] = (),
    model: str | None = None,
) -> Comparison:
    """Compare what two reports have in common.

    `pairs` are labels of an engine before and after; by default those that both reports have, or
    the only one of each. `model` is by default the ensemble, or the only member. Raises InputError
    for reports of other data, models or timed shapes, and where nothing can be compared.
    """
    _check_alike(before, after)
    pairs = _pairs(before, after, pairs)
    notes: list[str] = []
    model = _model(before, model)
    recall, time = [], []
    for pair in pairs:
        name = pair[0] if pair[0] == pair[1] else f"{pair[0]} → {pair[1]}"
        if model is not None:
            sides = (before.ranks[model][pair[0]], after.ranks[model][pair[1]])
            recall += _recall_rows(name, sides, limits)
        reason = _untimed(before, after, pair)
        if reason is None:
            time += _time_rows(name, (before, after), pair, limits)
        else:
            notes.append(f"{name}: time is not compared: {reason}")
    if model is None:
        notes.append("recall is not compared: random inputs have no ground truth")
    if not recall and not time:
        raise InputError("the reports", expected="something to compare", got="; ".join(notes))
    return Comparison(model, tuple(recall), tuple(time), tuple(notes))


def _check_alike(before: SavedReport, after: SavedReport) -> None:
    """Refuse reports of other data, other models or another part that was timed."""
    hint = "measure both with the same --data, --split and --limit-images"
    first, second = asdict(before.run.data), asdict(after.run.data)
    for name, expected in first.items():
        if second[name] != expected:
            raise InputError(
                f"reports of different data: {name}",
                expected=f"{expected} as in the first",
                got=second[name],
                hint=hint,
            )
    for what, one, other in (
        ("models", list(before.ranks), list(after.ranks)),
        ("images and captions that are timed", *map(_timed, (before, after))),
    ):
        if one != other:
            raise InputError(f"reports of different {what}", expected=one, got=other, hint=hint)


def _pairs(
    before: SavedReport, after: SavedReport, asked: Sequence[tuple[str, str]]
) -> list[tuple[str, str]]:
    engines = list(before.run.engines), list(after.run.engines)
    for pair in asked:
        for which, label, known in zip(("first", "second"), pair, engines, strict=True):
            if label not in known:
                what = f"engine of the {which} report"
                raise InputError(what, expected=" or ".join(known), got=label)
    if asked:
        return list(dict.fromkeys(asked))
    shared = [(label, label) for label in engines[0] if label in engines[1]]
    if shared:
        return shared
    if len(engines[0]) == len(engines[1]) == 1:
        return [(engines[0][0], engines[1][0])]
    raise InputError(
        "the reports have no engine in common",
        expected=" or ".join(engines[0]),
        got=" or ".join(engines[1]),
        hint="say which to compare with `--pair BEFORE=AFTER`",
    )


def _model(report: SavedReport, asked: str | None) -> str | None:
    """The model whose ranks are compared: the last one is what all members are together."""
    if asked is not None and asked not in report.ranks:
        known = " or ".join(report.ranks) or "no model: there is no ground truth"
        raise InputError("--model", expected=known, got=asked)
    return asked or next(reversed(list(report.ranks)), None)


def _untimed(before: SavedReport, after: SavedReport, pair: tuple[str, str]) -> str | None:
    """Why the times of a pair of engines cannot be compared; None if they can."""
    for name in ("processor", "threads"):
        one, other = getattr(before.run, name), getattr(after.run, name)
        if one != other:
            return f"measured with other {name}: {one}, {other}"
    one, other = before.run.engines[pair[0]].device, after.run.engines[pair[1]].device
    if one != other:
        return f"measured on other devices: {one}, {other}"
    if not all(
        label in report.seconds for label, report in zip(pair, (before, after), strict=True)
    ):
        return "its arithmetic is emulated"
    return None


def _timed(report: SavedReport) -> tuple[int, int]:
    return report.throughput.images, report.throughput.captions


def _recall_rows(name: str, sides: tuple[QueryRanks, QueryRanks], limits: Limits) -> list[Row]:
    one, other = (recall_by_image(side.image_to_text, side.text_to_image) for side in sides)
    allowed = [2 * limits.drop if figure == RSUM else limits.drop for figure in FIGURES]
    changes = paired_changes(one - other, allowed)
    return [
        Row(name, figure, float(one[:, column].mean()), float(other[:, column].mean()), change)
        for column, (figure, change) in enumerate(zip(FIGURES, changes, strict=True))
    ]


def _time_rows(
    name: str, reports: tuple[SavedReport, SavedReport], pair: tuple[str, str], limits: Limits
) -> list[Row]:
    rows = []
    for scope in SCOPES:
        one, other = (
            np.divide(seconds[label][scope], seconds[LITERAL][scope])
            for label, seconds in zip(pair, (one.seconds for one in reports), strict=True)
        )
        change = slowdown(one, other, limits.slowdown)
        rows.append(Row(name, scope, float(np.median(one)), float(np.median(other)), change))
    return rows
