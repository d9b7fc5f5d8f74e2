"""How many pairs of a part's tiles each member has scored."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from support.refusals import naming, refused

from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import PartialRanks, RankThresholds, Scorer


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
