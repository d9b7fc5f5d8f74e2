"""The gate on R@K: what is about to be published, plans or FP8 graphs, beside the literal loop."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import Precision
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.data.findings import Tell
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.errors import GateError
from sgraf_deploy.evaluation.chance import chance_findings
from sgraf_deploy.evaluation.evaluate import Evaluation, evaluate_split
from sgraf_deploy.evaluation.workload import (
    Reference,
    Workload,
    by_reference,
    compare_scorers,
    split_workload,
)
from sgraf_deploy.progress import Stage
from sgraf_deploy.runtime.scorer import Scorer, load

_HIGHER: dict[Precision, Precision] = {"fp32": "fp32", "fp16": "fp32", "fp8": "fp16"}
"""The precision that the hint names, where one fails."""


def check_recall(
    literal: Reference,
    scorer: Scorer,
    workload: Workload,
    stage: Stage = lambda name: None,
    *,
    command: str = "compile",
    tell: Tell = lambda finding: None,
) -> dict[str, Any]:
    """Compare a scorer with the literal loop on a workload; returns what R@K gained, by model.

    Gains are in points. `tell` is told if the reference's own R@K is at chance. Raises GateError
    where the logits, their rank correlation or R@K differ by more than their bounds.
    """
    compared = compare_scorers(literal, {scorer.engine_name: scorer}, workload, stage)
    if (inexact := literal.inexact) is not None:
        raise GateError(
            f"gate for engine {scorer.engine_name}: the literal loop is no yardstick",
            got=inexact,
            hint="leave PyTorch's precision alone while this runs",
        )
    for finding in chance_findings(by_reference(compared.reference)):
        tell(finding)
    (parities,) = compared.parity.values()
    missed = [f"{parity.model}: {bound}" for parity in parities for bound in parity.missed]
    if missed:
        raise GateError(
            f"gate failed for engine {scorer.engine_name}, {scorer.executed}, on {workload.name}",
            got="; ".join(missed),
            hint=f"{command} with --precision {_HIGHER[scorer.precision]}",
        )
    return {parity.model: parity.deltas for parity in parities}


def check_fp8(
    bundle: Bundle,
    split: PrecompSplit,
    literal: Reference,
    checkpoints: Sequence[Path],
    stage: Stage,
    max_words: int | None = MAX_WORDS,
) -> dict[str, Any]:
    """Compare R@K of a bundle in FP8, as PyTorch executes it, on a split; raises as `check_recall`.

    Returns what the parity report says of it. `literal` and `checkpoints` supply the reference.
    """
    workload = split_workload(bundle, split, max_words)
    options = EngineOptions(checkpoints=tuple(checkpoints))
    with load(bundle, engine="torch", precision="fp8", options=options, max_words=None) as scorer:
        deltas = check_recall(literal, scorer, workload, stage, command="export")
        return {"on": workload.name, "executed": scorer.executed, "points": deltas}


def measure_ranks(
    bundle: Bundle,
    split: PrecompSplit,
    checkpoints: Sequence[Path],
    stage: Stage,
    max_words: int | None = MAX_WORDS,
) -> Evaluation:
    """R@K of a bundle's first precision on a split, by the fastest engine that works here."""
    precision = bundle.manifest.precisions[0]
    options = EngineOptions(checkpoints=tuple(checkpoints))
    engine = "torch" if precision == "fp8" else "auto"
    with load(
        bundle, engine=engine, precision=precision, options=options, max_words=max_words
    ) as scorer:
        return evaluate_split(scorer, split, stage=stage)
