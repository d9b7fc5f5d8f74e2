"""Engines are published together, once they gave the reference's values on the GPU that is here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.refusals import holds, refused
from support.trt_world import SIZES, TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.compile import publish as engines
from sgraf_deploy.compile.build import Build, CompileOptions, list_builds
from sgraf_deploy.compile.publish import Published, publish_plans
from sgraf_deploy.engines.state import is_verified, state_folder
from sgraf_deploy.engines.trt.plans import Sidecar, plan_folder
from sgraf_deploy.errors import BundleError, GateError
from sgraf_deploy.runtime import EngineOptions, Scorer, load


class GpuWorld(TrtWorld):
    """A machine with the fake GPU, on which `compile` runs; `measures` as TensorRT does."""

    measures = b""

    def compile(self, check: Any = None) -> Published:
        options = CompileOptions(sizes=SIZES, engine_dir=self.folder)
        builds = list_builds(self.bundle, options)
        return publish_plans(self.bundle, builds, self.tensorrt.adaptor(), options, check=check)

    def compile_graph(self, build: Build, *arguments: Any) -> tuple[Sidecar, bytes]:
        """In place of a builder, which the fake TensorRT lacks."""
        _, options, timing, _ = arguments
        timing.write_bytes((timing.read_bytes() if timing.is_file() else b"") + b"+")
        self.measures = timing.read_bytes()
        return self.made(build.member, build.graph, options.precision)


@pytest.fixture
def world(exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GpuWorld:
    made = GpuWorld(exported, tmp_path / "engines")
    made.install(monkeypatch)
    monkeypatch.setattr(engines, "target", lambda tensorrt: "9.0")
    monkeypatch.setattr(engines, "compile_graph", made.compile_graph)
    return made


def test_what_was_compared_here_is_used_here(world: GpuWorld) -> None:
    published = world.compile()
    assert published.unverified is None
    assert len(published.sidecars) == 8
    assert all(is_verified(world.mark(sidecar)) for sidecar in published.sidecars)
    options = EngineOptions(engine_dir=world.folder)
    for engine, device in (("trt", None), ("auto", "cuda"), ("auto", None)):
        with load(world.bundle, engine, device=device, options=options) as scorer:
            found = scorer.engine_name, scorer.precision, scorer.device
            assert found == ("trt", "fp16", "cuda:0")


def test_another_user_or_machine_compares_again(
    world: GpuWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    world.compile()
    monkeypatch.setenv("SGRAF_DEPLOY_STATE", str(tmp_path / "another"))
    before = world.tensorrt.opened
    with refused(BundleError, hint="--allow-unverified"):
        load(world.bundle, "trt", options=EngineOptions(engine_dir=world.folder))
    with load(world.bundle, options=EngineOptions(engine_dir=world.folder)) as scorer:
        assert scorer.device == "cpu"
    assert world.tensorrt.opened == before


def test_a_check_that_fails_publishes_nothing(world: GpuWorld) -> None:
    def refuse(_: Scorer) -> None:
        raise GateError("R@1")

    with pytest.raises(GateError):
        world.compile(refuse)
    assert not world.folder.exists()


def test_what_tensorrt_measured_is_kept_with_the_user(world: GpuWorld) -> None:
    folder = plan_folder(world.bundle, world.folder)
    folder.mkdir(parents=True)
    (folder / "timing.cache").write_bytes(b"a stranger's")
    world.compile()
    assert world.measures == b"+" * 8
    world.compile()
    assert world.measures == b"+" * 16
    state = state_folder()
    assert state is not None
    (kept,) = (state / "timing").iterdir()
    assert kept.read_bytes() == b"+" * 16
    assert kept.name == "tensorrt-11.4.0-9.0.cache"


def test_a_state_that_cannot_be_written_stops_no_build(
    world: GpuWorld, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: Any
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SGRAF_DEPLOY_STATE", str(tmp_path / "file"))
    assert len(world.compile().sidecars) == 8
    assert holds(caplog.text, "SGRAF_DEPLOY_STATE")
