"""The tile sizes that engines ask for on a GPU."""

from __future__ import annotations

import pytest

from sgraf_deploy.engines.base import CACHED_TILES, gpu_tiles

GIB = 2**30


@pytest.mark.parametrize(
    ("device", "tile", "encoder"),
    [(80 * GIB, 8 * GIB, GIB // 4), (8 * GIB, GIB, GIB // 8)],
    ids=["80GiB", "8GiB"],
)
def test_a_gpu_gets_a_part_of_its_memory_at_a_time(device: int, tile: int, encoder: int) -> None:
    advice = gpu_tiles(device)
    assert (advice.tile_bytes, advice.encoder_bytes) == (tile, encoder)
    assert advice.intermediate_bytes is None


def test_a_cpu_gets_what_its_caches_hold() -> None:
    assert (CACHED_TILES.tile_bytes, CACHED_TILES.encoder_bytes) == (GIB, 16 * 2**20)
