"""The simulation of fan-out and hedging: its table is the page's, and its numbers make sense."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.fan_out import CANDIDATES, simulate, table
from sgraf_deploy.distributed.shards import shard_of

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def test_the_table_is_the_pages() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert "\n".join(table()) in page


def test_the_same_seed_gives_the_same_and_another_gives_nearly_the_same() -> None:
    one, again, other = simulate(10, 20_000), simulate(10, 20_000), simulate(10, 20_000, seed=1)
    assert one == again
    assert one != other
    assert abs(one.p99 - other.p99) < 0.1 * one.p99
    assert one.p50 < one.hedged_p99 < one.p99


def test_candidates_touch_as_many_shards_as_is_said() -> None:
    touched = [
        len({shard_of(f"{trial}-{row}.jpg", 24) for row in range(CANDIDATES)})
        for trial in range(200)
    ]
    assert abs(np.mean(touched) - simulate(24, 1).touched) < 0.1
