"""The facts that the policy is given, found out on a machine with a fake GPU."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.refusals import refused
from support.trt_world import TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import PRECISIONS
from sgraf_deploy.engines.machine import Machine
from sgraf_deploy.engines.state import mark_verified
from sgraf_deploy.errors import BundleError, UnavailableError
from sgraf_deploy.runtime import EngineOptions, load


@pytest.fixture
def world(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrtWorld:
    made = TrtWorld(exported, tmp_path / "engines")
    made.install(monkeypatch)
    return made


def plans(world: TrtWorld, device: str = "cuda:0") -> Any:
    return Machine(world.bundle, EngineOptions(engine_dir=world.folder)).plans(device)


def test_without_plans_neither_driver_nor_tensorrt_is_touched(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: Any) -> None:
        pytest.fail("somebody asked")

    monkeypatch.setattr("sgraf_deploy.engines.gpu.find_driver", touched)
    monkeypatch.setattr("sgraf_deploy.engines.trt.library.find_tensorrt", touched)
    assert Machine(exported, EngineOptions(engine_dir=tmp_path)).plans("cuda:0") == {}
    assert Machine().plans("cuda:0") == {}
    with load(exported) as scorer:
        assert scorer.device == "cpu"


def test_plans_of_every_graph_count_and_whether_they_were_verified(world: TrtWorld) -> None:
    world.build("fp16", verified=False)
    assert plans(world) == {"fp16": False}
    world.build("fp32")
    assert plans(world) == {"fp16": False, "fp32": True}
    assert plans(world, "cuda:1") == {}, "there is one GPU"


def test_one_plan_that_was_not_verified_is_enough(world: TrtWorld) -> None:
    world.build("fp16")
    world.build_one("sgr", "scorer", "fp16", version="11.4.0", workspace_bytes=1)
    assert plans(world) == {"fp16": True}, "the plan is the same"
    changed = world.build_one("sgr", "scorer", "fp16", plan_sha256="ab" * 32)
    assert plans(world) == {"fp16": False}
    mark_verified(world.mark(changed))
    assert plans(world) == {"fp16": True}


@pytest.mark.parametrize(
    "changes",
    [{"version": "10.0"}, {"flavour": "tensorrt-rtx"}, {"compute_capabilities": ("8.6",)},
     {"onnx_sha256": "ab" * 32}],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_plans_for_something_else_do_not_count(world: TrtWorld, changes: Any) -> None:
    world.build("fp16")
    world.build_one("sgr", "scorer", "fp16", **changes)
    assert plans(world) == {}


def test_a_plan_for_several_kinds_of_gpu_counts(world: TrtWorld) -> None:
    world.build("fp16", compute_capabilities=("8.6", "9.0"))
    assert plans(world) == {"fp16": True}


@pytest.mark.parametrize("damage", ["missing", "noise"])
def test_a_set_with_a_hole_does_not_count(world: TrtWorld, damage: str) -> None:
    world.build("fp16")
    sidecar = world.plans / "saf-fp16-text_encoder.json"
    if damage == "missing":
        sidecar.unlink()
    else:
        sidecar.write_bytes(b"{")
    assert plans(world) == {}
    options = EngineOptions(engine_dir=world.folder)
    with load(world.bundle, options=options) as scorer:
        assert scorer.device == "cpu"
    with refused(BundleError, sidecar, hint="sgraf-deploy compile BUNDLE"):
        load(world.bundle, "trt", options=options)


@pytest.mark.parametrize("missing", ["gpu.find_gpu", "trt.library.find_tensorrt"])
def test_without_a_gpu_or_tensorrt_no_plan_counts(
    world: TrtWorld, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    world.build("fp16")

    def refuse(*_: Any) -> None:
        raise UnavailableError("none")

    monkeypatch.setattr(f"sgraf_deploy.engines.{missing}", refuse)
    assert plans(world) == {}


def test_load_takes_what_is_compiled_and_verified(world: TrtWorld) -> None:
    world.build("fp32")
    options = EngineOptions(engine_dir=world.folder)
    for engine, device in (("trt", None), ("auto", "cuda:0"), ("auto", None)):
        with load(world.bundle, engine, device=device, options=options) as scorer:
            assert (scorer.engine_name, scorer.precision) == ("trt", "fp32")
    with load(world.bundle, device="cpu", options=options) as scorer:
        assert scorer.device == "cpu"


def test_auto_takes_no_plan_that_was_not_verified(world: TrtWorld) -> None:
    world.build("fp16", verified=False)
    for allow in (False, True):
        options = EngineOptions(engine_dir=world.folder, allow_unverified=allow)
        with load(world.bundle, options=options) as scorer:
            assert scorer.device == "cpu"
    assert world.tensorrt.opened == 0


def test_the_facts_of_a_bundle(exported: Bundle) -> None:
    machine = Machine(exported)
    assert machine.precisions == exported.manifest.precisions
    assert (machine.weights, machine.allow_unverified) == (True, False)
    assert str(exported.path) in machine.name
    members = {
        name: replace(member, reference=None) for name, member in exported.manifest.members.items()
    }
    bare = Bundle(exported.path, replace(exported.manifest, members=members), exported.sha256)
    assert not Machine(bare).weights
    assert Machine(bare, EngineOptions(checkpoints=(Path("a.pth"),))).weights
    assert (Machine().precisions, Machine().weights) == (PRECISIONS, True)
