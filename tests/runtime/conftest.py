"""What several test files of the runtime begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.parts import TILE, tied_inputs
from support.trt_world import TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines import bounds
from sgraf_deploy.runtime import RankThresholds, Scorer, TileShape, load


@pytest.fixture
def native(exported: Bundle) -> Iterator[Scorer]:
    """A scorer that cuts what `encoded` has into several tiles."""
    with load(exported, engine="native", tile=TILE) as made:
        yield made


@pytest.fixture
def encoded(native: Scorer) -> tuple[Any, Any]:
    """Images and captions, of which some tie."""
    regions, captions = tied_inputs()
    return native.encode_images(regions), native.encode_captions(captions)


@pytest.fixture
def thresholds(native: Scorer, encoded: tuple[Any, Any]) -> RankThresholds:
    """Those of `encoded`."""
    return native.rank_thresholds(*encoded)


@pytest.fixture
def no_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds without the margin that covers rounding."""
    monkeypatch.setattr(bounds, "RELATIVE", 0.0)
    monkeypatch.setattr(bounds, "ABSOLUTE", 0.0)


@pytest.fixture(params=["native", "ort", "torch", "trt"])
def two(request: pytest.FixtureRequest, exported: Bundle, tmp_path: Path) -> Iterator[list[Scorer]]:
    """A scorer that prunes where its engine can, and one that does not."""
    if request.param == "trt":
        world = TrtWorld(exported, tmp_path / "engines")
        world.build("fp32")
        with world.scorer("fp32") as one, world.scorer("fp32") as other:
            yield [one, other]
        return
    tile = TileShape(3, 4)
    with (
        load(exported, engine=request.param, tile=tile) as one,
        load(exported, engine=request.param, tile=tile, prune=False) as other,
    ):
        yield [one, other]
