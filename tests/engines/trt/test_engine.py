"""The TensorRT engine on a GPU that is in host memory and as lazy as a real one may be."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.closeness import assert_similar
from support.fake_cuda import FakeCuda
from support.refusals import holds, naming, refused
from support.small_models import random_captions, random_regions
from support.trt_world import SIZES, TrtWorld, assert_logits_alike, rounding_of

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.compile.profiles import Sizes
from sgraf_deploy.config import DEFAULT_PRECISIONS, Precision
from sgraf_deploy.engines.base import LARGEST_TILES
from sgraf_deploy.engines.trt.engine import TrtEngine
from sgraf_deploy.errors import (
    BundleError,
    DataError,
    DeviceError,
    EngineMemoryError,
    GateError,
    InputError,
    UnavailableError,
)
from sgraf_deploy.gate.engines import gate_engine
from sgraf_deploy.runtime import EngineOptions, Scorer, load
from sgraf_deploy.runtime.tiles import TileLimits


@pytest.fixture
def world(exported: Bundle, tmp_path: Path) -> TrtWorld:
    return TrtWorld(exported, tmp_path / "engines")


@pytest.fixture
def regions(exported: Bundle) -> Any:
    return random_regions(exported.manifest.members["sgr"].config, 11)


@pytest.fixture
def captions(exported: Bundle) -> Any:
    lengths = (2, 17, 5, 9, 3, 3, 12, 7, 2, 1, 14, 5, 6)
    return random_captions(exported.manifest.members["sgr"].config, lengths)


@pytest.fixture
def scorers(world: TrtWorld, request: pytest.FixtureRequest) -> Iterator[tuple[Scorer, Scorer]]:
    """The engine, and ONNX Runtime on the same graphs."""
    precision: Precision = getattr(request, "param", "fp16")
    world.build(precision)
    with (
        world.scorer(precision) as scorer,
        load(world.bundle, engine="ort", precision=precision) as other,
    ):
        yield scorer, other


@pytest.mark.parametrize("scorers", DEFAULT_PRECISIONS, indirect=True)
def test_every_logit_is_that_of_the_graphs(
    scorers: tuple[Scorer, Scorer], regions: Any, captions: Any
) -> None:
    scorer, _ = scorers
    assert_logits_alike(scorers, regions, captions)
    assert scorer.executed == f"{scorer.precision} in tensorrt 11.4.0"
    assert scorer.device == "cuda:0"


def test_pairs_and_queries_run_in_the_profiles_that_they_have(
    world: TrtWorld, scorers: tuple[Scorer, Scorer], regions: Any, captions: Any
) -> None:
    rng = np.random.default_rng(0)
    index = rng.integers(0, 11, 30), rng.integers(0, 13, 30)
    scorer, _ = scorers
    found, expected = (one.score_pairs(regions, captions, *index) for one in scorers)
    assert_similar(found, expected, **rounding_of(scorer))
    answers = [one.rerank(captions[3], regions, 5) for one in scorers]
    assert_similar(answers[0].similarities, answers[1].similarities, **rounding_of(scorer))


def test_a_gallery_stays_on_the_gpu(
    world: TrtWorld, scorers: tuple[Scorer, Scorer], regions: Any, captions: Any
) -> None:
    scorer, _ = scorers
    images = scorer.encode_images(regions)
    texts = scorer.encode_captions(captions)
    whole = scorer.score(images, texts)
    rows = [7, 2, 2, 10]
    assert_similar(scorer.score(images[rows], texts), whole[rows], **rounding_of(scorer))
    assert_similar(scorer.score(images[3:6], texts[4:9]), whole[3:6, 4:9], **rounding_of(scorer))
    assert world.cuda.calls["gather"] > 0


def test_threads_score_at_the_same_time(
    world: TrtWorld, scorers: tuple[Scorer, Scorer], regions: Any, captions: Any
) -> None:
    scorer, _ = scorers
    images, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
    expected = scorer.score(images, texts)
    with ThreadPoolExecutor(5) as pool:
        for found in pool.map(lambda _: scorer.score(images, texts), range(10)):
            assert_similar(found, expected, **rounding_of(scorer))
    more = 2 * 8 * 3  # Two lanes, eight graphs, three profiles at most: direct, and given up.
    assert world.tensorrt.contexts - world.tensorrt.runs["captured"] <= 2 * more


def test_copies_pass_through_pinned_memory_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch, world: TrtWorld
) -> None:
    for module in ("lanes", "arrays"):
        monkeypatch.setattr(f"sgraf_deploy.engines.cuda.{module}.STAGING_BYTES", 64)
    engine = world.engine()
    array = np.arange(5000, dtype=np.float32).reshape(50, 100)
    buffer = engine.put(array)
    array[:] = -1  # who put it may use it again
    np.testing.assert_array_equal(engine.fetch(buffer).reshape(-1), np.arange(5000))
    rows = np.array([[3, 3], [49, 0]], dtype=np.int32)
    found = engine.fetch(engine.gather(buffer, rows))
    np.testing.assert_array_equal(found, np.arange(5000).reshape(50, 100)[rows])
    nothing = engine.fetch(engine.gather(buffer, np.zeros((0, 3), dtype=np.int32)))
    assert nothing.shape == (0, 3, 100)
    assert max(block.nbytes for block in world.cuda.pinned.values()) <= 512
    engine.close()


def test_closing_releases_everything(
    world: TrtWorld, exported: Bundle, regions: Any, captions: Any
) -> None:
    world.build()
    scorer = world.scorer()
    images, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
    for _ in range(3):
        scorer.score(images, texts)
    scorer.close()
    del images, texts
    gc.collect()
    cuda = world.cuda
    left = len(cuda.blocks), len(cuda.pinned), len(cuda.streams), len(cuda.events), cuda.graphs
    assert left == (0, 0, 0, 0, [])


def test_too_little_memory_halves_the_tiles(
    exported: Bundle, tmp_path: Path, regions: Any, caplog: Any
) -> None:
    world = TrtWorld(exported, tmp_path / "engines")
    world.build(sizes=Sizes(images=16, captions=16, words=20, candidates=16))
    captions = random_captions(exported.manifest.members["sgr"].config, (9,) * 16)
    engine = world.engine()
    limits = TileLimits(advice=LARGEST_TILES)
    with Scorer(exported, engine, precision="fp16", limits=limits) as scorer:
        images, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
        engine.memory.trim()
        resident = world.cuda.used
        expected = scorer.score(images, texts)
        needed = world.cuda.used - resident
        engine.memory.trim()
        world.cuda.limit = resident + needed // 2
        found = scorer.score(images, texts)
        assert_similar(found, expected, **rounding_of(scorer))
        assert sum(holds(line, "tiles") for line in caplog.messages) == 1
        engine.memory.trim()
        world.cuda.limit = 0
        with refused(EngineMemoryError, "tiles", hint=naming()):
            scorer.score(images, texts)


def test_a_caption_that_is_too_long_is_refused_with_the_command(
    scorers: tuple[Scorer, Scorer], regions: Any
) -> None:
    long = [1] * (SIZES.words + 2)
    hint = "sgraf-deploy compile --max-words 22"
    with refused(DataError, 1, expected=naming(20), got=22, hint=hint):
        scorers[0].score(regions, [[1, 2, 3], long])


def test_shapes_outside_every_profile_are_refused_with_the_range(world: TrtWorld) -> None:
    world.build()
    engine = world.engine()
    config = world.bundle.manifest.members["sgr"].config
    graph = engine.open("sgr", "image_encoder")
    shape = (SIZES.images + 1, config.regions, config.img_dim)
    hint = ["sgraf-deploy compile", "--max-words"]
    with refused(InputError, expected=naming("images", 1, 4), got=naming("images", 5), hint=hint):
        graph.run({"regions": engine.put(np.zeros(shape, dtype=np.float32))})
    with refused(InputError, "regions", got=naming("float64")):
        graph.run({"regions": engine.put(np.zeros(shape, dtype=np.float64))})
    engine.close()


@pytest.mark.parametrize(
    ("changes", "expected", "got"),
    [
        ({"flavour": "tensorrt-rtx"}, "tensorrt", "tensorrt-rtx"),
        ({"version": "10.13.0"}, "11.4.0", "10.13.0"),
        ({"compute_capabilities": ("8.9",)}, "9.0", "8.9"),
        ({"onnx_sha256": "0" * 64}, naming(), "0" * 64),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_engine_for_something_else_is_never_opened(
    world: TrtWorld, changes: dict[str, Any], expected: object, got: str
) -> None:
    world.build(**changes)
    engine = world.engine()
    hint = "sgraf-deploy compile BUNDLE"
    with refused(BundleError, expected=expected, got=got, hint=hint):
        engine.open("sgr", "scorer")
    assert world.tensorrt.opened == 0
    engine.close()


def test_fp8_gives_what_pytorch_rounds(exported_fp8: Bundle, tmp_path: Path) -> None:
    world = TrtWorld(exported_fp8, tmp_path)
    world.build("fp8", verified=False)
    engine = world.engine("fp8", allow_unverified=True)
    report = gate_engine(exported_fp8, engine, "fp8")
    assert all(0 < one["logits"]["value"] <= one["logits"]["bound"] for one in report.values())
    engine.close()


def test_fp8_on_a_gpu_without_it_is_refused(exported_fp8: Bundle, tmp_path: Path) -> None:
    world = TrtWorld(exported_fp8, tmp_path, FakeCuda("8.6"))
    with refused(
        UnavailableError, "fp8", expected=naming("8.9"), got="8.6", hint="--precision fp16"
    ):
        world.engine("fp8")


def test_an_altered_onnx_file_is_caught_before_the_plan_is_opened(
    world: TrtWorld, exported: Bundle, tmp_path: Path
) -> None:
    own = Bundle.open(shutil.copytree(exported.path, tmp_path / "own.sgraf"))
    world = TrtWorld(own, tmp_path / "more")
    world.build()
    path = own.graph_path("sgr", "scorer", "fp16")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    engine = world.engine()
    digest = own.graph("sgr", "scorer", "fp16").ref.sha256
    with refused(BundleError, "sgr/fp16/scorer.onnx", own.path, expected=naming(digest)):
        engine.open("sgr", "scorer")
    assert world.tensorrt.opened == 0
    engine.close()


def test_a_plan_that_tensorrt_does_not_take_is_an_error_with_its_reason(
    world: TrtWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.trt_world.fake_plan", lambda *_: b"garbage")
    world.build()
    engine = world.engine()
    with refused(
        DeviceError, got=naming("kEXPECTED_MAGIC_TAG"), hint="sgraf-deploy compile BUNDLE"
    ):
        engine.open("sgr", "scorer")
    engine.close()


@pytest.mark.parametrize(
    ("call", "kind"),
    [
        ("create_execution_context", EngineMemoryError),
        ("set_optimization_profile_async", DeviceError),
        ("set_input_shape", DeviceError),
        ("set_tensor_address", DeviceError),
        ("execute_async_v3", DeviceError),
    ],
)
def test_what_tensorrt_refuses_is_an_error(
    world: TrtWorld, regions: Any, call: str, kind: type[Exception]
) -> None:
    world.build()
    with world.scorer() as scorer:
        world.tensorrt.refuses = call
        with pytest.raises(kind):
            scorer.encode_images(regions)


def test_the_gate_takes_what_fits_the_profiles(world: TrtWorld) -> None:
    world.build(sizes=Sizes(images=2, captions=2, words=9, candidates=4))
    engine = world.engine()
    report = gate_engine(world.bundle, engine, "fp16")
    assert set(report) == {"sgr", "saf"}
    assert "scorer 2×2+0" in report["sgr"]["shapes"]
    engine.close()
    world.build(sizes=Sizes(images=2, captions=2, words=4, candidates=4))
    engine = world.engine()
    with refused(GateError, expected=naming(5), got=4, hint="--max-words"):
        gate_engine(world.bundle, engine, "fp16")
    engine.close()


@pytest.mark.parametrize("device", ["cpu", "cuda:x", "gpu", "cuda:-1"])
def test_other_devices_are_refused(exported: Bundle, device: str) -> None:
    with refused(InputError, "trt", "device", expected=naming("cuda", "cuda:N"), got=device):
        TrtEngine(exported, "fp16", EngineOptions(device=device))
