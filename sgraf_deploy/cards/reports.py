"""What a card says of measurements: reports of `eval --json`, and the manifest's parity report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import InputError
from sgraf_deploy.evaluation.recall import FoldReport, RecallReport
from sgraf_deploy.schema import Document, Excerpt, decode, parse

OPTION = "--eval-json"
EVAL_AGAIN = "measure it with `sgraf-deploy eval BUNDLE --json FILE`"
DOCUMENT = Document("report of eval", InputError, EVAL_AGAIN, most_bytes=16 * 2**20)


@dataclass(frozen=True)
class Run(Excerpt):
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
class EvalReport(Excerpt):
    """R@K by model, the whole bundle's last, and of its folds if there were any."""

    run: Run
    reports: Mapping[str, RecallReport]
    folds: Mapping[str, FoldReport]

    def __post_init__(self) -> None:
        if not self.reports:
            raise DOCUMENT.wrong("reports", "at least one model", self.reports)

    @classmethod
    def of(cls, value: object) -> EvalReport:
        """Read the JSON object of an `Evaluation`; InputError names what is off."""
        return decode(cls, value, DOCUMENT)


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
class Parity(Excerpt):
    """What the gate measured of one member's graphs in one precision."""

    executor: str
    embeddings: Measured
    logits: Measured
    similarities: Measured


@dataclass(frozen=True)
class Gate(Excerpt):
    """What the gate ran on, and its result by member and precision."""

    source: str
    members: Mapping[str, Mapping[str, Parity]]

    @classmethod
    def of(cls, report: object) -> Gate:
        """Read a manifest's parity report; InputError names what is off."""
        return decode(cls, report, DOCUMENT)
