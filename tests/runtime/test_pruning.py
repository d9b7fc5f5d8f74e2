"""Ranks of the ensemble that most members' pairs were left out of: those of all pairs, exactly."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.awkward import awkward, trained_like
from support.parts import check_ranks as check
from support.parts import near_ties, tied_inputs
from support.refusals import naming, refused
from support.table_engine import TableEngine, Tables, table_scorer

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import ensemble_name
from sgraf_deploy.engines.ensemble import ensemble_logits
from sgraf_deploy.engines.near_counts import SLACK
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.runtime import PartialRanks, RankThresholds, Scorer, load


def partial(
    bundle: Bundle, tables: Tables, per_image: int, *, prune: bool, ranges: Any = None
) -> tuple[PartialRanks, RankThresholds, Scorer]:
    """All tiles of tables, counted for the ensemble alone."""
    scorer, images, captions = table_scorer(bundle, tables, prune=prune, ranges=ranges)
    thresholds = scorer.rank_thresholds(images, captions, per_image)
    return (
        scorer.count_tiles(images, captions, thresholds, ensemble_only=True),
        thresholds,
        scorer,
    )


def check_same(
    bundle: Bundle, tables: Tables, per_image: int, ranges: Any = None, slack: float = SLACK
) -> float:
    """Pruned and whole counts are the same, and those of the matrix; the share of pairs saved."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sgraf_deploy.runtime.ranks.SLACK", slack)
        return _check_same(bundle, tables, per_image, ranges)


def _check_same(bundle: Bundle, tables: Tables, per_image: int, ranges: Any) -> float:
    whole, thresholds, full = partial(bundle, tables, per_image, prune=False)
    pruned, _, scorer = partial(bundle, tables, per_image, prune=True, ranges=ranges)
    assert pruned.digest == whole.digest, "of the result alone"
    name = ensemble_name(list(tables))
    assert list(pruned.models) == [name]
    check(pruned.counts(thresholds)[name], ensemble_logits(tables), per_image)
    scored, every = scorer.scored_pairs(), full.scored_pairs()
    assert max(scored.values()) == max(every.values()) == min(every.values())
    truths = tables["saf"].shape[1]
    assert pruned.scored == {member: pairs - truths for member, pairs in scored.items()}
    assert whole.scored == dict.fromkeys(tables, tables["saf"].size)
    return 1 - sum(scored.values()) / sum(every.values())


@settings(max_examples=150)
@given(st.data())
def test_awkward_logits_of_two(exported: Bundle, data: st.DataObject) -> None:
    tables, per_image = data.draw(awkward(("sgr", "saf")))
    check_same(exported, tables, per_image, slack=data.draw(st.sampled_from([SLACK, 0.0])))


@settings(max_examples=100)
@given(st.data())
def test_awkward_logits_of_three_whose_ranges_are_known(three: Bundle, data: st.DataObject) -> None:
    tables, per_image = data.draw(awkward(tuple(three.manifest.members)))
    ranges = {name: (float(each.min()), float(each.max())) for name, each in tables.items()}
    slack = data.draw(st.sampled_from([SLACK, 0.0]))
    check_same(three, tables, per_image, data.draw(st.sampled_from([None, ranges])), slack)


@pytest.fixture
def no_slack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ground truths are compared with nothing around them, as pairs are exact here."""
    monkeypatch.setattr("sgraf_deploy.runtime.ranks.SLACK", 0.0)


def counted_at_the_edge(bundle: Bundle, *, prune: bool) -> list[str]:
    """Counts where members nearly cancel, and the second is known to be what it is.

    The ensemble's logits are some 1e-10, and many of them are the same: the last bits decide.
    """
    rng, found = np.random.default_rng(5), []
    for half in np.geomspace(1e-3, 1, 6, dtype=np.float32):
        other = np.nextafter(-half, np.float32(0))
        first = rng.choice([half, np.nextafter(half, np.float32(0))], (20, 20))
        tables = {"sgr": np.full((20, 20), other), "saf": first.astype(np.float32)}
        ranges = {"sgr": (float(other), float(other))}
        found.append(partial(bundle, tables, 1, prune=prune, ranges=ranges)[0].digest)
    return found


@pytest.mark.usefixtures("no_slack")
def test_ranks_that_the_margin_decides(exported: Bundle) -> None:
    pruned, whole = (counted_at_the_edge(exported, prune=prune) for prune in (True, False))
    assert pruned == whole


@pytest.mark.usefixtures("no_slack", "no_margin")
def test_ranks_without_the_margin_are_wrong(exported: Bundle) -> None:
    pruned, whole = (counted_at_the_edge(exported, prune=prune) for prune in (True, False))
    assert pruned != whole


def test_the_costly_members_are_left_out_of_most_pairs(exported: Bundle, three: Bundle) -> None:
    for bundle, members in (exported, 2), (three, 3):
        assert check_same(bundle, trained_like(members=members), 5) > 0.2
    tables = trained_like(members=3)
    _, _, scorer = partial(three, tables, 5, prune=True)
    scored = scorer.scored_pairs()
    # The second SGR is smaller than the SAF.
    assert scored["sgr-2"] > scored["saf"] > scored["sgr"], "the cheapest first"
    assert scored["sgr-2"] == tables["saf"].size + tables["saf"].shape[1]


def test_a_range_that_is_known_leaves_out_more(exported: Bundle) -> None:
    tables = trained_like()
    ends = float(tables["sgr"].min()), float(tables["sgr"].max())
    assert check_same(exported, tables, 5, {"sgr": ends}) > check_same(exported, tables, 5)


def second_runs(bundle: Bundle, tables: Tables) -> list[tuple[str, int]]:
    """The runs of the costly member on tiles of 3 images x 4 captions: graph, and pairs."""
    scorer, images, captions = table_scorer(bundle, tables)
    thresholds = scorer.rank_thresholds(images, captions)
    engine = scorer._context.engine
    assert isinstance(engine, TableEngine)
    engine.runs.clear()
    scorer.count_tiles(images, captions, thresholds, ensemble_only=True)
    return [(graph, pairs) for member, graph, pairs in engine.runs if member == "sgr"]


def test_a_tile_is_scored_whole_where_most_pairs_are_open(exported: Bundle) -> None:
    """Which follows from how many are open, and from nothing else."""
    assert {graph for graph, _ in second_runs(exported, near_ties())} == {"scorer"}
    runs = second_runs(exported, trained_like())
    assert runs == second_runs(exported, trained_like())
    assert all(pairs < 7 / 8 * 12 for graph, pairs in runs if graph == "pair_scorer")
    assert len({graph for graph, _ in runs}) == 2
    assert len(runs) < 40 * 200 / 12, "some tiles have no open pair"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(("member", "place"), [("saf", (5, 3)), ("sgr", (5, 27)), ("saf", (5, 27))])
def test_what_is_not_finite_is_found(
    exported: Bundle, member: str, place: tuple[int, int], value: float
) -> None:
    """Anywhere in the first member, and in every member where an image meets its caption."""
    tables = trained_like()
    tables[member][place] = value
    with refused(DataError, *map(str, place)):
        partial(exported, tables, 5, prune=True)


def test_members_rows_need_every_pair(exported: Bundle) -> None:
    tables = trained_like()
    scorer, images, captions = table_scorer(exported, tables)
    counts = scorer.count_ranks(images, captions)
    assert list(counts) == ["sgr", "saf", "sgraf"]
    scored = scorer.scored_pairs()
    assert scored["sgr"] == scored["saf"]


def test_similarities_that_are_kept_need_every_pair(exported: Bundle) -> None:
    tables = trained_like()
    scorer, images, captions = table_scorer(exported, tables)
    out = np.zeros(tables["saf"].shape, np.float32)
    counts = scorer.count_ranks(images, captions, ensemble_only=True, out=out)
    assert list(counts) == ["sgraf"]
    check(counts["sgraf"], ensemble_logits(tables))
    np.testing.assert_array_equal(out, scorer.score(images, captions))


def test_parts_that_several_count_add_up(exported: Bundle) -> None:
    tables = near_ties()
    scorer, images, captions = table_scorer(exported, tables)
    thresholds, tiling = scorer.rank_thresholds(images, captions), scorer.tiling(images, captions)
    parts = [
        scorer.count_tiles(images, captions, thresholds, tiles, ensemble_only=True)
        for tiles in tiling.split(4)
    ]
    whole, _, _ = partial(exported, tables, 5, prune=False)
    merged = PartialRanks.merge(parts[::-1])
    assert merged.digest == whole.digest
    pruned, _, _ = partial(exported, tables, 5, prune=True)
    assert merged.scored == pruned.scored
    members = scorer.count_tiles(images, captions, thresholds, range(1))
    with refused(InputError, "models"):
        PartialRanks.merge([members, parts[1]])


def test_on_every_engine(two: list[Scorer]) -> None:
    found = [scorer.count_ranks(*tied_inputs(), ensemble_only=True) for scorer in two]
    every = two[0].count_ranks(*tied_inputs())
    assert [list(counts) for counts in found] == [["sgraf"], ["sgraf"]]
    for counts in (*found[1:], every):
        for field, array in vars(counts["sgraf"]).items():
            np.testing.assert_array_equal(getattr(found[0]["sgraf"], field), array)


@pytest.mark.parametrize("prune", [0, 1, "no", None])
def test_what_is_no_choice_is_refused(exported: Bundle, prune: Any) -> None:
    with refused(InputError, "prune", got=naming(repr(prune))):
        load(exported, engine="ort", prune=prune)
