"""One query against candidates, in both directions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.closeness import assert_close
from support.refusals import naming, refused
from support.scorers import CAPTIONS, Faked, assert_logits

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.ensemble import ensemble_logits, similarities
from sgraf_deploy.errors import BundleError, DataError, InputError
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.runtime.rerank import rank

MakeFaked = Callable[..., Faked]


@pytest.mark.parametrize("query", ["string", "ids", "array", "encoded"])
@pytest.mark.parametrize("encoded", [True, False], ids=["encoded", "raw"])
def test_a_caption_is_answered_with_images(
    scorer: Scorer, regions: NDArray[np.float32], query: str, encoded: bool
) -> None:
    ids = [1, 4, 5, 7, 2]
    asked: Any = {
        "string": "a dog runs",
        "ids": ids,
        "array": np.array(ids, np.int16),
        "encoded": scorer.encode_captions([ids]),
    }[query]
    result = scorer.rerank(asked, scorer.encode_images(regions) if encoded else regions)
    logits = ensemble_logits(scorer.logits(regions, [ids]))[:, 0]
    assert result.direction == "text_to_image"
    assert result.indices.tolist() == np.argsort(-logits).tolist()
    assert_logits(result.logits, logits[result.indices])
    assert np.array_equal(result.similarities, similarities(result.logits))


@pytest.mark.parametrize("query", ["regions", "half", "encoded"])
@pytest.mark.parametrize("encoded", [True, False], ids=["encoded", "raw"])
def test_an_image_is_answered_with_captions(
    scorer: Scorer, regions: NDArray[np.float32], query: str, encoded: bool
) -> None:
    asked: Any = {
        "regions": regions[3],
        "half": regions[3].astype(np.float16),
        "encoded": scorer.encode_images(regions)[3],
    }[query]
    result = scorer.rerank(asked, scorer.encode_captions(CAPTIONS) if encoded else CAPTIONS)
    logits = ensemble_logits(scorer.logits(regions[3:4], CAPTIONS))[0]
    assert result.direction == "image_to_text"
    assert result.indices.tolist() == np.argsort(-logits).tolist()
    if query == "half":
        features = regions.shape[-1]
        assert_close(result.logits, logits[result.indices], features, np.float16)
    else:
        assert_logits(result.logits, logits[result.indices])


@pytest.mark.parametrize(("top_k", "expected"), [(1, 1), (4, 4), (9, 9), (50, 9), (None, 9)])
def test_the_best_come_first_and_only_so_many(
    faked: MakeFaked, regions: NDArray[np.float32], top_k: int | None, expected: int
) -> None:
    scorer = faked().scorer
    result = scorer.rerank("a red cat", regions, top_k)
    assert len(result) == len(result.logits) == len(result.similarities) == expected
    assert np.all(np.diff(result.logits) <= 0)
    assert result.indices.tolist() == scorer.rerank("a red cat", regions).indices[:top_k].tolist()


@given(st.lists(st.integers(-3, 3), max_size=30), st.none() | st.integers(1, 40))
def test_ties_stand_in_the_candidates_order(values: list[int], top_k: int | None) -> None:
    result = rank("text_to_image", np.array(values, dtype=np.float32), top_k)
    expected = sorted(range(len(values)), key=lambda index: (-values[index], index))[:top_k]
    assert result.indices.tolist() == expected
    assert result.logits.tolist() == [values[index] for index in expected]


def test_a_result_is_a_sequence_of_items(scorer: Scorer, regions: NDArray[np.float32]) -> None:
    result = scorer.rerank("a dog runs", regions, top_k=4)
    items = list(result)
    assert [item.index for item in items] == result.indices.tolist()
    assert [item.logit for item in items] == result.logits.tolist()
    assert [item.similarity for item in items] == result.similarities.tolist()
    assert {item.id for item in items} == {None}
    assert (result[0], result[-1], list(result[1:3])) == (items[0], items[3], items[1:3])
    with pytest.raises(IndexError):
        _ = result[4]


@pytest.mark.parametrize("kind", [list, tuple, np.array], ids=["list", "tuple", "array"])
@pytest.mark.parametrize("method", ["rerank", "rank"])
def test_a_result_carries_the_callers_ids(
    scorer: Scorer, regions: NDArray[np.float32], kind: Any, method: str
) -> None:
    names = [f"photo {row}" for row in range(9)]
    result = getattr(scorer, method)("a dog runs", regions, top_k=3, ids=kind(names))
    assert result.ids == tuple(names[row] for row in result.indices)
    assert [item.id for item in result] == list(result.ids)
    assert result[1:].ids == result.ids[1:]
    texts = getattr(scorer, method)(regions[0], CAPTIONS, ids=CAPTIONS)
    assert [item.id for item in texts] == [CAPTIONS[item.index] for item in texts]


def test_rank_is_rerank(scorer: Scorer, regions: NDArray[np.float32]) -> None:
    one = scorer.rank("a dog runs", regions, 3)
    other = scorer.rerank("a dog runs", regions, 3)
    assert list(one) == list(other)
    assert list(scorer.rank(query="a dog runs", documents=regions, top_k=3)) == list(other)


@pytest.mark.parametrize(
    ("ids", "expected", "got"),
    [
        (["a"] * 8, naming(9), 8),
        ([], naming(9), 0),
        ("123456789", naming(), "str"),
        (7, naming(), "int"),
        ({"a": 1}, naming(), "dict"),
        (np.zeros((9, 1)), naming(), naming("float64", "(9, 1)")),
    ],
    ids=str,
)
def test_unfit_ids_are_refused_before_anything_is_encoded(
    faked: MakeFaked, regions: NDArray[np.float32], ids: Any, expected: naming, got: object
) -> None:
    made = faked()
    with refused(InputError, "ids", expected=expected, got=got):
        made.scorer.rerank("a dog", regions, ids=ids)
    assert not made.engine.calls


def test_saturated_similarities_are_still_ranked() -> None:
    result = rank("text_to_image", np.array([100, 102, 101], dtype=np.float32), None)
    assert result.similarities.tolist() == [1.0, 1.0, 1.0]
    assert result.indices.tolist() == [1, 2, 0]


def test_no_candidates_are_no_answer(faked: MakeFaked) -> None:
    assert len(faked().scorer.rerank(np.zeros((4, 6), np.float32), [])) == 0


@pytest.mark.parametrize(
    ("query", "got"),
    [
        (["a dog"], "list"),
        (7, "int"),
        (None, "NoneType"),
        ([1, 2.5], "list"),
        (np.zeros((1, 4, 6), np.float32), naming("float32", "(1, 4, 6)")),
        (np.zeros((4, 6), np.int32), naming("int32", "(4, 6)")),
        (np.zeros(3), naming("float64", "(3,)")),
    ],
    ids=str,
)
def test_other_queries_are_refused(
    faked: MakeFaked, regions: NDArray[np.float32], query: Any, got: object
) -> None:
    with refused(InputError, "query", expected=naming("regions", "img_dim"), got=got):
        faked().scorer.rerank(query, regions)


@pytest.mark.parametrize(
    ("query", "name", "expected", "got"),
    [
        ("", 0, naming(), "''"),
        ([], 0, naming(), naming()),
        ([99], 0, naming(0, 13), 99),
        (np.zeros((3, 6), np.float32), "regions", naming("(any, 4, 6)"), "(1, 3, 6)"),
    ],
    ids=["empty", "no-ids", "unknown-id", "regions"],
)
def test_an_unfit_query_is_refused(
    faked: MakeFaked,
    regions: NDArray[np.float32],
    query: Any,
    name: object,
    expected: naming,
    got: object,
) -> None:
    with refused(DataError, name, expected=expected, got=got):
        faked().scorer.rerank(query, CAPTIONS if isinstance(query, np.ndarray) else regions)


def test_several_encoded_are_no_query(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    scorer = faked().scorer
    with refused(InputError, "query", got=naming(9)):
        scorer.rerank(scorer.encode_images(regions), CAPTIONS)


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True, "3"], ids=repr)
def test_an_unfit_top_k_is_refused(
    faked: MakeFaked, regions: NDArray[np.float32], top_k: Any
) -> None:
    made = faked()
    with refused(InputError, "top_k", expected=naming(), got=top_k):
        made.scorer.rerank("a dog", regions, top_k)
    assert made.engine.shapes == []


def test_candidates_of_the_wrong_kind_are_refused(
    faked: MakeFaked, regions: NDArray[np.float32]
) -> None:
    scorer = faked().scorer
    with refused(InputError, expected="images", got=naming("captions")):
        scorer.rerank("a dog", scorer.encode_captions(CAPTIONS))
    with refused(DataError, "regions", got="list", hint="numpy.stack(regions)"):
        scorer.rerank("a dog", CAPTIONS)
    with refused(DataError, 0, got=naming("float32", "(4, 6)")):
        scorer.rerank(regions[0], regions)


def test_a_bundle_without_vocabulary_takes_ids(faked: MakeFaked, sgr_bundle: Bundle) -> None:
    scorer = faked(of=sgr_bundle).scorer
    images = np.zeros((2, 4, 6), np.float32)
    assert len(scorer.rerank([1, 4, 2], images)) == 2
    with refused(BundleError, sgr_bundle.path, hint="--vocab FILE"):
        scorer.rerank("a dog", images)
