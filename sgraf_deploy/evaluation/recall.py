"""Ranks of the ground truths in a matrix of logits, and R@K in both directions.

Caption `captions_per_image * i + j` belongs to image `i`. Ranks come from logits: a sigmoid
saturates and makes ties that the model did not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError, InputError

Scores = NDArray[np.floating[Any]]
"""Logits, or similarities, (images, captions) of any float type."""

Indices = NDArray[np.int64]

Ties = Literal["last", "authors"]

BLOCK_ELEMENTS = 1 << 20
"""How many logits are read at a time, whatever the size of the matrix."""


@dataclass(frozen=True, eq=False)
class Ranks:
    """Zero-based rank of every query's best ground truth.

    `image_to_text` (images,) and `text_to_image` (captions,) are int64. The tied counts say for
    how many queries some other candidate has exactly the best ground truth's logit.
    """

    image_to_text: Indices
    text_to_image: Indices
    tied_image_to_text: int
    tied_text_to_image: int
    ties: Ties = "last"

    def to_json(self) -> dict[str, list[int]]:
        """The ranks of both directions as a JSON object, counted from 1 as readers count."""
        return {
            "image_to_text": (self.image_to_text + 1).tolist(),
            "text_to_image": (self.text_to_image + 1).tolist(),
        }


@dataclass(frozen=True)
class Recall:
    """Recall at 1, 5 and 10 in percent; median and mean rank counted from 1."""

    r1: float
    r5: float
    r10: float
    median_rank: float
    mean_rank: float

    @classmethod
    def of(cls, ranks: Indices) -> Recall:
        """Summarise zero-based ranks (queries,); the median is floored before 1 is added."""
        r1, r5, r10 = (100.0 * int((ranks < k).sum()) / ranks.size for k in (1, 5, 10))
        median, mean = math.floor(np.median(ranks)) + 1, float(ranks.mean()) + 1
        return cls(r1, r5, r10, float(median), mean)

    @property
    def total(self) -> float:
        """This direction's share of rsum."""
        return self.r1 + self.r5 + self.r10


@dataclass(frozen=True)
class RecallReport:
    """R@K of one matrix in both directions; `rsum` is the sum of the six recalls."""

    image_to_text: Recall
    text_to_image: Recall
    rsum: float
    images: int
    captions: int
    ties: Ties = "last"
    tied_image_to_text: int = 0
    tied_text_to_image: int = 0

    @classmethod
    def of(cls, ranks: Ranks) -> RecallReport:
        """Summarise the ranks of one matrix."""
        forward, backward = Recall.of(ranks.image_to_text), Recall.of(ranks.text_to_image)
        return cls(
            image_to_text=forward,
            text_to_image=backward,
            rsum=forward.total + backward.total,
            images=ranks.image_to_text.size,
            captions=ranks.text_to_image.size,
            ties=ranks.ties,
            tied_image_to_text=ranks.tied_image_to_text,
            tied_text_to_image=ranks.tied_text_to_image,
        )

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON object, the two directions as objects of their own."""
        return asdict(self)


@dataclass(frozen=True)
class FoldReport:
    """R@K of every fold, and their mean column by column."""

    folds: tuple[RecallReport, ...]
    mean: RecallReport

    def to_json(self) -> dict[str, Any]:
        """The folds in order and their mean as a JSON object."""
        return asdict(self)


def rank_matrix(logits: Scores, captions_per_image: int = 5, ties: Ties = "last") -> Ranks:
    """Rank every query's ground truth in logits (images, captions), an array or a memory map.

    With `ties="last"` a rank is the number of candidates, ground truths of the query excepted,
    that score no less than its best ground truth. `ties="authors"` sorts as the authors' script
    does: unstably, in float64, so that ties fall as numpy's quicksort leaves them; it sorts what
    it is given, and the script sorts similarities. Memory beyond the logits stays bounded.

    Raises DataError for a wrong shape or dtype and for a logit that is not finite.
    """
    if ties not in get_args(Ties):
        raise InputError("ties", expected=get_args(Ties), got=ties)
    images, captions = check_shape(logits, captions_per_image)
    truths = ground_truths(logits, captions_per_image)
    best, flat = truths.max(axis=1, keepdims=True), truths.ravel()
    image_to_text = np.empty(images, np.int64)
    text_to_image = np.full(captions, -1)  # the ground truth itself is no candidate
    equals, tied_image_to_text = np.zeros_like(text_to_image), 0
    for rows in row_blocks(images, captions):
        block, own, bar = np.asarray(logits[rows]), truths[rows], best[rows]
        check_finite(block, rows.start)
        image_to_text[rows] = np.count_nonzero(block >= bar, axis=1)
        image_to_text[rows] -= np.count_nonzero(own >= bar, axis=1)
        level, own_level = (np.count_nonzero(part == bar, axis=1) for part in (block, own))
        tied_image_to_text += int(np.count_nonzero(level > own_level))
        text_to_image += np.count_nonzero(block >= flat, axis=0)
        equals += np.count_nonzero(block == flat, axis=0)
    if ties == "authors":
        image_to_text, text_to_image = _sorted_ranks(logits, captions_per_image)
    tied_text_to_image = int(np.count_nonzero(equals > 1))
    return Ranks(image_to_text, text_to_image, tied_image_to_text, tied_text_to_image, ties)


def evaluate(logits: Scores, captions_per_image: int = 5, ties: Ties = "last") -> RecallReport:
    """R@K of logits (images, captions); see `rank_matrix`."""
    return RecallReport.of(rank_matrix(logits, captions_per_image, ties))


def folds(
    logits: Scores, folds: int = 5, captions_per_image: int = 5, ties: Ties = "last"
) -> FoldReport:
    """R@K of the blocks on the diagonal of logits (images, captions), and their mean.

    Five folds of the 5,000 MSCOCO test images are its 1K evaluation: 1,000 images x 5,000
    captions each. Every figure is the mean of the same figure over the folds. The authors'
    script prints averages in which two columns are mixed up, so those differ.

    Raises DataError unless the number of folds divides the number of images.
    """
    images, _ = check_shape(logits, captions_per_image)
    if folds < 1 or images % folds:
        raise DataError("folds", expected=f"a number that divides the {images} images", got=folds)
    size = images // folds
    blocks = (
        logits[first : first + size, first * captions_per_image :][:, : size * captions_per_image]
        for first in range(0, images, size)
    )
    reports = tuple(evaluate(block, captions_per_image, ties) for block in blocks)
    return FoldReport(reports, mean_report(reports))


def mean_report(reports: Sequence[RecallReport]) -> RecallReport:
    """The mean of reports on matrices of one size, figure by figure, the tied queries added up.

    Raises DataError if they differ in size or in their rule for ties, or if there are none.
    """
    kinds = {(report.images, report.captions, report.ties) for report in reports}
    if len(kinds) != 1:
        expected = "reports of one size and one rule for ties"
        raise DataError("mean of reports", expected=expected, got=sorted(kinds) or "none")
    ((images, captions, ties),) = kinds
    forward = _mean_recall([report.image_to_text for report in reports])
    backward = _mean_recall([report.text_to_image for report in reports])
    return RecallReport(
        image_to_text=forward,
        text_to_image=backward,
        rsum=forward.total + backward.total,
        images=images,
        captions=captions,
        ties=ties,
        tied_image_to_text=sum(report.tied_image_to_text for report in reports),
        tied_text_to_image=sum(report.tied_text_to_image for report in reports),
    )


def chance_level(images: int, captions_per_image: int = 5) -> RecallReport:
    """The R@K that a random order without ties is expected to reach on so many images."""
    if images < 1 or captions_per_image < 1:
        got = f"{images} and {captions_per_image}"
        raise DataError("images and captions per image", expected="at least one each", got=got)
    captions = images * captions_per_image
    forward, backward = _chance(captions, captions_per_image), _chance(images, 1)
    return RecallReport(forward, backward, forward.total + backward.total, images, captions)


def check_shape(logits: Scores, captions_per_image: int) -> tuple[int, int]:
    """The number of images and captions; DataError unless they fit each other."""
    if captions_per_image < 1:
        raise DataError("captions per image", expected="at least 1", got=captions_per_image)
    if logits.ndim != 2 or 0 in logits.shape or not np.issubdtype(logits.dtype, np.floating):
        got = f"shape {logits.shape}, {logits.dtype}"
        raise DataError("logits", expected="floats of shape (images, captions)", got=got)
    images, captions = logits.shape
    if captions != images * captions_per_image:
        expected = f"{captions_per_image} captions per image, {images * captions_per_image} in all"
        raise DataError(f"logits of {images} images", expected=expected, got=captions)
    return images, captions


def check_finite(block: Scores, first_row: int) -> None:
    """Raise DataError, naming row and column, if a block of whole rows holds NaN or infinity."""
    finite = np.isfinite(block)
    if not finite.all():
        row, column = np.unravel_index(np.argmin(finite), block.shape)
        where = f"logits row {first_row + row}, column {column}"
        raise DataError(where, expected="a finite number", got=block[row, column])


def ground_truths(logits: Scores, captions_per_image: int) -> Scores:
    """The logits (images, captions_per_image) of the pairs that belong together."""
    captions = np.arange(logits.shape[1])
    own = np.asarray(logits[captions // captions_per_image, captions])  # (captions,)
    return own.reshape(len(logits), captions_per_image)


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices that cut the rows of a matrix into blocks of bounded size."""
    step = max(1, BLOCK_ELEMENTS // columns)
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))


def _sorted_ranks(logits: Scores, captions_per_image: int) -> tuple[Indices, Indices]:
    """Ranks in both directions as positions after a descending, unstable sort in float64."""
    images, captions = logits.shape
    image_to_text = np.empty(images, np.int64)
    text_to_image = np.empty(captions, np.int64)
    for image in range(images):
        positions = _positions(logits[image])
        own = slice(image * captions_per_image, (image + 1) * captions_per_image)
        image_to_text[image] = positions[own].min()
    # Blocks of columns: one column of a memory map alone would touch a page per image.
    for columns in row_blocks(captions, images):
        block = np.ascontiguousarray(logits[:, columns].T)  # (block, images)
        for caption, row in enumerate(block, columns.start):
            text_to_image[caption] = _positions(row)[caption // captions_per_image]
    return image_to_text, text_to_image


def _positions(scores: Scores) -> Indices:
    order = np.argsort(scores.astype(np.float64))[::-1]
    positions = np.empty_like(order)
    positions[order] = np.arange(order.size)
    return positions


def _mean_recall(recalls: Sequence[Recall]) -> Recall:
    names = [field.name for field in fields(Recall)]
    return Recall(*(sum(getattr(r, name) for r in recalls) / len(recalls) for name in names))


def _chance(candidates: int, truths: int) -> Recall:
    """Of `candidates` in random order, the best of `truths`: hypergeometric."""

    def within(k: int) -> float:
        return 1 - math.comb(max(0, candidates - k), truths) / math.comb(candidates, truths)

    low, high = 1, candidates  # the median is the smallest rank that half of the orders reach
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if within(middle) >= 0.5 else (middle + 1, high)
    mean = (candidates - truths) / (truths + 1) + 1
    return Recall(100 * within(1), 100 * within(5), 100 * within(10), float(low), mean)
