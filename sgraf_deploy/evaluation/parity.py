"""Compares an engine's logits with the literal loop's, and checks the bounds."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from sgraf_deploy.config import Precision
from sgraf_deploy.engines.ensemble import Logits, similarities
from sgraf_deploy.evaluation.rank_changes import RankComparison, explain_changes
from sgraf_deploy.evaluation.recall import Ranks, RecallReport, evaluate, rank_matrix
from sgraf_deploy.gate.correlation import spearman
from sgraf_deploy.gate.tolerances import (
    FP16_LOGITS_SHARE,
    FP16_SIMILARITIES,
    FP16_SPEARMAN,
    FP32_LOGITS,
    FP32_SIMILARITIES,
)

RECALL_POINTS, RSUM_POINTS = 0.2, 0.4
"""Points. On few queries one query may be more: the bound is then one query, and two for rsum."""

SHARES: dict[Precision, float] = {"fp16": FP16_LOGITS_SHARE, "fp8": 0.25}
"""The largest difference as a share of the standard deviation of the reference's logits. FP8's only
tells a broken graph from rounding, for which 0.11 was measured: there R@K is the bound."""

RECALLS = ("r1", "r5", "r10")


@dataclass(frozen=True)
class Bound:
    """A number that must not be above its limit, or with `least` not below it."""

    name: str
    value: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        """Whether the number keeps its limit; NaN never does."""
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        relation = ("≥" if self.met else "<") if self.least else ("≤" if self.met else ">")
        return f"{self.name} {self.value:.3g} {relation} {self.limit:.3g}"


@dataclass(frozen=True)
class Parity:
    """One model's logits compared with the reference's.

    `recall`, `deltas`, in points, and `ranked`, the rank of every query, are None where the data
    have no ground truth.
    """

    model: str
    largest: float
    mean: float
    deviation: float
    """The standard deviation of the reference's logits."""
    largest_similarity: float
    spearman: float
    ranks: RankComparison | None
    """Every changed rank; explained if logits within the bound can have changed it."""
    recall: RecallReport | None
    deltas: dict[str, float] | None
    bounds: tuple[Bound, ...]
    ranked: Ranks | None = field(default=None, repr=False, compare=False)

    @property
    def missed(self) -> tuple[Bound, ...]:
        """The bounds that are not met."""
        return tuple(bound for bound in self.bounds if not bound.met)

    def to_json(self) -> dict[str, Any]:
        """All fields but `ranked`, and whether each bound is met; NaN and infinity become null."""
        bounds = [
            asdict(bound) | {"value": _number(bound.value), "met": bound.met}
            for bound in self.bounds
        ]
        ranks = self.ranks and self.ranks.to_json()
        values = asdict(replace(self, ranked=None))
        del values["ranked"]
        return values | {
            "spearman": _number(self.spearman),
            "ranks": ranks,
            "bounds": bounds,
        }


def compare(
    model: str,
    reference: Logits,
    logits: Logits,
    *,
    precision: Precision,
    captions_per_image: int | None,
) -> Parity:
    """Compare logits (images, captions) of an engine with the literal loop's.

    With `captions_per_image` the data are real and the weights trained. Below fp32 there are then
    bounds on R@K: in fp16 beside those on the logits and their rank correlation (the export gate's
    tighter bound on trained logits is for its few pairs), in fp8 beside a wide one on the logits.
    Raises DataError for values that are not finite.
    """
    difference = np.abs(np.subtract(logits, reference, dtype=np.float64))
    relative = float((difference / np.maximum(1.0, np.abs(reference))).max())
    similarity = float(np.abs(similarities(logits) - similarities(reference)).max())
    correlation = spearman(reference.ravel(), logits.ravel())
    deviation, largest = float(reference.std()), float(difference.max())
    recall = deltas = ranks = ranked = None
    points: list[Bound] = []
    if captions_per_image is not None:
        ranked = rank_matrix(logits, captions_per_image)
        recall = RecallReport.of(ranked)
        deltas = _deltas(evaluate(reference, captions_per_image), recall)
        points = _recall_bounds(recall, deltas)
        # A difference that is measured on these same logits would explain every change.
        widest = max(1.0, float(np.abs(reference).max()))
        bound = FP32_LOGITS * widest if precision == "fp32" else SHARES[precision] * deviation
        ranks = explain_changes(reference, logits, captions_per_image, bound)
    if precision != "fp32":
        share = largest / deviation if deviation > 0 else float("nan")
        bounds = [Bound("logits / std", share, SHARES[precision])]
        if precision == "fp16" and recall is None:
            bounds.append(Bound("similarities", similarity, FP16_SIMILARITIES))
        elif precision == "fp16":
            bounds.append(Bound("Spearman", correlation, FP16_SPEARMAN, least=True))
        bounds += points
    else:
        bounds = [
            Bound("logits", relative, FP32_LOGITS),
            Bound("similarities", similarity, FP32_SIMILARITIES),
        ]
        if ranks is not None:
            bounds.append(Bound("unexplained ranks", len(ranks.unexplained), 0))
    return Parity(
        model=model,
        largest=largest,
        mean=float(difference.mean()),
        deviation=deviation,
        largest_similarity=similarity,
        spearman=correlation,
        ranks=ranks,
        recall=recall,
        deltas=deltas,
        bounds=tuple(bounds),
        ranked=ranked,
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _recall_bounds(recall: RecallReport, deltas: dict[str, float]) -> list[Bound]:
    bounds = []
    queries = {"i→t": recall.images, "t→i": recall.captions}
    for name, delta in deltas.items():
        one = 100 / queries.get(name.split()[0], min(queries.values()))
        limit = max(RSUM_POINTS, 2 * one) if name == "rsum" else max(RECALL_POINTS, one)
        # The rounding of a difference of percentages must not make one query more than one.
        bounds.append(Bound(name, abs(delta), limit + 1e-9))
    return bounds


def _deltas(before: RecallReport, after: RecallReport) -> dict[str, float]:
    """How many points R@K and rsum gained."""
    found = {}
    for label, old, new in (
        ("i→t", before.image_to_text, after.image_to_text),
        ("t→i", before.text_to_image, after.text_to_image),
    ):
        for name in RECALLS:
            found[f"{label} R@{name[1:]}"] = getattr(new, name) - getattr(old, name)
    return found | {"rsum": after.rsum - before.rsum}
