"""What a card says of measurements: reports of `eval --json`, and the manifest's parity report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import InputError
from sgraf_deploy.evaluation.recall import FoldReport, RecallReport
from sgraf_deploy.schema import Document, decode, parse

OPTION = "--eval-json"
EVAL_AGAIN = "measure it with `sgraf-deploy eval BUNDLE --json FILE`"
DOCUMENT = Document("report of eval", InputError, EVAL_AGAIN, most_bytes=16 * 2**20)


@dataclass(frozen=True)
class Run:
    """What was measured on what, as `evaluation.evaluate.describe_run` says it."""

    bundle_sha256: str
    engine: str
    executed: str
    device: str
    split: str
    images: int
    captions: int
    captions_per_image: int


@dataclass(frozen=True)
class EvalReport:
    """R@K by model, the whole bundle's last, and of its folds if there were any."""

    run: Run
    reports: Mapping[str, RecallReport]
    folds: Mapping[str, FoldReport]

    @classmethod
    def of(cls, value: object) -> EvalReport:
        """Read the JSON object of an `Evaluation`; InputError names what is off."""
        top = _part(value, EvalReport)
        run = decode(Run, _part(top["run"], Run), DOCUMENT)
        reports = decode(dict[str, RecallReport], top["reports"], DOCUMENT)
        if not reports:
            raise DOCUMENT.wrong("reports", "at least one model", reports)
        return cls(run, reports, decode(dict[str, FoldReport], top["folds"], DOCUMENT))


def read_report(path: Path, bundle: Bundle) -> EvalReport:
    """Read a file that `eval --json` wrote; InputError unless it is of this bundle."""
    try:
        report = EvalReport.of(parse(DOCUMENT.read(path), DOCUMENT))
    except OSError as error:
        raise InputError(f"{OPTION} {path}", got=error.strerror, hint=EVAL_AGAIN) from error
    except InputError as error:
        raise error.at(f"{OPTION} {path}") from error
    if report.run.bundle_sha256 != bundle.sha256:
        raise InputError(
            f"{OPTION} {path}",
            expected=f"a report on the bundle with sha256 {bundle.sha256}",
            got=f"one on {report.run.bundle_sha256}",
            hint=EVAL_AGAIN,
        )
    return report


@dataclass(frozen=True)
class Measured:
    """A largest difference from the reference, and its bound."""

    value: float
    bound: float


@dataclass(frozen=True)
class Parity:
    """What the gate measured of one member's graphs in one precision."""

    executor: str
    embeddings: Measured
    logits: Measured
    similarities: Measured


@dataclass(frozen=True)
class Gate:
    """What the gate ran on, and its result by member and precision."""

    source: str
    members: Mapping[str, Mapping[str, Parity]]

    @classmethod
    def of(cls, report: object) -> Gate:
        """Read a manifest's parity report; InputError names what is off."""
        top = _part(report, Gate)
        members = decode(dict[str, dict[str, Any]], top["members"], DOCUMENT)
        found = {
            member: {
                precision: decode(Parity, _part(one, Parity), DOCUMENT)
                for precision, one in precisions.items()
            }
            for member, precisions in members.items()
        }
        return cls(decode(str, top["source"], DOCUMENT), found)


def _part(value: object, kind: type[Any]) -> dict[str, Any]:
    """The fields of a type in an object, which may have others; InputError for a missing one."""
    found = decode(dict[str, Any], value, DOCUMENT)
    for part in fields(kind):
        if part.name not in found:
            raise DOCUMENT.missing(part.name)
    return {part.name: found[part.name] for part in fields(kind)}
