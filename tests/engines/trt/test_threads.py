"""The TensorRT engine while one thread opens plans and another marks those that are open."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.trt_world import TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.state import Mark
from sgraf_deploy.engines.trt import engine as trt


def test_plans_may_be_opened_while_the_others_are_marked(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plan that is opened meanwhile was not compared: it must not pass for verified."""
    world = TrtWorld(exported, tmp_path / "engines")
    world.build(verified=False)
    engine = world.engine(allow_unverified=True)
    for graph in ("scorer", "pair_scorer"):
        engine.open("sgr", graph)
    marked: list[Mark] = []

    def keep(mark: Mark) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(engine.open, "saf", "scorer").result(timeout=60)
        marked.append(mark)

    monkeypatch.setattr(trt, "mark_verified", keep)
    assert engine.unverified

    engine.mark_verified()

    assert len(marked) == 2
    assert engine.unverified
    engine.close()
