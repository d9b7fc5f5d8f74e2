"""Which ranks differ from a reference's, and by how narrow a gap."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import Direction
from sgraf_deploy.errors import DataError
from sgraf_deploy.evaluation.recall import (
    Indices,
    Logits,
    check_finite,
    ground_truths,
    rank_matrix,
    row_blocks,
)

Gaps = NDArray[np.float64]


@dataclass(frozen=True)
class RankChange:
    """One query whose ground truth ranks differently than in the reference (ranks from zero).

    `gap` is the widest distance, in the reference's logits, between the best ground truth and a
    candidate that changed sides with it.
    """

    direction: Direction
    query: int
    reference_rank: int
    rank: int
    gap: float

    def explained(self, largest_difference: float) -> bool:
        """Whether logits that differ by no more than this can have changed the rank.

        Twice the difference is included: there the two logits meet, and a tie counts as passed.
        """
        return self.gap <= 2 * largest_difference


@dataclass(frozen=True)
class RankComparison:
    """Every changed rank, and the largest difference of two logits that must explain it."""

    largest_difference: float
    changes: tuple[RankChange, ...]

    @property
    def unexplained(self) -> tuple[RankChange, ...]:
        """The changes whose gap is too wide for that difference."""
        return tuple(c for c in self.changes if not c.explained(self.largest_difference))

    def to_json(self) -> dict[str, Any]:
        """The comparison as a JSON object; each change says whether it is explained."""
        changes = [
            asdict(change) | {"explained": change.explained(self.largest_difference)}
            for change in self.changes
        ]
        return {"largest_difference": self.largest_difference, "changes": changes}


def explain_changes(
    reference_logits: Logits,
    logits: Logits,
    captions_per_image: int = 5,
    largest_difference: float | None = None,
) -> RankComparison:
    """List the changed ranks and whether the largest difference of the logits explains each.

    Measured on these same matrices (None), that difference explains every change by arithmetic;
    one that was measured or bounded elsewhere makes this a test.
    """
    changes = changed_ranks(reference_logits, logits, captions_per_image)
    if largest_difference is None:
        largest_difference = measure_difference(reference_logits, logits)
    return RankComparison(largest_difference, tuple(changes))


def changed_ranks(
    reference_logits: Logits, logits: Logits, captions_per_image: int = 5
) -> list[RankChange]:
    """Compare the ranks in two matrices of logits (images, captions), ties last.

    Image queries come first, then caption queries, each in order; memory stays bounded.

    Raises DataError for wrong or different shapes and for a logit that is not finite.
    """
    _check_alike(reference_logits, logits)
    before = rank_matrix(reference_logits, captions_per_image)
    after = rank_matrix(logits, captions_per_image)
    images = np.flatnonzero(before.image_to_text != after.image_to_text)
    captions = np.flatnonzero(before.text_to_image != after.text_to_image)
    image_gaps = _image_gaps(reference_logits, logits, captions_per_image, images)
    caption_gaps = _caption_gaps(reference_logits, logits, captions_per_image, captions)
    return [
        *_list("image_to_text", images, before.image_to_text, after.image_to_text, image_gaps),
        *_list("text_to_image", captions, before.text_to_image, after.text_to_image, caption_gaps),
    ]


def measure_difference(reference_logits: Logits, logits: Logits) -> float:
    """The largest absolute difference of two matrices (images, captions), in bounded memory.

    Raises DataError for wrong or different shapes and for a logit that is not finite.
    """
    _check_alike(reference_logits, logits)
    largest = 0.0
    for rows in row_blocks(*logits.shape):
        reference, block = np.asarray(reference_logits[rows]), np.asarray(logits[rows])
        check_finite(reference, rows.start)
        check_finite(block, rows.start)
        largest = max(largest, float(np.abs(np.subtract(block, reference, dtype=np.float64)).max()))
    return largest


def _check_alike(reference_logits: Logits, logits: Logits) -> None:
    if reference_logits.ndim != 2 or reference_logits.size == 0:
        expected = "shape (images, captions)"
        raise DataError("reference logits", expected=expected, got=reference_logits.shape)
    if reference_logits.shape != logits.shape:
        expected = f"the reference's shape {reference_logits.shape}"
        raise DataError("logits", expected=expected, got=logits.shape)


def _list(
    direction: Direction, queries: Indices, before: Indices, after: Indices, gaps: Gaps
) -> list[RankChange]:
    return [
        RankChange(direction, int(query), int(before[query]), int(after[query]), float(gap))
        for query, gap in zip(queries, gaps, strict=True)
    ]


def _image_gaps(
    reference: Logits, logits: Logits, captions_per_image: int, images: Indices
) -> Gaps:
    gaps = np.zeros(images.size)
    best = ground_truths(reference, captions_per_image).max(axis=1)
    new_best = ground_truths(logits, captions_per_image).max(axis=1)
    for place, image in enumerate(images):
        row = np.asarray(reference[image])
        crossed = (row >= best[image]) != (logits[image] >= new_best[image])
        # A ground truth that changes places with another one moves no rank.
        crossed[image * captions_per_image : (image + 1) * captions_per_image] = False
        distances = np.subtract(row[crossed], best[image], dtype=np.float64)
        gaps[place] = np.abs(distances).max()
    return gaps


def _caption_gaps(
    reference: Logits, logits: Logits, captions_per_image: int, captions: Indices
) -> Gaps:
    gaps = np.zeros(captions.size)
    if captions.size == 0:
        return gaps
    truth = ground_truths(reference, captions_per_image).reshape(-1)[captions]
    new_truth = ground_truths(logits, captions_per_image).reshape(-1)[captions]
    for rows in row_blocks(*logits.shape):
        block = np.asarray(reference[rows])[:, captions]
        crossed = (block >= truth) != (np.asarray(logits[rows])[:, captions] >= new_truth)
        distances = np.abs(np.subtract(block, truth, dtype=np.float64))
        np.maximum(gaps, np.where(crossed, distances, 0).max(axis=0), out=gaps)
    return gaps
