"""TensorRT for RTX under engine `trt`: when it compiles kernels, and what is kept of them."""

from __future__ import annotations

import hashlib
import logging
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from support.fake_cuda import FakeCuda
from support.fake_tensorrt import USER_MANAGED
from support.fake_tensorrt_rtx import RTX_CAPABILITIES
from support.refusals import holds, naming, refused
from support.small_models import random_captions, random_regions
from support.trt_world import SIZES, RtxWorld, TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.base import Specialisation
from sgraf_deploy.engines.state import state_folder
from sgraf_deploy.errors import DeviceError, InputError
from sgraf_deploy.runtime import EngineOptions, load

OPENED = 6
"""Graphs that the query needs: two members' encoders and scorers."""


@pytest.fixture
def world(exported: Bundle, tmp_path: Path) -> RtxWorld:
    made = RtxWorld(exported, tmp_path / "engines")
    made.build()
    return made


def again(world: RtxWorld, compute_capability: str = "8.9") -> RtxWorld:
    """Another process, which finds the same plans."""
    made = RtxWorld(world.bundle, world.folder, FakeCuda(compute_capability))
    made.build()
    return made


def use(world: RtxWorld, times: int = 3, **options: Any) -> Any:
    """The similarities of a query that comes again, until a graph is launched."""
    config = world.bundle.manifest.members["sgr"].config
    regions = random_regions(config, SIZES.candidates)
    (caption,) = random_captions(config, (9,))
    with world.scorer(**options) as scorer:
        images = scorer.encode_images(regions)
        first = scorer.rerank(caption, images).similarities
        for _ in range(times - 1):
            np.testing.assert_array_equal(scorer.rerank(caption, images).similarities, first)
            if world.cuda.calls["launch"]:
                break
    return first


def kept() -> list[Path]:
    """The files of kernels in the user's state."""
    state = state_folder()
    assert state is not None
    return sorted((state / "kernels").glob("*"))


def warnings_of(caplog: Any) -> list[str]:
    return [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]


@pytest.mark.parametrize("how", get_args(Specialisation))
def test_contexts_are_made_as_the_options_say(world: RtxWorld, how: Specialisation) -> None:
    use(world, specialisation=how)
    assert world.rtx.configs
    for config in world.rtx.configs:
        assert config.allocation == USER_MANAGED
        assert config.dynamic_shapes_kernel_specialization_strategy == how.upper()
        assert config.cuda_graph_strategy == "DISABLED"
        assert config.cache is not None


@pytest.mark.parametrize("how", get_args(Specialisation))
def test_kernels_that_change_in_the_background_are_not_captured(
    world: RtxWorld, how: Specialisation
) -> None:
    use(world, times=10 if how == "lazy" else 50, specialisation=how)
    assert (world.cuda.calls["launch"] > 0) == (how != "lazy")


def test_what_tensorrt_says_is_not_capturable_is_run(world: RtxWorld, caplog: Any) -> None:
    world.rtx.capturable = False
    use(world, times=50, specialisation="none")
    assert world.cuda.calls["launch"] == 0
    assert world.tensorrt.runs["captured"] == 0
    names = [re.findall("[a-z]+-fp16-[a-z_]+", warning) for warning in warnings_of(caplog)]
    assert names
    assert all(len(named) == 1 for named in names)
    assert len({name for (name,) in names}) == len(names)


def test_kernels_are_compiled_once_and_kept_in_the_users_state(world: RtxWorld) -> None:
    before = {path for path in world.folder.rglob("*") if path.is_file()}
    expected = use(world)
    assert world.rtx.compiled > 0
    assert len(kept()) == OPENED
    assert {path for path in world.folder.rglob("*") if path.is_file()} == before
    second = again(world)
    stamps = [path.stat().st_mtime_ns for path in kept()]
    np.testing.assert_array_equal(use(second), expected)
    assert second.rtx.compiled == 0
    assert [path.stat().st_mtime_ns for path in kept()] == stamps


def test_another_gpu_has_kernels_of_its_own(world: RtxWorld) -> None:
    use(world)
    files = kept()
    other = again(world, "8.6")
    use(other)
    assert other.rtx.compiled == world.rtx.compiled
    assert len(kept()) == 2 * len(files)


@pytest.mark.parametrize("damage", ["torn", "changed", "empty", "foreign", "a-folder"])
def test_kernels_that_cannot_be_used_are_compiled_again(
    world: RtxWorld, caplog: Any, damage: str
) -> None:
    expected = use(world)
    compiled = world.rtx.compiled
    second = again(world)
    for path in kept():
        content = path.read_bytes()
        path.unlink()
        if damage == "a-folder":
            path.mkdir()
        else:
            path.write_bytes(damaged(content, damage))
    caplog.clear()
    np.testing.assert_array_equal(use(second), expected)
    assert second.rtx.compiled == compiled
    warnings = warnings_of(caplog)  # One of each: that it is damaged, or cannot be written.
    assert len(warnings) == OPENED
    assert all(sum(holds(one, path) for one in warnings) == 1 for path in kept())
    if damage != "a-folder":  # Which nothing is written over.
        third = again(world)
        use(third)
        assert third.rtx.compiled == 0


def damaged(content: bytes, damage: str) -> bytes:
    foreign = content[32:].replace(b"8.9", b"8.0")
    return {
        "torn": content[:-1],
        "changed": content[:40] + bytes([content[40] ^ 1]) + content[41:],
        "empty": b"",
        "foreign": hashlib.sha256(foreign).digest() + foreign,
    }[damage]


def test_a_state_that_cannot_be_written_is_no_reason_not_to_score(
    world: RtxWorld, caplog: Any
) -> None:
    state = state_folder()
    assert state is not None
    (state / "kernels").write_bytes(b"")
    use(world)
    assert len([one for one in warnings_of(caplog) if "SGRAF_DEPLOY_STATE" in one]) == OPENED


def test_where_nothing_can_be_kept_nothing_is(world: RtxWorld, caplog: Any) -> None:
    world.rtx.serializes = False
    use(world)
    assert kept() == []
    assert warnings_of(caplog) == []


def test_tensorrt_itself_specialises_nothing_and_says_so(
    exported: Bundle, tmp_path: Path, caplog: Any
) -> None:
    world = TrtWorld(exported, tmp_path / "engines")
    world.engine(specialisation="eager").close()
    assert len(warnings_of(caplog)) == 1
    world.engine().close()
    assert len(warnings_of(caplog)) == 1


def test_a_plan_that_this_gpu_does_not_take_is_an_error_with_its_reason(world: RtxWorld) -> None:
    """Whatever a sidecar says of it."""
    here = world.cuda.compute_capability
    world.capabilities = tuple(one for one in RTX_CAPABILITIES if one != here)
    world.build()
    engine = world.engine()
    with refused(DeviceError, got="the plan does not target this GPU", hint=naming()):
        engine.open("sgr", "scorer")
    engine.close()


@pytest.mark.parametrize(
    ("options", "what"),
    [({"specialisation": "EAGER"}, "specialisation"), ({"cuda_graphs": 1}, "cuda_graphs")],
)
def test_other_values_of_options_are_refused(world: RtxWorld, options: Any, what: str) -> None:
    with refused(InputError, f"options.{what}", expected=naming(), got=naming()):
        load(world.bundle, "trt", options=EngineOptions(**options))
