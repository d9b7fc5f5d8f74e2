"""Compares the graph of all members with the literal reference's ensemble, at several shapes."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np

from sgraf_deploy.config import Precision
from sgraf_deploy.engines.ensemble import combine_logits
from sgraf_deploy.gate.inputs import GateInputs, GateReference
from sgraf_deploy.gate.values import (
    Differences,
    Run,
    compare_logits,
    compare_similarities,
    enforce,
    logits_report,
    matrix_shapes,
    sigmoid,
)


def check_combined(
    run: Run,
    precision: Precision,
    inputs: GateInputs,
    references: Collection[GateReference],
    label: str,
) -> dict[str, Any]:
    """Compare the combined graph in one precision; returns its part of the parity report.

    `references` are those of all members, whose bounds hold for the ensemble, too. Raises
    GateError, naming `label`, for the first bound that is not met.
    """
    members = [reference.logits_of(precision) for reference in references]
    expected = combine_logits(*members).astype(np.float64)
    means = np.mean([sigmoid(logits) for logits in members], axis=0)
    differences = Differences()
    for images, captions, padding in matrix_shapes(inputs.lengths):
        longest = int(inputs.lengths[captions].max())
        ids = np.pad(inputs.token_ids[captions, :longest], ((0, 0), (0, padding)))
        outputs = run(
            {
                "regions": inputs.regions[images],
                "token_ids": ids,
                "lengths": inputs.lengths[captions],
            }
        )
        logits, similarities = outputs["logits"], outputs["similarities"]
        compare_logits(logits, expected[images, captions], differences, label)
        compare_similarities(similarities, means[images, captions], differences, label)
        differences.shapes.append(f"combined {logits.shape[0]}×{logits.shape[1]}+{padding}")
    report = logits_report(differences, logits, expected, precision, real=inputs.real)
    enforce(report, precision, label)
    return report
