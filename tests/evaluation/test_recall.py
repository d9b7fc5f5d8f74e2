"""Ranks and R@K against slow literal counting, hand-made ties and the authors' figures."""

from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from support.refusals import naming, refused

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.evaluation import recall
from sgraf_deploy.evaluation.recall import (
    Recall,
    RecallReport,
    Scores,
    chance_level,
    evaluate,
    folds,
    mean_report,
    rank_matrix,
    row_blocks,
)


def literal_rank(scores: list[float], own: set[int]) -> int:
    """How many strangers stand before the first of `own`, every stranger first among its ties."""
    order = sorted(range(len(scores)), key=lambda place: (-scores[place], place in own))
    return min(order.index(truth) for truth in own)


def literal_ranks(logits: Scores, per_image: int) -> tuple[list[int], list[int]]:
    rows = logits.tolist()
    image_to_text = [
        literal_rank(row, set(range(i * per_image, (i + 1) * per_image)))
        for i, row in enumerate(rows)
    ]
    columns = [[row[c] for row in rows] for c in range(logits.shape[1])]
    text_to_image = [
        literal_rank(column, {caption // per_image}) for caption, column in enumerate(columns)
    ]
    return image_to_text, text_to_image


def literal_ties(logits: Scores, per_image: int) -> tuple[int, int]:
    """How many images and captions have a stranger exactly at their best ground truth's logit."""
    rows, columns = logits.tolist(), logits.T.tolist()
    own = [row[i * per_image : (i + 1) * per_image] for i, row in enumerate(rows)]
    return (
        sum(row.count(max(o)) > o.count(max(o)) for row, o in zip(rows, own, strict=True)),
        sum(column.count(column[c // per_image]) > 1 for c, column in enumerate(columns)),
    )


def sorted_ranks(logits: Scores, per_image: int) -> tuple[list[int], list[int]]:
    """The authors' way: sort each row, turn it round, look where the ground truths are."""
    matrix = logits.astype(np.float64)
    image_to_text, text_to_image = [], []
    for image, row in enumerate(matrix):
        order = np.argsort(row)[::-1]
        places = [
            int(np.where(order == image * per_image + offset)[0][0]) for offset in range(per_image)
        ]
        image_to_text.append(min(places))
    for caption, column in enumerate(matrix.T):
        order = np.argsort(column)[::-1]
        text_to_image.append(int(np.where(order == caption // per_image)[0][0]))
    return image_to_text, text_to_image


def random_logits(images: int, per_image: int = 5, levels: int | None = None) -> Scores:
    """Normal logits (images, captions) float32, rounded to so many levels per unit if given."""
    logits = np.random.default_rng(7).normal(size=(images, images * per_image)).astype(np.float32)
    return logits if levels is None else np.round(logits * levels) / np.float32(levels)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut matrices into blocks of a few rows, the last one shorter."""
    monkeypatch.setattr(recall, "BLOCK_ELEMENTS", 300)


@pytest.mark.parametrize("levels", [None, 8, 2], ids=["distinct", "some-ties", "many-ties"])
@pytest.mark.parametrize(("images", "per_image"), [(1, 5), (2, 1), (13, 5), (23, 2)])
@pytest.mark.usefixtures("small_blocks")
def test_ranks_are_those_of_literal_counting(
    images: int, per_image: int, levels: int | None
) -> None:
    logits = random_logits(images, per_image, levels)
    ranks = rank_matrix(logits, per_image)
    assert ranks.image_to_text.shape == (images,)
    assert ranks.text_to_image.shape == (images * per_image,)
    assert (ranks.image_to_text.tolist(), ranks.text_to_image.tolist()) == literal_ranks(
        logits, per_image
    )
    assert ranks.image_to_text.dtype == ranks.text_to_image.dtype == np.int64
    tied = ranks.tied_image_to_text, ranks.tied_text_to_image
    assert tied == literal_ties(logits, per_image)


@pytest.mark.parametrize("levels", [None, 2], ids=["distinct", "many-ties"])
@pytest.mark.parametrize(("images", "per_image"), [(1, 5), (23, 2), (60, 5)])
@pytest.mark.usefixtures("small_blocks")
def test_authors_ties_are_those_of_their_sort(
    images: int, per_image: int, levels: int | None
) -> None:
    logits = random_logits(images, per_image, levels)
    ranks = rank_matrix(logits, per_image, ties="authors")
    assert (ranks.image_to_text.tolist(), ranks.text_to_image.tolist()) == sorted_ranks(
        logits, per_image
    )
    assert ranks.image_to_text.dtype == ranks.text_to_image.dtype == np.int64
    last = rank_matrix(logits, per_image)
    assert (ranks.tied_image_to_text, ranks.tied_text_to_image) == (
        last.tied_image_to_text,
        last.tied_text_to_image,
    )


def test_authors_ties_differ_from_ties_last() -> None:
    logits = random_logits(60, 5, levels=2)
    authors, last = rank_matrix(logits, ties="authors"), rank_matrix(logits)
    assert (authors.text_to_image < last.text_to_image).any()
    assert (authors.text_to_image <= last.text_to_image).all()


@pytest.mark.parametrize(
    ("row", "rank", "tied"),
    [
        ([9, 1, 5, 5], 0, 0),
        ([5, 1, 5, 0], 1, 1),
        ([1, 5, 5, 5], 2, 1),
        ([5, 5, 4, 4], 0, 0),
        ([5, 4, 4, 0], 0, 0),
        ([1, 0, 2, 3], 2, 0),
    ],
    ids=["first", "one-tie", "two-ties", "tied-with-own", "worse-own-tied", "last"],
)
def test_a_tied_ground_truth_is_last_among_strangers(
    row: list[float], rank: int, tied: int
) -> None:
    logits = np.array([row, [-9, -9, 9, 9]], np.float32)
    ranks = rank_matrix(logits, captions_per_image=2)
    assert ranks.image_to_text.tolist() == [rank, 0]
    assert ranks.tied_image_to_text == tied


def test_ties_of_captions_are_counted_once_per_query() -> None:
    logits = np.array([[1, 2, 3], [1, 2, 0], [1, 0, 3]], np.float32)
    ranks = rank_matrix(logits, captions_per_image=1)
    assert ranks.text_to_image.tolist() == [2, 1, 1]
    assert ranks.tied_text_to_image == 3
    assert ranks.image_to_text.tolist() == [2, 0, 0]
    assert ranks.tied_image_to_text == 0


def test_a_constant_matrix_scores_nothing() -> None:
    ranks = rank_matrix(np.zeros((20, 100), np.float32))
    assert ranks.image_to_text.tolist() == [95] * 20
    assert ranks.text_to_image.tolist() == [19] * 100
    assert RecallReport.of(ranks).rsum == 0


def test_a_block_of_very_wide_rows_is_one_row() -> None:
    assert [*row_blocks(3, 2 * recall.BLOCK_ELEMENTS)] == [slice(i, i + 1) for i in range(3)]


def test_a_memory_map_ranks_as_the_array_does(tmp_path: Path) -> None:
    logits = random_logits(30)
    np.save(tmp_path / "logits.npy", logits)
    mapped = np.load(tmp_path / "logits.npy", mmap_mode="r")
    for ties in ("last", "authors"):
        here, there = rank_matrix(logits, ties=ties), rank_matrix(mapped, ties=ties)
        np.testing.assert_array_equal(here.image_to_text, there.image_to_text)
        np.testing.assert_array_equal(here.text_to_image, there.text_to_image)
        assert type(there.text_to_image) is np.ndarray


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (7, 35), (12, 64)])
@pytest.mark.usefixtures("small_blocks")
def test_a_logit_that_is_not_finite_is_named(row: int, column: int, bad: float) -> None:
    logits = random_logits(13)
    logits[row, column] = bad
    with refused(DataError, "logits", f"row {row}", f"column {column}", got=bad):
        rank_matrix(logits)


@pytest.mark.parametrize(
    ("logits", "per_image", "named", "expected", "got"),
    [
        (np.zeros((3, 14), np.float32), 5, "3 images", naming(5, 15), 14),
        (np.zeros((3, 3), np.float32), 0, "captions", naming(1), 0),
        (np.zeros(15, np.float32), 5, "logits", naming("images", "captions"), naming("(15,)")),
        (np.zeros((0, 0), np.float32), 5, "logits", naming(), naming("(0, 0)")),
        (np.zeros((3, 15), np.int64), 5, "logits", naming(), naming("int64")),
    ],
    ids=["captions", "none-per-image", "flat", "empty", "integers"],
)
def test_wrong_shapes_are_refused(
    logits: Scores, per_image: int, named: str, expected: object, got: object
) -> None:
    with refused(DataError, named, expected=expected, got=got):
        rank_matrix(logits, per_image)


def test_an_unknown_rule_for_ties_is_refused() -> None:
    with refused(InputError, "ties", expected=naming("last", "authors"), got="first"):
        rank_matrix(random_logits(2), ties="first")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ([0], Recall(100, 100, 100, 1, 1)),
        ([0, 1, 4, 5], Recall(25, 75, 100, 3, 3.5)),
        ([9, 10, 99, 0], Recall(25, 25, 50, 10, 30.5)),
    ],
    ids=["perfect", "median-2.5", "median-9.5"],
)
def test_recall_of_ranks(ranks: list[int], expected: Recall) -> None:
    found = Recall.of(np.array(ranks))
    assert found == expected
    assert {type(value) for value in vars(found).values()} == {float}


def test_the_report_adds_up_and_is_json() -> None:
    logits = random_logits(40, levels=4)
    report = evaluate(logits)
    ranks = rank_matrix(logits)
    assert report.image_to_text == Recall.of(ranks.image_to_text)
    assert report.text_to_image == Recall.of(ranks.text_to_image)
    recalls = [
        getattr(recall_, name)
        for recall_ in (report.image_to_text, report.text_to_image)
        for name in ("r1", "r5", "r10")
    ]
    assert report.rsum == pytest.approx(sum(recalls))
    value = json.loads(json.dumps(report.to_json()))
    assert value["text_to_image"]["median_rank"] == report.text_to_image.median_rank
    assert (value["images"], value["captions"], value["ties"]) == (40, 200, "last")
    assert value["tied_text_to_image"] == ranks.tied_text_to_image > 0
    assert value["tied_image_to_text"] == ranks.tied_image_to_text > 0


def test_folds_are_the_diagonal_blocks_and_their_mean() -> None:
    logits = random_logits(20, 5, levels=6)
    report = folds(logits, folds=5)
    blocks = [
        evaluate(np.ascontiguousarray(logits[4 * k : 4 * k + 4, 20 * k : 20 * k + 20]))
        for k in range(5)
    ]
    assert report.folds == tuple(blocks)
    assert (report.mean.images, report.mean.captions) == (4, 20)
    for direction in ("image_to_text", "text_to_image"):
        for name in ("r1", "r5", "r10", "median_rank", "mean_rank"):
            figures = [getattr(getattr(block, direction), name) for block in blocks]
            mean = getattr(getattr(report.mean, direction), name)
            assert mean == pytest.approx(np.mean(figures)), (direction, name)
    assert report.mean.rsum == pytest.approx(np.mean([block.rsum for block in blocks]))
    assert report.mean.tied_text_to_image == sum(block.tied_text_to_image for block in blocks) > 0
    assert report.mean.tied_image_to_text == sum(block.tied_image_to_text for block in blocks) > 0
    assert len(json.loads(json.dumps(report.to_json()))["folds"]) == 5


def test_one_fold_is_the_whole_matrix() -> None:
    logits = random_logits(4, 5, levels=2)
    whole = evaluate(logits)
    assert folds(logits, folds=1).folds == (whole,)
    assert folds(logits, folds=1).mean == whole


def test_folds_keep_the_rule_for_ties() -> None:
    report = folds(random_logits(20, 5, levels=2), ties="authors")
    assert {fold.ties for fold in (*report.folds, report.mean)} == {"authors"}
    assert report.mean.rsum > folds(random_logits(20, 5, levels=2)).mean.rsum


@pytest.mark.parametrize("count", [3, 0, -1, 40])
def test_the_fold_count_divides_the_images(count: int) -> None:
    with refused(DataError, "folds", expected=naming(20), got=count):
        folds(random_logits(20), folds=count)


def test_only_reports_of_one_size_have_a_mean() -> None:
    with refused(DataError, got=[(2, 10, "last"), (3, 15, "last")]):
        mean_report([evaluate(random_logits(2)), evaluate(random_logits(3))])
    with refused(DataError, expected=naming(), got="none"):
        mean_report([])


@pytest.mark.parametrize(("images", "per_image"), [(2, 2), (3, 2), (7, 1)])
def test_chance_is_the_mean_over_every_order(images: int, per_image: int) -> None:
    captions = images * per_image
    best = np.array(
        [min(order[:per_image]) for order in permutations(range(captions))]
    )  # where an image's own captions can stand
    expected = Recall.of(best)
    report = chance_level(images, per_image)
    assert vars(report.image_to_text) == pytest.approx(vars(expected))
    assert vars(report.text_to_image) == pytest.approx(vars(Recall.of(np.arange(images))))


def test_chance_on_the_paper_sizes() -> None:
    report = chance_level(1000)
    assert report.text_to_image.r1 == pytest.approx(0.1)
    assert report.text_to_image.median_rank == 500
    assert report.image_to_text.r10 == pytest.approx(100 * (1 - (1 - 5 / 5000) ** 10), rel=0.01)
    assert (report.images, report.captions) == (1000, 5000)
    assert report.rsum == pytest.approx(report.image_to_text.total + report.text_to_image.total)
    with refused(DataError, expected=naming(), got=naming(0)):
        chance_level(0)


def test_an_only_image_is_always_found() -> None:
    assert chance_level(1, 1).rsum == 600


@pytest.mark.parametrize("module", ["SGR", "SAF"])
@pytest.mark.parametrize("ties", ["last", "authors"])
def test_the_authors_matrices_rank_as_a_literal_sort_does(
    shared: Path, module: str, ties: recall.Ties
) -> None:
    with np.load(shared / "checkpoints" / "expected_dev100.npz") as arrays:
        similarities = arrays[module]
    ranks = rank_matrix(similarities, ties=ties)
    assert (ranks.tied_image_to_text, ranks.tied_text_to_image) == (0, 0)
    assert (ranks.image_to_text.tolist(), ranks.text_to_image.tolist()) == sorted_ranks(
        similarities, 5
    )
    assert evaluate(similarities).rsum > 5 * chance_level(100).rsum
