"""The best candidates of all queries, found with members left out: those of all pairs, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.awkward import awkward, trained_like
from support.parts import near_ties, tied_inputs
from support.refusals import refused
from support.table_engine import TableEngine, Tables, table_scorer

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines import bounds
from sgraf_deploy.engines.ensemble import ensemble_logits
from sgraf_deploy.errors import DataError
from sgraf_deploy.runtime import PartialTopK, Scorer, TileShape, best_tiles, load
from sgraf_deploy.runtime.share import Share

Owners = Sequence[int]
"""Which part each tile is in."""


def found_in_parts(
    bundle: Bundle, tables: Tables, k: int, owners: Owners, *, prune: bool, ranges: Any = None
) -> list[PartialTopK]:
    """The parts of tables, in the order in which they are first named; tiles beyond go in turn."""
    scorer, images, captions = table_scorer(bundle, tables, prune=prune, ranges=ranges)
    tiling = scorer.tiling(images, captions)
    names = np.resize(owners, len(tiling))
    numbers = [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]
    return [scorer.top_k_tiles(images, captions, k, each, tiling=tiling) for each in numbers]


def check_same(
    bundle: Bundle, tables: Tables, k: int, owners: Owners = (0,), ranges: Any = None
) -> PartialTopK:
    """Parts with members left out are those of every pair, and so is what they merge to."""
    pruned = found_in_parts(bundle, tables, k, owners, prune=True, ranges=ranges)
    whole = found_in_parts(bundle, tables, k, owners, prune=False)
    assert [each.digest for each in pruned] == [each.digest for each in whole]
    merged = PartialTopK.merge(pruned)
    assert merged.digest == PartialTopK.merge(whole[::-1]).digest
    pairs = tables["saf"].size
    assert {type(number) for number in merged.scored.values()} == {int}, "a file can hold it"
    assert max(merged.scored.values()) == pairs
    assert min(merged.scored.values()) >= 0
    return merged


OWNERS = st.lists(st.integers(0, 6), min_size=1, max_size=30)
ROUNDS = st.sampled_from([1, 30, best_tiles.ROUND])


@settings(max_examples=150)
@given(st.data())
def test_of_two_with_awkward_logits(exported: Bundle, data: st.DataObject) -> None:
    tables, _ = data.draw(awkward(("sgr", "saf"), most=14))
    k = data.draw(st.integers(1, tables["saf"].shape[1] + 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_tiles, "ROUND", data.draw(ROUNDS))
        check_same(exported, tables, k, data.draw(OWNERS))


@settings(max_examples=100)
@given(st.data())
def test_of_three_with_awkward_logits(three: Bundle, data: st.DataObject) -> None:
    tables, _ = data.draw(awkward(tuple(three.manifest.members), most=14))
    ranges = {name: (float(each.min()), float(each.max())) for name, each in tables.items()}
    ranges = data.draw(st.sampled_from([None, ranges]))
    k = data.draw(st.integers(1, 6))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_tiles, "ROUND", data.draw(ROUNDS))
        check_same(three, tables, k, data.draw(OWNERS), ranges)


@settings(max_examples=50)
@given(st.integers(1, 12), OWNERS, ROUNDS)
def test_of_many_ties(exported: Bundle, k: int, owners: list[int], pairs: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(best_tiles, "ROUND", pairs)
        check_same(exported, near_ties(), k, owners)


def confident(images: int = 40, members: int = 2) -> dict[str, Any]:
    """Logits of which the best are so high that no similarity can make up for them."""
    return {name: 2 * each + 9 for name, each in trained_like(images, members=members).items()}


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_most_pairs_are_left_out(exported: Bundle, three: Bundle, parts: int) -> None:
    for bundle, members in (exported, 2), (three, 3):
        tables = confident(60, members)
        owners = (
            np.arange(parts).repeat(20 * 75 // parts + 1).tolist()
        )  # As a job does: runs of tiles.
        scored = check_same(bundle, tables, 1, owners).scored
        assert scored["sgr"] < 0.5 * tables["saf"].size


@pytest.mark.parametrize("k", [1, 5])
def test_few_pairs_are_scored_that_known_lists_would_leave_out(exported: Bundle, k: int) -> None:
    tables = confident(60)
    logits = ensemble_logits(tables)
    of_image = np.partition(logits, -k, axis=1)[:, -k, None]
    of_caption = np.partition(logits, -k, axis=0)[-k]
    upper = bounds.Rest([bounds.ANY]).upper([tables["saf"]])
    needed = np.count_nonzero(upper >= np.minimum(of_image, of_caption))
    assert needed <= check_same(exported, tables, k).scored["sgr"] <= 1.1 * needed


def at_the_edge(bundle: Bundle, *, prune: bool) -> list[str]:
    """Lists of ties, where members nearly cancel and the second can make up for the first.

    A pair's members are a high and a low logit, or the other way round: the ensemble's is the same,
    some 1e-10, and no bound may say that the latter cannot reach the former.
    """
    rng, found = np.random.default_rng(5), []
    for high in np.geomspace(1e-3, 1, 24, dtype=np.float32):
        low = np.nextafter(-high, np.float32(0))
        swapped = rng.random((10, 10)) < 0.5
        tables = {"sgr": np.where(swapped, high, low), "saf": np.where(swapped, low, high)}
        ranges = {"sgr": (float(low), float(high))}
        parts = found_in_parts(bundle, tables, 2, [0], prune=prune, ranges=ranges)
        found.append(parts[0].digest)
    return found


def test_lists_that_the_margin_decides(exported: Bundle) -> None:
    pruned, whole = (at_the_edge(exported, prune=prune) for prune in (True, False))
    assert pruned == whole


@pytest.mark.usefixtures("no_margin")
def test_lists_without_the_margin_are_wrong(exported: Bundle) -> None:
    pruned, whole = (at_the_edge(exported, prune=prune) for prune in (True, False))
    assert pruned != whole


def engine_of(scorer: Scorer) -> TableEngine:
    engine = scorer._context.engine
    assert isinstance(engine, TableEngine)
    return engine


def second_runs(bundle: Bundle, tables: Tables, k: int, workers: int = 1) -> list[tuple[str, int]]:
    """The runs of the costly member on tiles of 3 images x 4 captions: graph, and pairs."""
    scorer, images, captions = table_scorer(bundle, tables)
    engine = engine_of(scorer)
    engine.workers = workers
    scorer.top_k_tiles(images, captions, k)
    return [(graph, pairs) for member, graph, pairs in engine.runs if member == "sgr"]


def test_the_work_does_not_depend_on_threads(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best_tiles, "ROUND", 2000)
    tables = trained_like()
    alone, shared = (second_runs(exported, tables, 3, workers) for workers in (1, 2))
    assert sorted(alone) == sorted(shared)
    assert {graph for graph, _ in alone} == {"scorer", "pair_scorer"}
    assert all(pairs < 7 / 8 * 12 for graph, pairs in alone if graph == "pair_scorer")


def test_native_does_the_same_on_any_number_of_threads(spread: Bundle) -> None:
    found = []
    for threads in 1, 2:
        with load(spread, engine="native", threads=threads, tile=TileShape(3, 4)) as scorer:
            found.append(scorer.top_k_tiles(*tied_inputs(), 2))
    with load(spread, engine="native", tile=TileShape(3, 4), prune=False) as scorer:
        whole = scorer.top_k_tiles(*tied_inputs(), 2)
    assert found[0].digest == found[1].digest == whole.digest
    assert found[0].scored == found[1].scored
    assert found[0].scored["sgr"] < found[0].scored["saf"] == whole.scored["sgr"]


@pytest.mark.parametrize(
    ("tables", "k"),
    [(near_ties(), 1), (trained_like(), 10), (trained_like(), 39), (trained_like(), 1000)],
)
def test_where_nothing_is_gained_no_pair_is_scored_twice(
    exported: Bundle, tables: Tables, k: int
) -> None:
    runs = second_runs(exported, tables, k)
    assert {graph for graph, _ in runs} == {"scorer"}
    assert sum(pairs for _, pairs in runs) == tables["saf"].size
    assert check_same(exported, tables, k).scored["sgr"] == tables["saf"].size


def test_only_what_is_needed_is_held(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best_tiles, "ROUND", 300)
    scorer, images, captions = table_scorer(exported, trained_like(10))
    tiling = scorer.tiling(images, captions)
    for numbers in np.arange(len(tiling)), np.arange(0, len(tiling), 3), np.array([2]):
        rounds = list(best_tiles._rounds(Share(tiling, numbers)))
        assert np.concatenate([each.numbers for each, _ in rounds]).tolist() == numbers.tolist()
        for share, box in rounds:
            assert len(share.numbers) == 1 or box.units <= 300
            for tile in share:
                assert box.first_image <= tile.first_image < tile.end_image <= box.end_image
                assert box.first_caption <= tile.first_caption < tile.end_caption <= box.end_caption


def test_progress_goes_on_to_the_last_pair(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(best_tiles, "ROUND", 1000)
    scorer, images, captions = table_scorer(exported, confident())
    told: list[tuple[int, int]] = []
    scorer.top_k_tiles(images, captions, 3, progress=lambda *done: told.append(done))
    assert {total for _, total in told} == {40 * 200}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (40 * 200, 40 * 200)


def test_tiles_that_do_not_fit_are_halved(exported: Bundle) -> None:
    tables = confident(12)
    scorer, images, captions = table_scorer(exported, tables)
    expected = scorer.top_k_tiles(images, captions, 3)
    for memory in 1, 5:
        small, one, other = table_scorer(exported, tables)
        engine_of(small).memory = memory
        assert small.top_k_tiles(one, other, 3).digest == expected.digest
        assert max(pairs for *_, pairs in engine_of(small).runs) <= memory


def test_a_worker_that_has_some_images(exported: Bundle) -> None:
    tables = confident()
    scorer, images, captions = table_scorer(exported, tables)
    tiling = scorer.tiling(images, captions)
    numbers = [row for row, tile in enumerate(tiling) if tile.first_image >= 20]
    first = min(tiling[row].first_image for row in numbers)
    assert first > 0
    found = [
        scorer.top_k_tiles(images[first:], captions, 2, numbers, tiling=tiling, first_image=first),
        scorer.top_k_tiles(images, captions, 2, numbers, tiling=tiling),
    ]
    assert found[0].digest == found[1].digest
    assert found[0].scored == found[1].scored


@pytest.mark.parametrize("member", ["sgr", "saf"])
@pytest.mark.parametrize("side", ["image", "caption"])
def test_a_damaged_row_is_found_wherever_it_would_rank(
    exported: Bundle, member: str, side: str
) -> None:
    """All members score the best of its own list, whatever the first one says of it."""
    tables = confident()
    place = (5, slice(None)) if side == "image" else (slice(None), 9)
    tables["saf"][place] -= 30
    tables[member][place] = np.nan
    with refused(DataError, "5" if side == "image" else "9"):
        found_in_parts(exported, tables, 1, [0], prune=True)


def test_a_first_logit_that_is_no_number_is_found(exported: Bundle) -> None:
    tables = confident()
    tables["saf"][5, 27] = np.nan
    with refused(DataError, "5", "27"):
        found_in_parts(exported, tables, 1, [0], prune=True)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_logits_rank_as_ever(exported: Bundle, value: float) -> None:
    tables = confident()
    tables["saf"][3, :40], tables["sgr"][4:9, ::3] = value, value
    check_same(exported, tables, 4)


@pytest.mark.parametrize("k", [1, 3, 7])
def test_on_every_engine(two: list[Scorer], k: int) -> None:
    one, other = (scorer.top_k_tiles(*tied_inputs(), k) for scorer in two)
    assert one.digest == other.digest
    assert set(other.scored.values()) == {7 * 35}
    assert max(one.scored.values()) == 7 * 35
