"""Many queries at once get what each of them gets alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import naming, refused
from support.scorers import CAPTIONS, Faked, make_regions, make_token_ids

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.runtime import RerankCall, RerankResult, Scorer, load

MakeFaked = Callable[..., Faked]

IMAGES = 30


def assert_same(found: RerankResult, right: RerankResult) -> None:
    """Equal but for rounding; the order differs only where logits do not."""
    assert (found.direction, len(found)) == (right.direction, len(right))
    np.testing.assert_allclose(found.logits, right.logits, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.similarities, right.similarities, rtol=0, atol=1e-6)
    by_place = dict(zip(right.indices.tolist(), right.logits.tolist(), strict=True))
    for index, logit in zip(found.indices.tolist(), found.logits.tolist(), strict=True):
        assert abs(by_place.get(index, right.logits[-1]) - logit) < 1e-6


@pytest.fixture(params=["fake", "ort", "native"])
def any_scorer(request: pytest.FixtureRequest, bundle: Bundle, faked: MakeFaked) -> Any:
    if request.param == "fake":
        yield faked().scorer
        return
    if request.param == "native":
        bundle = request.getfixturevalue("exported")
    with load(bundle, engine=request.param) as scorer:
        yield scorer


def inputs(scorer: Scorer) -> tuple[NDArray[np.float32], list[NDArray[Any]]]:
    """Regions of images and captions that fit a scorer's bundle."""
    manifest = scorer.bundle.manifest
    rng = np.random.default_rng(0)
    shape = (IMAGES, manifest.regions, manifest.img_dim)
    captions = [1 + ids % (manifest.vocab_size - 1) for ids in make_token_ids(IMAGES)]
    return rng.normal(size=shape).astype(np.float32), captions


def test_captions_are_answered_as_alone(any_scorer: Scorer) -> None:
    regions, captions = inputs(any_scorer)
    images, texts = any_scorer.encode_images(regions), any_scorer.encode_captions(captions)
    rng = np.random.default_rng(1)
    queries: list[Any] = [*captions[:9], captions[3].tolist(), captions[0], texts[20], texts[3]]
    calls = [
        RerankCall(query, rng.integers(0, IMAGES, count), top_k)
        for query, count, top_k in zip(
            queries,
            [1, 10, 30, 7, 2, 5, 5, 9, 10, 3, 4, 6, 8],
            [None, 3, 40] * 4 + [1],
            strict=True,
        )
    ]
    found = any_scorer.rerank_many(calls, images)
    again = any_scorer.rerank_many(calls[::-1], images)[::-1]
    assert len(found) == len(calls)
    for call, one, two in zip(calls, found, again, strict=True):
        right = any_scorer.rerank(call.query, images[call.candidates], call.top_k)
        assert_same(one, right)
        assert_same(two, right)


def test_images_are_answered_as_alone(any_scorer: Scorer) -> None:
    regions, captions = inputs(any_scorer)
    images, texts = any_scorer.encode_images(regions), any_scorer.encode_captions(captions)
    rng = np.random.default_rng(2)
    queries: list[Any] = [regions[0], images[1], regions[2], images[0], images[29]]
    calls = [RerankCall(query, rng.permutation(IMAGES)[:11], 6) for query in queries]
    for call, one in zip(calls, any_scorer.rerank_many(calls, texts), strict=True):
        assert_same(one, any_scorer.rerank(call.query, texts[call.candidates], 6))


def test_threads_at_once_get_what_one_gets(any_scorer: Scorer) -> None:
    regions, captions = inputs(any_scorer)
    images = any_scorer.encode_images(regions)
    rng = np.random.default_rng(3)
    calls = [RerankCall(query, rng.permutation(IMAGES)[:9]) for query in captions]
    right = any_scorer.rerank_many(calls, images)

    def ask(thread: int) -> None:
        order = np.random.default_rng(thread).permutation(len(calls))
        for some in np.array_split(order, 3):
            found = any_scorer.rerank_many([calls[at] for at in some], images)
            for at, result in zip(some, found, strict=True):
                assert_same(result, right[at])

    with ThreadPoolExecutor(16) as threads:
        for done in [threads.submit(ask, thread) for thread in range(16)]:
            done.result()


def test_candidates_keep_their_names(faked: MakeFaked) -> None:
    scorer = faked().scorer
    images = scorer.encode_images(make_regions(5))
    names = ["e", "b", "c"]
    for ids in (names, np.array(names)):
        call = RerankCall(CAPTIONS[0], [4, 1, 2], top_k=2, ids=ids)
        (best,) = scorer.rerank_many([call], images)
        assert best.ids == tuple(names[at] for at in best.indices)
        assert [item.id for item in best] == list(best.ids)


def test_equal_candidates_keep_their_order(any_scorer: Scorer) -> None:
    regions, captions = inputs(any_scorer)
    images = any_scorer.encode_images(regions)
    calls = [RerankCall(captions[0], [5, 3, 5, 3, 5]), RerankCall(captions[1], [2] * 4, top_k=2)]
    first, second = any_scorer.rerank_many(calls, images)
    assert first.indices.tolist() in ([0, 2, 4, 1, 3], [1, 3, 0, 2, 4])
    assert second.indices.tolist() == [0, 1]


def test_all_captions_are_encoded_and_all_pairs_scored_together(faked: MakeFaked) -> None:
    made = faked()
    images = made.scorer.encode_images(make_regions(50))
    calls = [RerankCall([1, number, 2], range(number, number + 10)) for number in range(3, 13)] * 2
    made.scorer.rerank_many(calls, images)
    shapes = [shape for name, shape in made.engine.shapes if name == "text_encoder"]
    assert shapes == [(10, 3)] * 2, "equal captions once, for each of two members"
    pairs = [shape[-1] for name, shape in made.engine.shapes if name == "pair_scorer"]
    assert pairs == [100] * 2, "equal pairs once, too"
    assert made.engine.calls["scorer"] == 0


def test_no_calls_and_no_candidates(faked: MakeFaked) -> None:
    scorer = faked().scorer
    images, captions = scorer.encode_images(make_regions(4)), scorer.encode_captions(CAPTIONS)
    assert scorer.rerank_many([], images) == []
    empty, one = scorer.rerank_many(
        [RerankCall(CAPTIONS[0], []), RerankCall(CAPTIONS[1], [2])], images
    )
    assert (len(empty), len(one)) == (0, 1)
    (empty,) = scorer.rerank_many([RerankCall(images[0], np.zeros(0, np.int64))], captions)
    assert (len(empty), empty.direction) == (0, "image_to_text")


BAD: dict[str, tuple[type[InputError], dict[str, Any], str]] = {
    "no-row": (DataError, {"candidates": [0, 9]}, "candidates"),
    "negative": (DataError, {"candidates": [-1]}, "candidates"),
    "floats": (DataError, {"candidates": [0.5]}, "candidates"),
    "two-dimensional": (DataError, {"candidates": [[0]]}, "candidates"),
    "top_k": (InputError, {"top_k": 0}, "top_k"),
    "ids": (InputError, {"ids": ["a"]}, "ids"),
    "an-image": (InputError, {"query": np.zeros((4, 6), np.float32)}, "query"),
    "nothing": (InputError, {"query": None}, "query"),
    "empty": (DataError, {"query": ""}, "caption 0"),
    "no-word": (DataError, {"query": [1, 99, 2]}, "caption 0"),
}


@pytest.mark.parametrize("change", BAD, ids=BAD)
def test_an_error_names_the_call(faked: MakeFaked, change: str) -> None:
    made = faked()
    images = made.scorer.encode_images(make_regions(4))
    kind, changed, name = BAD[change]
    good: dict[str, Any] = {"query": CAPTIONS[0], "candidates": [0, 1]}
    calls = [RerankCall(**good), RerankCall(**(good | changed)), RerankCall(**good)]
    made.engine.calls.clear()
    with refused(kind, "call 1", name, expected=naming(), got=naming()):
        made.scorer.rerank_many(calls, images)
    assert not made.engine.calls, "nothing is encoded before all calls are right"


def test_regions_of_another_shape_name_the_call(faked: MakeFaked) -> None:
    scorer = faked().scorer
    captions = scorer.encode_captions(CAPTIONS)
    calls = [RerankCall(make_regions(1)[0], [0]), RerankCall(np.zeros((4, 5), np.float32), [0])]
    with refused(DataError, "call 1", "regions", expected=naming(), got=naming()):
        scorer.rerank_many(calls, captions)


def test_regions_that_are_not_finite_name_the_call(faked: MakeFaked) -> None:
    scorer = faked().scorer
    captions = scorer.encode_captions(CAPTIONS)
    wrong = make_regions(1)[0]
    wrong[2, 3] = np.nan
    calls = [RerankCall(make_regions(1)[0], [0]), RerankCall(wrong, [0])]
    with refused(DataError, "call 1", "regions", got=naming("nan")):
        scorer.rerank_many(calls, captions)


def test_a_gallery_is_encoded_and_this_scorers(faked: MakeFaked) -> None:
    scorer, other = faked().scorer, faked().scorer
    call = RerankCall(CAPTIONS[0], [0])
    raw: Any = make_regions(2)
    with refused(InputError, "gallery", expected=naming("encoded"), got="ndarray"):
        scorer.rerank_many([call], raw)
    with refused(InputError, "images", hint=naming()):
        scorer.rerank_many([call], other.encode_images(make_regions(2)))
    theirs = other.encode_captions(CAPTIONS[:1])
    with refused(InputError, "call 0", "captions", hint=naming()):
        scorer.rerank_many([RerankCall(theirs, [0])], scorer.encode_images(make_regions(2)))
