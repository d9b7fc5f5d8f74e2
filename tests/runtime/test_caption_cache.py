"""Captions that are asked again are not encoded again, and what is kept has a bound."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray
from support.scorers import CAPTIONS, Faked, make_regions, make_token_ids

from sgraf_deploy.runtime import RerankCall, Scorer
from sgraf_deploy.runtime.caption_cache import CachedCaption, CaptionCache
from sgraf_deploy.runtime.tiles import TileLimits

MakeFaked = Callable[..., Faked]

DISTINCT = 100_000
BOUND = 2**20


def caption(number: int, words: int = 3) -> NDArray[np.int32]:
    return np.array([number, *range(words - 1)], np.int32)


def encoded(number: int, words: int = 3, embed: int = 8) -> CachedCaption:
    one = np.full((words, embed), number, np.float32), np.full(embed, number, np.float32)
    return {"sgr": one, "saf": (one[0].copy(), one[1].copy())}


def test_what_is_kept_stays_below_its_bound() -> None:
    cache, same = CaptionCache(BOUND), encoded(7)
    most = 0
    for number in range(DISTINCT):
        cache.keep(caption(number), same)
        most = max(most, cache.nbytes)
    assert 0.99 * BOUND < most <= BOUND
    assert 100 < len(cache) < DISTINCT / 10
    newest, oldest = cache.find([caption(DISTINCT - 1), caption(0)])
    assert newest is same
    assert oldest is None
    cache.clear()
    assert (len(cache), cache.nbytes) == (0, 0)


def test_the_bound_counts_what_python_takes_too() -> None:
    cache = CaptionCache(BOUND)
    tracemalloc.start()
    try:
        for number in range(3_000):
            cache.keep(caption(number), encoded(number))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.99 * BOUND < cache.nbytes <= BOUND
    assert 0.5 * BOUND < held <= 1.02 * BOUND
    (last,) = cache.find([caption(2_999)])
    assert last is not None
    assert last["saf"][0][0, 0] == 2_999


def test_the_one_used_longest_ago_makes_room() -> None:
    one = CaptionCache(BOUND)
    one.keep(caption(0), encoded(0))
    cache = CaptionCache(3 * one.nbytes)
    for number in range(3):
        cache.keep(caption(number), encoded(number))
    assert all(cache.find([caption(0)]))
    cache.keep(caption(3), encoded(3))
    found = cache.find([caption(number) for number in range(4)])
    assert [each is not None for each in found] == [True, False, True, True]
    cache.keep(caption(0), encoded(0))
    assert (len(cache), cache.nbytes) == (3, 3 * one.nbytes)


def test_one_that_is_larger_than_the_bound_takes_nobodys_place() -> None:
    cache = CaptionCache(10_000)
    cache.keep(caption(1), encoded(1))
    cache.keep(caption(2), encoded(2, words=300))
    assert [each is not None for each in cache.find([caption(1), caption(2)])] == [True, False]


def test_without_bytes_nothing_is_kept() -> None:
    cache = CaptionCache(0)
    cache.keep(caption(1), encoded(1))
    assert cache.find([caption(1)]) == [None]
    assert len(cache) == 0


def cached(faked: MakeFaked, max_bytes: int = 2**20) -> Faked:
    """A scorer with a cache of so many bytes."""
    made = faked()
    other = Scorer(
        made.scorer.bundle,
        made.engine,
        precision="fp32",
        limits=TileLimits(),
        caption_cache=max_bytes,
    )
    return Faked(other, made.engine)


def test_a_query_is_encoded_once(faked: MakeFaked) -> None:
    made = cached(faked)
    images = made.scorer.encode_images(make_regions(9))
    runs = made.engine.calls
    first = made.scorer.rerank(CAPTIONS[0], images)
    assert runs["text_encoder"] == 2, "by each of two members"
    again = made.scorer.rerank(CAPTIONS[0], images)
    ids = [1, *range(2, 6)]
    many = made.scorer.rerank_many([RerankCall(CAPTIONS[0], range(9))] * 3, images)
    assert runs["text_encoder"] == 2
    for found in (again, *many):
        assert np.array_equal(found.indices, first.indices)
        assert np.abs(found.logits - first.logits).max() < 1e-6
    made.scorer.rerank(ids, images)
    assert runs["text_encoder"] == 4
    made.scorer.rerank(np.array(ids), images)
    assert runs["text_encoder"] == 4, "the same token ids, however they are given"


def test_candidates_are_not_kept(faked: MakeFaked) -> None:
    made = cached(faked)
    images = made.scorer.encode_images(make_regions(2))
    for _ in range(2):
        made.scorer.rerank(images[0], CAPTIONS)
        made.scorer.score(images, CAPTIONS)
    assert made.engine.calls["text_encoder"] % 4 == 0
    before = made.engine.calls["text_encoder"]
    made.scorer.rerank(CAPTIONS[0], images)
    assert made.engine.calls["text_encoder"] == before + 2


def test_the_others_alone_are_encoded(faked: MakeFaked) -> None:
    made = cached(faked)
    images = made.scorer.encode_images(make_regions(9))
    made.scorer.rerank(CAPTIONS[1], images)
    made.engine.shapes.clear()
    made.scorer.rerank_many([RerankCall(text, [0, 4]) for text in CAPTIONS[:3]], images)
    encoders = [shape for name, shape in made.engine.shapes if name == "text_encoder"]
    assert sum(captions for captions, _ in encoders) == 2 * 2


def test_a_scorer_that_is_closed_keeps_nothing(faked: MakeFaked) -> None:
    made = cached(faked)
    images = made.scorer.encode_images(make_regions(2))
    made.scorer.rerank(CAPTIONS[0], images)
    cache = made.scorer._context.cache
    assert len(cache) == 1
    made.scorer.close()
    assert len(cache) == 0


@pytest.mark.parametrize("max_bytes", [0, 6_000, 2**20], ids=["none", "few", "all"])
def test_threads_at_once_get_what_one_gets(faked: MakeFaked, max_bytes: int) -> None:
    made = cached(faked, max_bytes)
    images = made.scorer.encode_images(make_regions(12))
    queries = make_token_ids(20)
    rng = np.random.default_rng(0)
    calls = [RerankCall(query, rng.permutation(12)[:7], top_k=5) for query in queries]
    alone = [made.scorer.rerank(call.query, images[call.candidates], call.top_k) for call in calls]

    def ask(thread: int) -> None:
        order = np.random.default_rng(thread).permutation(len(calls))
        for some in np.array_split(order, 4):
            found = made.scorer.rerank_many([calls[at] for at in some], images)
            for at, result in zip(some, found, strict=True):
                assert np.array_equal(result.indices, alone[at].indices)
                assert np.abs(result.logits - alone[at].logits).max() < 1e-6
            single = made.scorer.rerank(calls[some[0]].query, images[calls[some[0]].candidates])
            assert np.abs(single.logits[:5] - alone[some[0]].logits).max() < 1e-6

    with ThreadPoolExecutor(16) as threads:
        for done in [threads.submit(ask, thread) for thread in range(16)]:
            done.result()
    assert made.scorer._context.cache.nbytes <= max_bytes


def test_captions_are_found_and_missed_by_number() -> None:
    cache = CaptionCache(2**20)
    first, second = np.array([1, 5, 2], np.int32), np.array([1, 6, 2], np.int32)
    assert cache.find([first, second]) == [None, None]
    cache.keep(first, {"sgr": (np.zeros((3, 4)), np.zeros(4))})
    assert [each is None for each in cache.find([first, second, first])] == [False, True, False]
    assert (cache.hits, cache.misses) == (2, 3)
