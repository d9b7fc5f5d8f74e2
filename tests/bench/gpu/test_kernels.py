"""The comparison of a device's kernels with NumPy, on a GPU in host memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.fake_cuda import FakeCuda, FakeStream

from sgraf_deploy.bench.gpu.kernels import SHAPES, compare
from sgraf_deploy.engines.cuda.api import Gather, RankTile


def test_right_kernels_are_right() -> None:
    found = compare(FakeCuda())
    assert found["failed"] == []
    assert found["cases"] == {"gather": 2 * len(SHAPES), "count_ranks": 1 + 3 + 4}


def test_rows_that_are_gathered_wrongly_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last row is left out, as by a loop that ends too early."""
    gather = FakeCuda.gather

    def short(self: FakeCuda, job: Gather, stream: FakeStream) -> None:
        gather(self, replace(job, rows=job.rows - 1), stream)

    monkeypatch.setattr(FakeCuda, "gather", short)
    failed = compare(FakeCuda())["failed"]
    assert len(failed) == 2 * len(SHAPES)
    assert all(name.startswith("gather ") for name in failed)


def test_ranks_that_are_counted_wrongly_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each tile's images are those of the tile before, as by an offset that is off by one."""
    count = FakeCuda.count_ranks

    def shifted(self: FakeCuda, tile: RankTile, stream: FakeStream) -> None:
        count(self, replace(tile, first_image=max(0, tile.first_image - 1)), stream)

    monkeypatch.setattr(FakeCuda, "count_ranks", shifted)
    failed = compare(FakeCuda())["failed"]
    assert len(failed) == 1 + 3 + 4
    assert all(name.startswith("count_ranks ") for name in failed)
