"""Whose word counts for a plan: this user's own, on this kind of GPU, and nothing in a folder."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.refusals import naming, refused
from support.sidecars import schema_1
from support.trt_world import TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.state import is_verified, mark_verified
from sgraf_deploy.engines.trt.plans import read_sidecar
from sgraf_deploy.errors import BundleError, DeviceError, GateError
from sgraf_deploy.runtime import EngineOptions, Scorer, load


@pytest.fixture
def world(exported: Bundle, tmp_path: Path) -> TrtWorld:
    return TrtWorld(exported, tmp_path / "engines")


def shift_the_weights(onnx_bytes: bytes) -> bytes:
    model = onnx.load_from_string(onnx_bytes)
    for tensor in model.graph.initializer:
        if tensor.name.startswith("similarity") and tensor.name.endswith("weight"):
            values = onnx.numpy_helper.to_array(tensor)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(1.5), tensor.name))
    return bytes(model.SerializeToString())


def opened(world: TrtWorld, monkeypatch: pytest.MonkeyPatch, *, allow: bool) -> Scorer:
    """`load`, which finds the fake GPU."""
    world.install(monkeypatch)
    options = EngineOptions(engine_dir=world.folder, allow_unverified=allow)
    return load(world.bundle, "trt", options=options)


def test_an_unverified_engine_is_refused_or_verified_on_first_use(
    world: TrtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build(verified=False)
    with refused(BundleError, hint="--allow-unverified"):
        opened(world, monkeypatch, allow=False)
    assert world.tensorrt.opened == 0
    opened(world, monkeypatch, allow=True).close()
    assert is_verified(world.mark(read_sidecar(world.plans, "saf", "fp16", "scorer")))
    opened(world, monkeypatch, allow=False).close()


def test_an_engine_of_other_values_is_never_used(
    world: TrtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build(verified=False)
    wrong = world.build_one("saf", "scorer", "fp16", damage=shift_the_weights)
    with refused(GateError, "saf", "fp16", "trt", "cuda:0", "logits", got=naming()):
        opened(world, monkeypatch, allow=True)
    assert not is_verified(world.mark(wrong))
    gc.collect()
    assert world.cuda.blocks == {}


def test_a_state_that_cannot_be_written_is_no_reason_not_to_score(
    world: TrtWorld, monkeypatch: pytest.MonkeyPatch, caplog: Any, tmp_path: Path
) -> None:
    world.build(verified=False)
    (tmp_path / "file").touch()
    monkeypatch.setenv("SGRAF_DEPLOY_STATE", str(tmp_path / "file" / "state"))
    with opened(world, monkeypatch, allow=True) as scorer:
        assert not scorer._context.engine.unverified
    (record,) = caplog.records
    assert "SGRAF_DEPLOY_STATE" in record.getMessage()
    assert "--allow-unverified" in record.getMessage()
    with refused(BundleError, hint="--allow-unverified"):
        opened(world, monkeypatch, allow=False)


def test_a_bundle_cannot_bring_the_claim_that_its_engines_were_verified(
    world: TrtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.build(verified=False)
    for path in world.plans.glob("*.json"):
        path.write_text(json.dumps(schema_1(json.loads(path.read_text("utf-8")))), "utf-8")
    with refused(BundleError, hint="--allow-unverified"):
        opened(world, monkeypatch, allow=False)
    assert world.tensorrt.opened == 0
    opened(world, monkeypatch, allow=True).close()
    opened(world, monkeypatch, allow=False).close()


@pytest.mark.parametrize(
    "field", ["plan_sha256", "onnx_sha256", "reference_sha256", "device", "compute_capability"]
)
def test_a_mark_of_something_else_does_not_count(world: TrtWorld, field: str) -> None:
    world.build(verified=False)
    for path in world.plans.glob("*.json"):
        _, precision, graph = path.stem.split("-")
        mark = world.mark(read_sidecar(world.plans, "sgr", precision, graph))
        mark_verified(replace(mark, **{field: "another"}))
    engine = world.engine()
    with refused(BundleError, hint="--allow-unverified"):
        engine.open("sgr", "scorer")
    assert world.tensorrt.opened == 0
    engine.close()


@pytest.mark.parametrize(
    "profiles",
    [(), ({},), ({"other": ((1,), (1,), (1,))},), ({"regions": ((1,), (1,), (1,))},)],
    ids=["none", "of-nothing", "of-another-input", "of-other-axes"],
)
def test_profiles_that_are_not_the_graphs_are_refused(
    world: TrtWorld, profiles: tuple[Any, ...]
) -> None:
    sidecar = world.build_one("sgr", "image_encoder", "fp16", profiles=profiles)
    engine = world.engine(allow_unverified=True)
    # Without any profile a plan is none of TensorRT's; otherwise its sidecar is wrong.
    kind = BundleError if profiles else DeviceError
    with refused(kind, sidecar.plan, expected=naming("regions"), got=naming()):
        engine.open("sgr", "image_encoder")
    engine.close()
