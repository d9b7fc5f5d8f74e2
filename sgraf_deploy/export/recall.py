"""R@K of a bundle that is complete but not yet published, on images of `--gate-data`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.engines.torch.literal import LiteralLoop, fastest_device
from sgraf_deploy.evaluation.evaluate import Evaluation
from sgraf_deploy.evaluation.recall_gate import check_fp8, measure_ranks
from sgraf_deploy.export.reading import RANKED_IMAGES
from sgraf_deploy.progress import Stage

FP8_IMAGES = 200
"""Images of `--gate-data` that R@K in FP8 is compared on."""


@dataclass(frozen=True, eq=False)
class GateData:
    """The split of `--gate-data`, and where the original weights are if the bundle lacks them.

    None of the captions may be longer than `max_words`, unless that is None.
    """

    split: PrecompSplit
    checkpoints: tuple[Path, ...]
    max_words: int | None


def gate_fp8(folder: Path, data: GateData, stage: Stage) -> dict[str, Any]:
    """Compare R@K in FP8 with the literal loop's; returns what the parity report says of it.

    Raises GateError where it is not kept.
    """
    bundle = Bundle.open(folder)
    literal = LiteralLoop(bundle, data.checkpoints, device=fastest_device())
    split = data.split.first(FP8_IMAGES)
    return check_fp8(bundle, split, literal, data.checkpoints, stage, data.max_words)


def rank(folder: Path, data: GateData, stage: Stage) -> Evaluation:
    """Rank images and captions: ranks near chance mean that the inputs do not belong together."""
    split = data.split.first(RANKED_IMAGES)
    return measure_ranks(Bundle.open(folder), split, data.checkpoints, stage, data.max_words)
