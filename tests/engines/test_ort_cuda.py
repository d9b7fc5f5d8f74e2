"""The engines on ONNX Runtime's GPU providers, on a GPU that is in host memory and lazy."""

from __future__ import annotations

import gc
import importlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from support.closeness import assert_similar
from support.fake_cuda import FakeCuda
from support.fake_onnxruntime import CUDA, HOST, FakeOnnxRuntime
from support.refusals import holds, naming, refused, warned
from support.small_models import random_captions, random_regions
from support.trt_world import assert_logits_alike, rounding_of

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import DEFAULT_PRECISIONS, Precision
from sgraf_deploy.engines import ort_cuda
from sgraf_deploy.engines.base import LARGEST_TILES
from sgraf_deploy.engines.ort_cuda import OrtCudaEngine, OrtTensorrtEngine, find_provider
from sgraf_deploy.engines.state import state_folder
from sgraf_deploy.errors import EngineMemoryError, GateError, InputError, UnavailableError
from sgraf_deploy.runtime import EngineOptions, Scorer, load
from sgraf_deploy.runtime.tiles import TileLimits

LENGTHS = (2, 17, 5, 9, 3, 3, 12, 7, 2, 1, 14, 5, 6)


@dataclass
class OrtWorld:
    """A fake GPU and the ONNX Runtime that uses it."""

    bundle: Bundle
    cuda: FakeCuda = field(default_factory=FakeCuda)

    def __post_init__(self) -> None:
        self.module = FakeOnnxRuntime(self.cuda)

    def engine(
        self, precision: Precision = "fp16", kind: type[OrtCudaEngine] = OrtCudaEngine, **more: Any
    ) -> OrtCudaEngine:
        options = EngineOptions(**more)
        return kind(self.bundle, precision, options, onnxruntime=self.module, cuda=self.cuda)

    def scorer(self, precision: Precision = "fp16") -> Scorer:
        limits = TileLimits(advice=LARGEST_TILES)
        return Scorer(self.bundle, self.engine(precision), precision=precision, limits=limits)


@pytest.fixture
def world(exported: Bundle) -> OrtWorld:
    return OrtWorld(exported)


@pytest.fixture
def regions(exported: Bundle) -> Any:
    return random_regions(exported.manifest.members["sgr"].config, 11)


@pytest.fixture
def captions(exported: Bundle) -> Any:
    return random_captions(exported.manifest.members["sgr"].config, LENGTHS)


@pytest.fixture(params=DEFAULT_PRECISIONS)
def scorers(world: OrtWorld, request: pytest.FixtureRequest) -> Iterator[tuple[Scorer, Scorer]]:
    """The engine, and ONNX Runtime on the host."""
    with (
        world.scorer(request.param) as scorer,
        load(world.bundle, engine="ort", precision=request.param) as other,
    ):
        yield scorer, other


def test_every_logit_is_that_of_the_graphs(
    scorers: tuple[Scorer, Scorer], regions: Any, captions: Any
) -> None:
    scorer, _ = scorers
    assert_logits_alike(scorers, regions, captions)
    assert scorer.executed == f"{scorer.precision} in onnxruntime 1.99.0, CUDA provider"
    assert scorer.device == "cuda:0"


def test_pairs_and_parts_of_galleries(
    scorers: tuple[Scorer, Scorer], regions: Any, captions: Any
) -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(0, 11, 30), rng.integers(0, 13, 30)
    scorer, _ = scorers
    found, expected = (one.score_pairs(regions, captions, *index) for one in scorers)
    assert_similar(found, expected, **rounding_of(scorer))
    images, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
    whole = scorer.score(images, texts)
    rows = [7, 2, 2, 10]
    assert_similar(scorer.score(images[rows], texts), whole[rows], **rounding_of(scorer))


def test_a_session_works_in_the_stream_of_its_lane(world: OrtWorld) -> None:
    engine = world.engine("fp32")
    engine.open("sgr", "scorer")
    ((provider, options),) = world.module.opened[0]
    assert provider == CUDA
    assert options["user_compute_stream"] in map(str, world.cuda.streams)
    assert (options["device_id"], options["use_tf32"]) == ("0", "0")
    engine.close()


def test_closing_releases_everything(world: OrtWorld, regions: Any, captions: Any) -> None:
    scorer = world.scorer()
    images, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
    for _ in range(3):
        scorer.score(images, texts)
    scorer.close()
    del images, texts
    gc.collect()
    cuda = world.cuda
    left = len(cuda.blocks), len(cuda.pinned), len(cuda.streams), len(cuda.events)
    assert left == (0, 0, 0, 0)


def test_a_provider_that_does_not_come_up_is_an_error(world: OrtWorld) -> None:
    world.module.takes = False
    engine = world.engine()
    with refused(
        UnavailableError, "ort-cuda", CUDA, got=HOST, hint="pip install 'sgraf-deploy[gpu]'"
    ):
        engine.open("sgr", "scorer")
    engine.close()


def test_a_product_on_the_host_is_an_error(world: OrtWorld) -> None:
    world.module.on_the_host = frozenset({"MatMul", "Shape"})
    engine = world.engine()
    names = ("ort-cuda", CUDA, "sgr/fp16/scorer.onnx")
    with refused(UnavailableError, *names, got=naming("MatMul"), hint="--engine trt") as caught:
        engine.open("sgr", "scorer")
    assert not holds(str(caught.error.got), "Shape")  # What computes shapes may stay there.
    engine.close()


def test_out_of_memory_halves_the_tiles(
    world: OrtWorld, regions: Any, captions: Any, caplog: Any
) -> None:
    with world.scorer() as scorer:
        images, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
        expected = scorer.score(images, texts)
        world.module.memory = 10
        assert_similar(scorer.score(images, texts), expected, **rounding_of(scorer))
        assert warned(caplog)
        world.module.memory = 0
        with refused(EngineMemoryError, "tiles", hint=naming()):
            scorer.score(images, texts)


def test_shapes_and_dtypes_are_refused_before_an_address_is_bound(world: OrtWorld) -> None:
    engine = world.engine()
    graph = engine.open("sgr", "image_encoder")
    config = world.bundle.manifest.members["sgr"].config
    wrong = np.zeros((2, config.regions, config.img_dim + 1), dtype=np.float32)
    with refused(InputError, "regions", got=naming(wrong.shape)):
        graph.run({"regions": engine.put(wrong)})
    assert world.module.runs == 0
    engine.close()


def test_what_it_preloads_says_nothing_on_the_screen(world: OrtWorld, capsys: Any) -> None:
    world.engine().close()
    assert capsys.readouterr().out == ""


def test_load_compares_it_with_the_reference(
    world: OrtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = world.engine()
    before = made.unverified
    monkeypatch.setattr(OrtCudaEngine, "check_available", lambda device: None)
    monkeypatch.setattr("sgraf_deploy.runtime.scorer.open_engine", lambda *_: made)
    with load(world.bundle, engine="ort-cuda", precision="fp16"):
        assert (before, made.unverified) == (True, False)

    wrong = world.engine()
    run = type(wrong.open("saf", "scorer")).run

    def shifted(self: Any, inputs: Any, outputs: Any = None) -> Any:
        found = run(self, inputs, outputs)
        if "logits" in found:
            return {"logits": wrong.put(wrong.fetch(found["logits"]) + 1)}
        return found

    monkeypatch.setattr(ort_cuda.OrtCudaGraph, "run", shifted)
    monkeypatch.setattr("sgraf_deploy.runtime.scorer.open_engine", lambda *_: wrong)
    with refused(GateError, "ort-cuda", "cuda:0"):
        load(world.bundle, engine="ort-cuda", precision="fp16")


@pytest.fixture
def forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFloat-32, for every library of NVIDIA's."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "0")


def opened(world: OrtWorld, kind: type[OrtCudaEngine], monkeypatch: pytest.MonkeyPatch) -> Scorer:
    """In float32 through `load`, which compares it with the reference."""
    monkeypatch.setattr(kind, "check_available", lambda device: None)
    made = partial(world.engine, "fp32", kind)
    monkeypatch.setattr("sgraf_deploy.runtime.scorer.open_engine", lambda *_: made())
    return load(world.bundle, engine=kind.name, precision="fp32")


def test_a_session_without_the_option_is_not_float32(
    world: OrtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The option counts: what `load` compares is too far off without it, and right with it."""
    opened(world, OrtCudaEngine, monkeypatch).close()
    options = OrtCudaEngine._common
    monkeypatch.setattr(
        OrtCudaEngine, "providers", lambda self, lane: [(CUDA, options(self, lane))]
    )
    with pytest.raises(GateError):
        opened(world, OrtCudaEngine, monkeypatch)


def test_tensorrt_in_float32_is_refused_where_it_would_not_be(
    world: OrtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    variable = "NVIDIA_TF32_OVERRIDE=0"
    with refused(UnavailableError, expected=naming(variable), hint=[variable, "ort-cuda"]):
        opened(world, OrtTensorrtEngine, monkeypatch)
    assert (world.module.opened, world.cuda.streams) == ([], set())

    monkeypatch.setattr(OrtTensorrtEngine, "check_float32", lambda *_: None)
    with pytest.raises(GateError):  # It would have been far off, too.
        opened(world, OrtTensorrtEngine, monkeypatch)


@pytest.mark.parametrize("value", ["1", "", "off"])
def test_only_a_zero_forbids(value: str, world: OrtWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", value)
    with pytest.raises(UnavailableError) as caught:
        world.engine("fp32", OrtTensorrtEngine)
    assert caught.value.got == value


@pytest.mark.usefixtures("forbidden")
def test_tensorrt_in_float32_where_the_environment_forbids_the_other(
    world: OrtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(world, OrtTensorrtEngine, monkeypatch).close()


def test_tensorrt_in_float32_on_a_gpu_that_has_nothing_else(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(OrtWorld(exported, FakeCuda("7.5")), OrtTensorrtEngine, monkeypatch).close()


def test_engines_with_and_without_tf32_are_kept_apart(
    world: OrtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = set()
    for value in ("1", "0"):
        monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", value)
        engine = world.engine("fp16", OrtTensorrtEngine)
        engine.open("saf", "scorer")
        engine.close()
        folders.add(world.module.opened[-1][0][1]["trt_engine_cache_path"])
    assert len(folders) == 2


def test_tensorrt_comes_before_cuda_and_keeps_its_engines_where_no_bundle_brings_any(
    world: OrtWorld, tmp_path: Path
) -> None:
    engine = world.engine(kind=OrtTensorrtEngine, engine_dir=tmp_path)
    engine.open("saf", "scorer")
    (name, options), (second, _) = world.module.opened[0]
    assert (name, second) == ("TensorrtExecutionProvider", CUDA)
    folder = Path(options["trt_engine_cache_path"])
    assert folder.is_dir()
    assert state_folder() in folder.parents
    assert not list(tmp_path.iterdir())
    assert not (world.bundle.path / "engines").exists()
    engine.close()


def test_a_folder_that_cannot_be_written_is_said(
    world: OrtWorld, tmp_path: Path, caplog: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SGRAF_DEPLOY_STATE", str(tmp_path / "file"))
    engine = world.engine(kind=OrtTensorrtEngine)
    with caplog.at_level(logging.WARNING):
        engine.open("saf", "scorer")
    assert any(holds(line, tmp_path / "file") for line in warned(caplog))
    assert "trt_engine_cache_enable" not in world.module.opened[0][0][1]
    engine.close()


@pytest.mark.parametrize("kind", [OrtCudaEngine, OrtTensorrtEngine])
def test_the_cpu_build_is_told_apart(
    kind: type[OrtCudaEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [HOST])
    with refused(UnavailableError, kind.provider, got=HOST, hint="pip uninstall onnxruntime"):
        kind.check_available("cuda:0")


def test_without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with refused(UnavailableError, "onnxruntime", hint="pip install 'sgraf-deploy[gpu]'"):
        find_provider(CUDA)


def test_what_is_used_exists() -> None:
    """In the build for the CPU, which has the same Python modules."""
    module: Any = importlib.import_module("onnxruntime")
    for owner, names in (
        (module, ("InferenceSession", "SessionOptions", "RunOptions", "preload_dlls")),
        (module.SessionOptions, ("log_severity_level", "enable_mem_pattern")),
        (module.SessionOptions, ("add_session_config_entry",)),
        (module.RunOptions, ("add_run_config_entry",)),
        (module.IOBinding, ("bind_input", "bind_output")),
        (
            module.InferenceSession,
            ("io_binding", "run_with_iobinding", "get_provider_graph_assignment_info"),
        ),
    ):
        assert [name for name in names if not hasattr(owner, name)] == [], owner
