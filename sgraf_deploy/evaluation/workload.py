"""The images and captions that engines and the literal loop are compared on, and the comparison."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.data.regions import readable
from sgraf_deploy.evaluation.evaluate import by_model, check_for
from sgraf_deploy.evaluation.parity import Parity, compare
from sgraf_deploy.evaluation.recall import RecallReport, evaluate
from sgraf_deploy.progress import Progress, Stage
from sgraf_deploy.runtime.scorer import Scorer


class Reference(Protocol):
    """The literal loop: see `engines.torch.literal.LiteralLoop`, which needs PyTorch."""

    @property
    def inexact(self) -> str | None:
        """Why its values cannot be the reference; None if it has computed in float32 so far."""

    def encode_images(self, regions: NDArray[Any]) -> Any:
        """Encode regions (images, regions, img_dim)."""

    def encode_captions(self, token_ids: Sequence[NDArray[np.int32]]) -> Any:
        """Encode the token ids (words,) of each caption."""

    def logits(
        self, images: Any, captions: Any, progress: Progress | None = None
    ) -> dict[str, NDArray[np.float32]]:
        """Logits (images, captions) by member."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Regions (images, regions, img_dim) and token ids (words,) of each caption."""

    regions: NDArray[Any]
    token_ids: Sequence[NDArray[np.int32]]

    @property
    def pairs(self) -> int:
        """Images x captions."""
        return len(self.regions) * len(self.token_ids)

    @property
    def mean_words(self) -> float:
        """Tokens per caption, `<start>` and `<end>` included."""
        return float(np.mean([len(ids) for ids in self.token_ids]))


@dataclass(frozen=True, eq=False)
class Workload:
    """Images and captions to compare on; `captions_per_image` is None without ground truth."""

    name: str
    inputs: Inputs
    captions_per_image: int | None = None
    seed: int | None = None
    findings: tuple[Finding, ...] = ()

    @property
    def warnings(self) -> list[str]:
        """The messages of the warnings about the data."""
        return [finding.message for finding in self.findings if finding.is_warning]

    def timed_part(self, most: int) -> Inputs:
        """At most `most` images, the first ones, and as many captions, spread over all."""
        regions = readable(self.inputs.regions[:most])
        count = len(self.inputs.token_ids)
        rows = np.linspace(0, count - 1, min(count, most)).astype(int)
        return Inputs(regions, [self.inputs.token_ids[row] for row in rows.tolist()])


def split_workload(
    bundle: Bundle, split: PrecompSplit, max_words: int | None = MAX_WORDS
) -> Workload:
    """A split's images and captions, none of these longer than `max_words`.

    Raises BundleError for a bundle without a vocabulary, DataError for regions that do not fit.
    """
    checked = check_for(bundle, split, max_words)
    name = f"split {split.name}: {split.images:,} images × {len(checked.token_ids):,} captions"
    return Workload(
        name,
        Inputs(split.regions, checked.token_ids),
        split.captions_per_image,
        findings=checked.findings,
    )


def compare_scorers(
    literal: Reference, scorers: dict[str, Scorer], workload: Workload, stage: Stage
) -> tuple[dict[str, RecallReport | None], dict[str, list[Parity]]]:
    """Score a workload by the reference and by every scorer.

    Returns the reference's R@K by model, and every scorer's parity by its label.
    """
    inputs, per_image = workload.inputs, workload.captions_per_image
    images = literal.encode_images(inputs.regions)
    captions = literal.encode_captions(inputs.token_ids)
    expected = by_model(literal.logits(images, captions, stage("literal loop")))
    reference = {
        model: None if per_image is None else evaluate(logits, per_image)
        for model, logits in expected.items()
    }
    found = {}
    for label, scorer in scorers.items():
        encoded = scorer.encode_images(inputs.regions), scorer.encode_captions(inputs.token_ids)
        matrices = scorer.logits(*encoded, progress=stage(label))
        found[label] = [
            compare(
                model,
                expected[model],
                logits,
                precision=scorer.precision,
                captions_per_image=per_image,
            )
            for model, logits in by_model(matrices).items()
        ]
    return reference, found


def by_reference(reference: dict[str, RecallReport | None]) -> dict[str, RecallReport]:
    """R@K of the models that have it: on a split, where the ground truth is known."""
    return {model: report for model, report in reference.items() if report is not None}
