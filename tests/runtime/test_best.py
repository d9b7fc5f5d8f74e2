"""The best candidates, found with members left out: those of all pairs, to the bit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.awkward import awkward, trained_like
from support.refusals import refused
from support.table_engine import Tables, table_scorer

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import DataError
from sgraf_deploy.runtime import PairList, RerankCall, RerankResult, Scorer, best, trials


def check_equal(found: RerankResult, expected: RerankResult) -> None:
    assert found.direction == expected.direction
    assert found.ids == expected.ids
    np.testing.assert_array_equal(found.indices, expected.indices)
    for array in ("logits", "similarities"):
        one, other = getattr(found, array), getattr(expected, array)
        np.testing.assert_array_equal(one.view(np.int32), other.view(np.int32))


def answers(bundle: Bundle, tables: Tables, k: int, *, prune: bool, ranges: Any = None) -> Any:
    """What every caption and every image is answered with, alone."""
    scorer, images, captions = table_scorer(bundle, tables, prune=prune, ranges=ranges)
    found = [scorer.rerank(each, images, k) for each in captions]
    found += [scorer.rerank(each, captions, k) for each in images]
    return found, scorer


@contextmanager
def every_list_tried(least: int = 1) -> Iterator[None]:
    """Have one member asked first whatever the lists before gained, and in lists this short."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best, "LEAST", least)
        patch.setattr(trials, "AGAIN", 1)
        yield


def check_same(bundle: Bundle, tables: Tables, k: int, ranges: Any = None) -> None:
    with every_list_tried():
        found, _ = answers(bundle, tables, k, prune=True, ranges=ranges)
    expected, _ = answers(bundle, tables, k, prune=False)
    for one, other in zip(found, expected, strict=True):
        check_equal(one, other)


@settings(max_examples=60)
@given(st.data())
def test_of_two_with_awkward_logits(exported: Bundle, data: st.DataObject) -> None:
    tables, _ = data.draw(awkward(("sgr", "saf"), most=14))
    check_same(exported, tables, data.draw(st.integers(1, tables["saf"].shape[1] + 1)))


@settings(max_examples=40)
@given(st.data())
def test_of_three_with_awkward_logits(three: Bundle, data: st.DataObject) -> None:
    tables, _ = data.draw(awkward(tuple(three.manifest.members), most=14))
    ranges = {name: (float(each.min()), float(each.max())) for name, each in tables.items()}
    ranges = data.draw(st.sampled_from([{}, ranges]))
    check_same(three, tables, data.draw(st.integers(1, tables["saf"].shape[1] + 1)), ranges)


def calls_of(captions: Any, images: int, seed: int) -> list[RerankCall]:
    """Calls of different lengths, of which some share pairs, hold one twice, or want all."""
    rng = np.random.default_rng(seed)
    calls = []
    for row in (0, 3, 0, 7, 0):
        candidates = rng.integers(0, images, rng.integers(1, images))
        top_k = [None, 1, 2, 5, 1000][rng.integers(5)]
        calls.append(RerankCall(captions[row], candidates, top_k, list(range(len(candidates)))))
    return calls


@pytest.mark.parametrize("least", [1, 4, best.LEAST])
@pytest.mark.parametrize("seed", range(8))
def test_of_many_calls_at_once(exported: Bundle, three: Bundle, seed: int, least: int) -> None:
    with every_list_tried(least):
        check_many(exported, three, seed)


def check_many(exported: Bundle, three: Bundle, seed: int) -> None:
    for bundle, members in (exported, 2), (three, 3):
        tables, found = trained_like(members=members), []
        for prune in (True, False):
            scorer, images, captions = table_scorer(bundle, tables, prune=prune)
            calls = calls_of(captions, len(images), seed)
            found.append(scorer.rerank_many(calls, images))
            for call, result in zip(calls, found[-1], strict=True):
                alone = scorer.rerank(call.query, images[call.candidates], call.top_k, ids=call.ids)
                check_equal(result, alone)
        for one, other in zip(*found, strict=True):
            check_equal(one, other)


def test_lists_after_one_that_gained_nothing_are_scored_whole(exported: Bundle) -> None:
    level = np.zeros_like(trained_like()["saf"])
    tables = {"sgr": confident()["sgr"], "saf": level}
    scorer, images, captions = table_scorer(exported, tables)
    whole, gallery, queries = table_scorer(exported, tables, prune=False)
    for row in range(3 * trials.AGAIN):
        place = row % len(captions)
        expected = whole.rerank(queries[place], gallery, 3)
        check_equal(scorer.rerank(captions[place], images, 3), expected)
    scored = scorer.scored_pairs()
    assert scored["sgr"] == scored["saf"] == 3 * trials.AGAIN * len(images)


def saved(bundle: Bundle, tables: Tables, k: int) -> float:
    """The share of pairs that the costly member was left out of."""
    _, scorer = answers(bundle, tables, k, prune=True)
    scored = scorer.scored_pairs()
    assert scored["saf"] == 2 * tables["saf"].size
    share: float = 1 - scored["sgr"] / scored["saf"]
    return share


def confident(images: int = 40) -> dict[str, Any]:
    """Logits of which the best are so high that no similarity can make up for them."""
    return {name: 2 * each + 9 for name, each in trained_like(images).items()}


def test_short_lists_leave_most_out(exported: Bundle) -> None:
    tables = confident(images=100)
    assert saved(exported, tables, 1) > saved(exported, tables, 10) > 0.3
    assert saved(exported, tables, 500) == 0
    level = {name: np.zeros_like(each) for name, each in tables.items()}
    assert saved(exported, level, 1) == 0, "nothing tells them apart"


def test_all_candidates_are_scored_by_all(exported: Bundle) -> None:
    scorer, images, captions = table_scorer(exported, trained_like())
    scorer.rerank(captions[0], images)
    scored = scorer.scored_pairs()
    assert scored["sgr"] == scored["saf"] == len(images)


def test_no_candidates_are_no_result(exported: Bundle) -> None:
    scorer, images, captions = table_scorer(exported, trained_like())
    assert len(scorer.rerank(captions[0], images[:0], 3)) == 0
    assert len(scorer.rerank(images[0], captions[:0], 3)) == 0


@pytest.mark.parametrize("member", ["sgr", "saf"])
@pytest.mark.parametrize("side", ["image", "caption"])
def test_a_damaged_row_is_found_wherever_it_would_rank(
    exported: Bundle, member: str, side: str
) -> None:
    """Also where the first member says nothing of it, and no bound would bring it up."""
    tables = trained_like()
    place = (5, slice(None)) if side == "image" else (slice(None), 9)
    tables["saf"][place] = -20.0
    tables[member][place] = np.nan
    scorer, images, captions = table_scorer(exported, tables)
    buffers = images.members[member] if side == "image" else captions.members[member]
    rows: Any = buffers.image_global if side == "image" else buffers.text_global  # type: ignore[union-attr]
    rows[5 if side == "image" else 9, 1:] = np.nan
    for query, candidates in (captions[9], images), (images[5], captions):
        with refused(DataError):
            scorer.rerank(query, candidates, 1)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_logits_rank_as_ever(exported: Bundle, value: float) -> None:
    tables = trained_like()
    tables["saf"][3, :40], tables["sgr"][4:9, ::3] = value, value
    with np.errstate(invalid="ignore"):
        check_same(exported, tables, 4)


def lists_of(sizes: Sequence[tuple[int, int | None]]) -> list[PairList]:
    ends = np.cumsum([size for size, _ in sizes])
    starts = [0, *ends[:-1]]
    return [
        PairList(np.arange(start, start + size), k)
        for start, (size, k) in zip(starts, sizes, strict=True)
    ]


def test_pairs_that_no_list_needs_have_no_logit(exported: Bundle) -> None:
    tables = confident()
    scorer, images, captions = table_scorer(exported, tables)
    full, *_ = table_scorer(exported, tables, prune=False)
    sizes: list[tuple[int, int | None]] = [(40, 2), (40, None), (30, 3)]
    rows = np.concatenate([np.arange(size) for size, _ in sizes])
    columns = np.repeat([0, 70, 130], [size for size, _ in sizes])
    lists = lists_of(sizes)
    found = scorer.best_pairs(images, captions, rows, columns, lists)
    one, other = _same(full, images, captions)
    every = full.best_pairs(one, other, rows, columns, lists)
    known = np.isfinite(found)
    assert known[40:80].all()
    assert not known.all()
    np.testing.assert_array_equal(found[known], every[known])
    for each in lists:
        best = np.argsort(-every[each.pairs], kind="stable")[: each.top_k]
        np.testing.assert_array_equal(
            np.argsort(-found[each.pairs], kind="stable")[: each.top_k], best
        )


def _same(scorer: Scorer, images: Any, captions: Any) -> Any:
    return (
        scorer.images_from_host(images.to_host()),
        scorer.captions_from_host(captions.lengths, captions.to_host()),
    )
