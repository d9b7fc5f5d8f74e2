"""Plans of TensorRT for RTX are for some GPUs; on others everything names the other TensorRT."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.cli_world import done
from support.fake_cuda import FakeCuda
from support.refusals import holds, refused
from support.trt_world import RtxWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.gpu import Driver, Gpu
from sgraf_deploy.engines.registry import unavailable
from sgraf_deploy.engines.trt.library import TensorRT, find_tensorrt
from sgraf_deploy.engines.trt.rtx import (
    CAPABILITIES,
    INSTEAD,
    RTX,
    check_gpu,
    left_out,
    plan_capabilities,
)
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.runtime import EngineOptions, load

UNSUPPORTED = ("7.5", "9.0", "10.0")
INSTALLED = TensorRT(RTX, "1.7.1.116", None)


def plan(mask: int, magic: bytes = b"vtrt") -> bytes:
    return magic + bytes(28) + mask.to_bytes(4, "little") + bytes(28) + b"the rest"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (plan(0x7E), CAPABILITIES),
        (plan(0x02), ("8.0",)),
        (plan(0x18), ("8.9", "12.0")),
        (plan(0x01), ("7.5",)),
        (plan(0x40), CAPABILITIES),
        (plan(0x00), CAPABILITIES),
        (plan(0x02, b"ptrt"), CAPABILITIES),
        (b"vtrt", CAPABILITIES),
        (b"", CAPABILITIES),
    ],
    ids=["default", "one", "two", "turing", "no-name", "none", "other-header", "short", "empty"],
)
def test_a_plan_says_what_it_is_for(content: bytes, found: tuple[str, ...]) -> None:
    assert plan_capabilities(content) == found


def test_the_builder_writes_it_so() -> None:
    """Each kind of GPU alone, and what is built where none is named."""
    try:
        tensorrt = find_tensorrt()
    except UnavailableError as error:
        pytest.skip(f"needs a TensorRT that builds: {error}")
    if tensorrt.flavour != RTX:
        pytest.skip(f"{tensorrt} builds for the GPU that is here")
    kinds = tensorrt.module.ComputeCapability.__members__
    for name, kind in kinds.items():
        if name.startswith("SM"):
            assert plan_capabilities(tiny_plan(tensorrt, kind)) == (f"{name[2:-1]}.{name[-1]}",)
    assert plan_capabilities(tiny_plan(tensorrt, None)) == CAPABILITIES


def tiny_plan(tensorrt: TensorRT, kind: Any) -> bytes:
    """A plan of nothing, for one kind of GPU or for those that TensorRT chooses."""
    trt = tensorrt.module
    builder = trt.Builder(tensorrt.logger())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    copy = network.add_identity(network.add_input("a", trt.float16, (4, 4)))
    network.mark_output(copy.get_output(0))
    config = builder.create_builder_config()
    if kind is not None:
        config.num_compute_capabilities = 1
        config.set_compute_capability(kind, 0)
    return bytes(builder.build_serialized_network(network, config))


@pytest.mark.parametrize("compute_capability", [*CAPABILITIES, *UNSUPPORTED])
def test_a_gpu_without_plans_is_refused(compute_capability: str) -> None:
    check_gpu(replace(INSTALLED, flavour="tensorrt"), compute_capability)
    if compute_capability in CAPABILITIES:
        check_gpu(INSTALLED, compute_capability)
        return
    with refused(UnavailableError, RTX, got=compute_capability, hint=INSTEAD):
        check_gpu(INSTALLED, compute_capability)
    assert INSTEAD.startswith("pip install 'sgraf-deploy[tensorrt]'")


@pytest.mark.parametrize(
    ("gpus", "left"), [(("8.9",), False), (("9.0",), True), (("7.5",), True), ((), False)]
)
def test_what_is_built_may_be_for_another_machine(
    gpus: tuple[str, ...], left: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_gpus(monkeypatch, *gpus)
    reason = left_out(INSTALLED)
    assert (reason is not None) == left
    assert left_out(replace(INSTALLED, flavour="tensorrt")) is None


def install_gpus(monkeypatch: pytest.MonkeyPatch, *compute_capabilities: str) -> None:
    def driver() -> Driver:
        if not compute_capabilities:
            raise UnavailableError("no NVIDIA driver")
        return Driver("13.0", tuple(Gpu("a GPU", each) for each in compute_capabilities))

    for module in ("trt.rtx", "gpu"):
        monkeypatch.setattr(f"sgraf_deploy.engines.{module}.find_driver", driver)


class InstalledWorld(RtxWorld):
    """The fake GPU with TensorRT for RTX, as the driver shows it."""

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().install(monkeypatch)
        install_gpus(monkeypatch, self.cuda.compute_capability)


@pytest.fixture
def world(
    request: pytest.FixtureRequest,
    exported: Bundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> InstalledWorld:
    made = InstalledWorld(exported, tmp_path / "engines", FakeCuda(request.param))
    made.install(monkeypatch)
    made.build("fp16", flavour=RTX, compute_capabilities=CAPABILITIES)
    return made


unsupported = pytest.mark.parametrize("world", UNSUPPORTED, indirect=True)


@unsupported
@pytest.mark.parametrize(("engine", "device"), [("trt", None), ("trt", "cuda:0")])
def test_an_engine_that_cannot_run_here_names_the_other_tensorrt(
    world: InstalledWorld, engine: str, device: str | None
) -> None:
    options = EngineOptions(engine_dir=world.folder, allow_unverified=True)
    with refused(UnavailableError, engine, world.cuda.compute_capability, hint=INSTEAD):
        load(world.bundle, engine, device=device, options=options)
    assert world.tensorrt.opened == 0


@unsupported
def test_auto_on_such_a_gpu_names_it_too(
    world: InstalledWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgraf_deploy.engines.policy.ON_A_GPU", ("trt",))
    options = EngineOptions(engine_dir=world.folder)
    with refused(UnavailableError, world.cuda.compute_capability, hint=INSTEAD):
        load(world.bundle, device="cuda", options=options)
    with load(world.bundle, options=options) as scorer:
        assert scorer.device == "cpu"


@unsupported
@pytest.mark.usefixtures("world")
def test_doctor_names_it_too() -> None:
    error = unavailable("trt")
    assert error is not None
    assert error.hint == INSTEAD
    lines = [line for line in done("doctor").stdout.splitlines() if INSTEAD in line]
    assert sorted(holds(line.removesuffix(INSTEAD), "trt") for line in lines) == [False, True]


@pytest.mark.parametrize("world", ["8.9"], indirect=True)
def test_on_a_gpu_that_a_plan_is_for_it_is_opened(world: InstalledWorld) -> None:
    assert unavailable("trt") is None
    assert INSTEAD not in done("doctor").stdout
    options = EngineOptions(engine_dir=world.folder, allow_unverified=True)
    with load(world.bundle, "trt", options=options) as scorer:
        assert scorer.engine_name == "trt"
    assert world.tensorrt.opened == 8
