"""How many pairs of a part's tiles each member has scored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.parts import TILE, tied_inputs
from support.refusals import naming, refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import PartialRanks, RankThresholds, Scorer, load


@pytest.fixture
def native(exported: Bundle) -> Iterator[Scorer]:
    with load(exported, engine="native", tile=TILE) as scorer:
        yield scorer


@pytest.fixture
def encoded(native: Scorer) -> tuple[Any, Any]:
    regions, captions = tied_inputs()
    return native.encode_images(regions), native.encode_captions(captions)


@pytest.fixture
def thresholds(native: Scorer, encoded: tuple[Any, Any]) -> RankThresholds:
    return native.rank_thresholds(*encoded)


def test_pairs_are_counted_part_by_part(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    """Apart from all others that the scorer scores, and added up where parts are."""
    tiling = native.tiling(*encoded)
    before = native.scored_pairs()
    parts = [native.count_tiles(*encoded, thresholds, tiles) for tiles in tiling.split(4)]
    sizes = [sum(tile.units for tile in tiling.select(part.tiles.tolist())) for part in parts]
    assert [part.scored for part in parts] == [dict.fromkeys(native.members, n) for n in sizes]
    every = PartialRanks.merge(parts[::-1]).scored
    assert every == dict.fromkeys(native.members, tiling.pairs)
    after = native.scored_pairs()
    assert {member: pairs - before[member] for member, pairs in after.items()} == every


def test_parts_by_other_members_are_refused(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    ours, theirs = (native.count_tiles(*encoded, thresholds, [tile]) for tile in (0, 1))
    theirs = replace(theirs, scored={"sgr": 1, "saf-2": 1})
    with refused(InputError, "members", expected=naming("saf"), got=naming("saf-2")):
        PartialRanks.merge([ours, theirs])
