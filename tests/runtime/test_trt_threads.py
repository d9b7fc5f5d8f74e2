"""The TensorRT engine while one thread opens plans and another asks about those that are open."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from runtime.trt_world import TrtWorld

from sgraf_deploy.bundle import Bundle
from sgraf_deploy.runtime.engines.trt import TrtEngine


class Slow:
    """A sidecar; while it is looked at, another thread opens a plan."""

    def __init__(self, engine: TrtEngine) -> None:
        self._engine = engine

    @property
    def verified(self) -> bool:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self._engine.open, "saf", "pair_scorer").result(timeout=60)
        return True


def ask(engine: TrtEngine) -> bool:
    return engine.unverified


@pytest.mark.parametrize("look", [ask, TrtEngine.mark_verified], ids=["asked", "marked"])
def test_plans_may_be_opened_while_the_others_are_looked_at(
    look: Callable[[TrtEngine], object], exported: Bundle, tmp_path: Path
) -> None:
    world = TrtWorld(exported, tmp_path / "engines")
    world.build()
    engine: Any = world.engine()
    engine.open("sgr", "scorer")
    engine._sidecars["sgr", "slow"] = Slow(engine)

    assert not look(engine)

    assert ("saf", "pair_scorer") in engine._sidecars
    engine.close()
