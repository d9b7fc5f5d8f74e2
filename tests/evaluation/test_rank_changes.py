"""Changed ranks are found, measured by their gap, and explained or not; rank correlation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.refusals import naming, refused

from sgraf_deploy.errors import DataError
from sgraf_deploy.evaluation import recall
from sgraf_deploy.evaluation.rank_changes import (
    RankChange,
    changed_ranks,
    explain_changes,
    measure_difference,
)
from sgraf_deploy.evaluation.recall import Scores, rank_matrix


def noisy(images: int, noise: float) -> tuple[Scores, Scores]:
    """A matrix (images, 5 per image) float32 and a copy with uniform noise of that size."""
    rng = np.random.default_rng(3)
    reference = rng.normal(size=(images, images * 5)).astype(np.float32)
    return reference, reference + rng.uniform(-noise, noise, reference.shape).astype(np.float32)


def literal_gap(before: list[float], after: list[float], own: list[int]) -> float:
    """The widest gap in `before` to a stranger that changes sides with the best of `own`."""
    best, new_best = max(before[k] for k in own), max(after[k] for k in own)
    return max(
        abs(before[k] - best)
        for k in range(len(before))
        if k not in own and (before[k] >= best) != (after[k] >= new_best)
    )


def test_equal_matrices_have_no_changes() -> None:
    reference, _ = noisy(8, 0.0)
    comparison = explain_changes(reference, reference.copy())
    assert comparison.changes == ()
    assert comparison.unexplained == ()
    assert comparison.largest_difference == 0


def test_every_change_is_listed_with_its_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "BLOCK_ELEMENTS", 400)
    reference, logits = noisy(30, 0.2)
    before, after = rank_matrix(reference), rank_matrix(logits)
    expected = []
    for image in range(30):
        ranks = int(before.image_to_text[image]), int(after.image_to_text[image])
        own = list(range(5 * image, 5 * image + 5))
        if ranks[0] != ranks[1]:
            gap = literal_gap(reference[image].tolist(), logits[image].tolist(), own)
            expected.append(RankChange("image_to_text", image, *ranks, gap))
    for caption in range(150):
        ranks = int(before.text_to_image[caption]), int(after.text_to_image[caption])
        if ranks[0] != ranks[1]:
            columns = reference[:, caption].tolist(), logits[:, caption].tolist()
            gap = literal_gap(*columns, [caption // 5])
            expected.append(RankChange("text_to_image", caption, *ranks, gap))
    assert len({change.direction for change in expected}) == 2
    assert changed_ranks(reference, logits) == expected


def test_the_largest_difference_explains_every_change() -> None:
    reference, logits = noisy(30, 0.2)
    comparison = explain_changes(reference, logits)
    assert comparison.largest_difference == np.abs(logits.astype(float) - reference).max()
    assert len(comparison.changes) > 20
    assert comparison.unexplained == ()


def test_a_smaller_difference_leaves_changes_unexplained() -> None:
    reference, logits = noisy(30, 0.2)
    comparison = explain_changes(reference, logits, largest_difference=0.02)
    wide = tuple(change for change in comparison.changes if change.gap > 0.04)
    assert comparison.unexplained == wide != ()
    value = json.loads(json.dumps(comparison.to_json()))
    assert value["largest_difference"] == 0.02
    assert [c["explained"] for c in value["changes"]].count(False) == len(wide)
    assert value["changes"][0]["direction"] == "image_to_text"


def test_the_gap_is_that_of_the_candidates_that_passed() -> None:
    reference = np.array([[3.0, 2.5, 1.0], [0.0, 9.0, 0.0], [0.0, 0.0, 9.0]], np.float32)
    logits = reference.copy()
    logits[0] = [2.75, 2.75, 1.0]
    (change,) = changed_ranks(reference, logits, captions_per_image=1)
    assert change == RankChange("image_to_text", 0, 0, 1, 0.5)
    assert change.explained(0.25)
    assert not change.explained(0.24)
    (back,) = changed_ranks(logits, reference, captions_per_image=1)
    assert back == RankChange("image_to_text", 0, 1, 0, 0.0)


def test_ground_truths_that_change_places_are_no_change() -> None:
    reference = np.array([[3.0, 2.0, 1.0, 1.0], [0.0, 0.0, 5.0, 4.0]], np.float32)
    logits = reference[:, [1, 0, 3, 2]]
    assert changed_ranks(reference, logits, captions_per_image=2) == []


def test_a_gap_between_ground_truths_does_not_count() -> None:
    reference = np.array([[3.0, 2.0, 2.75, 1.0], [0.0, 0.0, 5.0, 4.0]], np.float32)
    logits = reference.copy()
    logits[0, :3] = [2.0, 3.0, 3.25]
    (change,) = changed_ranks(reference, logits, captions_per_image=2)
    assert change == RankChange("image_to_text", 0, 0, 1, 0.25)


def test_the_largest_difference_is_not_rounded_to_float32() -> None:
    reference, logits = np.ones((1, 1), np.float32), np.full((1, 1), -3e-8, np.float32)
    assert 1 < measure_difference(reference, logits) == 1 - float(logits[0, 0])


@pytest.mark.parametrize("where", ["reference", "logits"])
def test_a_matrix_that_is_not_finite_is_refused(where: str) -> None:
    matrices = dict(zip(("reference", "logits"), noisy(4, 0.1), strict=True))
    matrices[where][2, 13] = np.nan
    for compare in (changed_ranks, measure_difference):
        with refused(DataError, "row 2", "column 13", got="nan"):
            compare(matrices["reference"], matrices["logits"])


@pytest.mark.parametrize("shape", [(4, 19), (3, 15), (20,)])
def test_matrices_of_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    reference, _ = noisy(4, 0.1)
    with refused(DataError, "logits", expected=naming("(4, 20)"), got=shape):
        measure_difference(reference, np.zeros(shape, np.float32))
    with refused(DataError, "logits", got=(20,)):
        changed_ranks(np.zeros(20, np.float32), np.zeros(shape, np.float32))
