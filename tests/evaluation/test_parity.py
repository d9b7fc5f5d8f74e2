"""Parity: each bound is met just below it and missed just above."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray

from sgraf_deploy.config import PRECISIONS, Precision
from sgraf_deploy.evaluation.parity import Bound, compare

IMAGES, PER_IMAGE = 20, 5


def logits(seed: int = 0, scale: float = 1.0) -> NDArray[np.float32]:
    """Random logits in which ground truths stand out."""
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal((IMAGES, IMAGES * PER_IMAGE)).astype(np.float32)
    for image in range(IMAGES):
        matrix[image, PER_IMAGE * image : PER_IMAGE * (image + 1)] += 1.5
    return np.asarray(scale * matrix, dtype=np.float32)


def moved(matrix: NDArray[np.float32], by: float) -> NDArray[np.float32]:
    """The same with its first element moved."""
    other = matrix.copy()
    other[0, 0] += by
    return other


def names(bounds: tuple[Bound, ...]) -> set[str]:
    return {bound.name for bound in bounds}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("per_image", [None, PER_IMAGE], ids=["random", "data"])
def test_equal_logits_meet_every_bound(precision: Precision, per_image: int | None) -> None:
    matrix = logits()
    found = compare("SGR", matrix, matrix.copy(), precision=precision, captions_per_image=per_image)
    assert (found.largest, found.mean, found.largest_similarity) == (0.0, 0.0, 0.0)
    assert found.spearman == pytest.approx(1.0)
    assert found.missed == ()
    assert (found.recall is None) == (per_image is None)
    assert (found.ranks is None) == (per_image is None)
    assert found.deltas is None or set(found.deltas.values()) == {0.0}


@pytest.mark.parametrize(
    ("by", "missed"),
    [
        (3e-5, set()),
        (6e-5, {"similarities"}),
        (1.2e-4, {"logits", "similarities"}),
        (2e-3, {"logits", "similarities"}),
    ],
)
def test_fp32_bounds(by: float, missed: set[str]) -> None:
    reference = np.zeros((IMAGES, 100), dtype=np.float32) + np.float32(0.1)
    reference[1:] = logits()[1:]
    found = compare(
        "SAF", reference, moved(reference, by), precision="fp32", captions_per_image=None
    )
    assert names(found.missed) == missed
    assert found.largest == pytest.approx(by, rel=1e-2)
    assert found.mean == pytest.approx(by / reference.size, rel=1e-2)


def test_differences_are_taken_in_float64() -> None:
    """In float32 100 million less one is 100 million."""
    one, other = np.full((1, 1), 1, np.float32), np.full((1, 1), 1e8, np.float32)
    found = compare("SAF", one, other, precision="fp32", captions_per_image=None)
    assert found.largest == found.mean == 1e8 - 1


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_was_compared_is_told(precision: Precision) -> None:
    matrix = logits()
    found = compare("SGR-2", matrix, matrix, precision=precision, captions_per_image=None)
    assert (found.model, found.deviation) == ("SGR-2", float(matrix.std()))
    assert [(bound.name, bound.limit) for bound in found.bounds] == {
        "fp32": [("logits", 1e-4), ("similarities", 1e-5)],
        "fp16": [("logits / std", 0.05), ("similarities", 2e-3)],
        "fp8": [("logits / std", 0.25)],
    }[precision]


def test_large_logits_may_differ_by_more() -> None:
    reference = logits(scale=1000)
    found = compare(
        "SAF", reference, reference * np.float32(1.00005), precision="fp32", captions_per_image=None
    )
    assert found.largest > 0.05
    assert "logits" not in names(found.missed)


@pytest.mark.parametrize(
    ("share", "per_image", "missed"),
    [
        (0.04, None, False),
        (0.06, None, True),
        (0.04, PER_IMAGE, False),
        (0.06, PER_IMAGE, True),
    ],
)
def test_fp16_bounds_of_logits(share: float, per_image: int | None, missed: bool) -> None:
    reference = logits(scale=0.01)
    other = moved(reference, share * float(reference.std()))
    found = compare("SGR", reference, other, precision="fp16", captions_per_image=per_image)
    assert ("logits / std" in names(found.missed)) == missed


def test_fp16_rank_correlation() -> None:
    reference = logits()
    noise = np.random.default_rng(1).standard_normal(reference.shape).astype(np.float32)
    found = compare(
        "SGR", reference, reference + 0.05 * noise, precision="fp16", captions_per_image=PER_IMAGE
    )
    assert "Spearman" in names(found.missed)


def test_recall_may_move_by_one_query_where_that_is_more_than_the_bound() -> None:
    reference = logits()
    one, two = reference.copy(), reference.copy()
    worst = reference.min() - 1
    for image, matrix in ((0, one), (0, two), (1, two)):
        matrix[image, PER_IMAGE * image : PER_IMAGE * (image + 1)] = worst
    first = compare("SGR", reference, one, precision="fp16", captions_per_image=PER_IMAGE)
    second = compare("SGR", reference, two, precision="fp16", captions_per_image=PER_IMAGE)
    assert first.deltas is not None
    assert first.deltas["i→t R@10"] == pytest.approx(-100 / IMAGES)
    assert "i→t R@10" not in names(first.missed)
    assert "i→t R@10" in names(second.missed)
    assert "rsum" in names(second.missed)


def test_the_limits_of_recall_are_a_query_each_and_two_of_rsum() -> None:
    """Of 20 images and 100 captions; with more of either they are fixed numbers of points."""
    found = compare("SGR", logits(), logits(), precision="fp16", captions_per_image=PER_IMAGE)
    limits = {bound.name: bound.limit for bound in found.bounds}
    assert limits == pytest.approx(
        {"logits / std": 0.05, "Spearman": 0.9999, "rsum": 10.0}
        | {f"i→t R@{k}": 5.0 for k in (1, 5, 10)}
        | {f"t→i R@{k}": 1.0 for k in (1, 5, 10)}
    )


@pytest.mark.parametrize(("ahead", "missed"), [(1, set()), (5, {"rsum"})], ids=["0.4", "0.5"])
def test_rsum_may_move_by_four_tenths_of_a_point(ahead: int, missed: set[str]) -> None:
    """Of 1,000 images with a caption each, where a query that is lost is a tenth of a point."""
    reference = np.zeros((1000, 1000), dtype=np.float32)
    np.fill_diagonal(reference, np.repeat([2.0, 4.0], 500))
    other = reference.copy()
    other[0, 500 : 500 + ahead] = 3  # Image 0 loses R@1, and with five captions ahead R@5, too.
    other[1, 505] = other[510, 2] = other[511, 3] = 3  # Image 1, captions 2 and 3 lose R@1.
    found = compare("SGR", reference, other, precision="fp16", captions_per_image=1)
    assert found.deltas is not None
    assert found.deltas["i→t R@1"] == found.deltas["t→i R@1"] == pytest.approx(-0.2)
    assert found.deltas["rsum"] == pytest.approx(-0.4 if ahead == 1 else -0.5)
    assert {name for name in names(found.missed) if "R@" in name or name == "rsum"} == missed
    limits = [bound.limit for bound in found.bounds if "R@" in bound.name]
    assert limits == pytest.approx([0.2] * 6)


def test_changed_ranks_are_counted_and_in_float32_explained() -> None:
    reference = logits()
    noise = np.random.default_rng(1).standard_normal(reference.shape).astype(np.float32)
    other = reference + np.float32(0.3) * noise
    full = compare("SGR", reference, other, precision="fp32", captions_per_image=PER_IMAGE)
    half = compare("SGR", reference, other, precision="fp16", captions_per_image=PER_IMAGE)
    assert full.ranks is not None
    assert half.ranks is not None
    assert len(full.ranks.changes) == len(half.ranks.changes) > 5
    assert len(full.ranks.unexplained) > 5
    assert "unexplained ranks" in names(full.missed)
    assert "unexplained ranks" not in names(half.bounds)
    assert full.ranks.largest_difference == pytest.approx(1e-4 * np.abs(reference).max())
    assert half.ranks.largest_difference == pytest.approx(0.05 * reference.std())


@pytest.mark.parametrize(("gap", "missed"), [(1.9e-4, False), (2.1e-4, True)])
def test_one_rank_too_many_is_missed(gap: float, missed: bool) -> None:
    """Of logits within 1, which may differ by 1e-4, and two of them by twice as much."""
    reference = np.full((2, 2), -0.5, np.float32)
    np.fill_diagonal(reference, [0.5, 0.9])
    reference[0, 1] = 0.5 - gap
    other = reference.copy()
    other[0, 1] = 0.5 + gap
    found = compare("SGR", reference, other, precision="fp32", captions_per_image=1)
    assert found.ranks is not None
    assert [change.direction for change in found.ranks.changes] == ["image_to_text"]
    assert ("unexplained ranks" in names(found.missed)) == missed


def test_a_narrow_gap_explains_a_changed_rank() -> None:
    reference = logits()
    truth = float(reference[0, :PER_IMAGE].max())
    reference[0, -1] = truth - 5e-5
    other = reference.copy()
    other[0, -1] = truth + 5e-5
    found = compare("SGR", reference, other, precision="fp32", captions_per_image=PER_IMAGE)
    assert found.ranks is not None
    assert len(found.ranks.changes) == 1
    assert found.ranks.unexplained == ()
    assert found.to_json()["ranks"]["changes"][0]["explained"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_what_is_no_number_is_null(precision: Precision) -> None:
    same = np.ones((1, 1), np.float32)
    value = compare("SGR", same, same, precision=precision, captions_per_image=None).to_json()
    assert value["spearman"] is None
    json.dumps(value, allow_nan=False)


@pytest.mark.parametrize(
    ("bound", "met", "text"),
    [
        (Bound("logits", 0.5, 1.0), True, "logits 0.5 ≤ 1"),
        (Bound("logits", 2.0, 1.0), False, "logits 2 > 1"),
        (Bound("Spearman", 2.0, 1.0, least=True), True, "Spearman 2 ≥ 1"),
        (Bound("logits", 1.0, 1.0), True, "logits 1 ≤ 1"),
        (Bound("Spearman", 1.0, 1.0, least=True), True, "Spearman 1 ≥ 1"),
        (Bound("Spearman", 0.5, 1.0, least=True), False, "Spearman 0.5 < 1"),
        (Bound("Spearman", float("nan"), 1.0, least=True), False, "Spearman nan < 1"),
        (Bound("logits", float("nan"), 1.0), False, "logits nan > 1"),
    ],
)
def test_a_bound_in_words(bound: Bound, met: bool, text: str) -> None:
    assert (bound.met, str(bound)) == (met, text)


def test_json_says_whether_a_bound_is_met() -> None:
    reference = logits()
    found = compare(
        "SGR", reference, moved(reference, 1.0), precision="fp32", captions_per_image=None
    )
    value = found.to_json()
    assert [bound["met"] for bound in value["bounds"]] == [False, False]
    assert [bound["value"] for bound in value["bounds"]] == [bound.value for bound in found.bounds]
    assert value["spearman"] == found.spearman
    assert value["recall"] is None


@pytest.mark.parametrize("per_image", [None, PER_IMAGE], ids=["random", "data"])
def test_fp8_is_judged_by_recall(per_image: int | None) -> None:
    """Logits that would fail as FP16's pass; a rank too many does not."""
    reference = logits()
    noisy = moved(reference, 0.1 * float(reference.std()))
    found = compare("SGR", reference, noisy, precision="fp8", captions_per_image=per_image)
    recalls = {f"{way} R@{k}" for way in ("i→t", "t→i") for k in (1, 5, 10)} | {"rsum"}
    assert names(found.bounds) == {"logits / std"} | (set() if per_image is None else recalls)
    assert found.missed == ()
    half = compare("SGR", reference, noisy, precision="fp16", captions_per_image=per_image)
    assert "logits / std" in names(half.missed)

    broken = reference + np.float32(0.3) * logits(seed=7)
    found = compare("SGR", reference, broken, precision="fp8", captions_per_image=per_image)
    assert "logits / std" in names(found.missed)
    assert ("t→i R@1" in names(found.missed)) == (per_image is not None)
