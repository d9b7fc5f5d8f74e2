"""R@K of an engine that is about to be published, beside the literal loop's."""

from __future__ import annotations

from sgraf_deploy.bench.evaluate import Stage
from sgraf_deploy.bench.literal import LiteralLoop, fastest_device
from sgraf_deploy.bench.run import Workload, compare_scorers
from sgraf_deploy.bundle import Bundle
from sgraf_deploy.errors import GateError
from sgraf_deploy.runtime.scorer import Scorer


def check_recall(
    bundle: Bundle, scorer: Scorer, workload: Workload, stage: Stage = lambda name: None
) -> None:
    """Raise GateError where logits, rank correlation or R@K of a split miss their bounds.

    The literal loop runs on the GPU if PyTorch sees one. Raises UnavailableError without PyTorch.
    """
    literal = LiteralLoop(bundle, device=fastest_device())
    _, found = compare_scorers(literal, {scorer.engine_name: scorer}, workload, stage)
    missed = [
        f"{parity.model}: {bound}"
        for parities in found.values()
        for parity in parities
        for bound in parity.missed
    ]
    if missed:
        raise GateError(
            f"gate failed for engine {scorer.engine_name} on {workload.name}",
            got="; ".join(missed),
            mend="compile with --precision fp32",
        )
