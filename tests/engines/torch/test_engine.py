"""The engines that need PyTorch, on an exported bundle."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.closeness import assert_close, assert_similar, logits_depth, tolerance
from support.refusals import naming, refused
from support.small_models import (
    LENGTHS,
    SAF,
    SGR,
    padded,
    random_captions,
    random_regions,
    write_checkpoint_file,
)

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import DEFAULT_PRECISIONS, GRAPHS, Precision, signature
from sgraf_deploy.engines.registry import open_engine, unavailable
from sgraf_deploy.engines.torch.engine import TorchEngine, TorchGraph
from sgraf_deploy.engines.torch.reference import ReferenceEngine
from sgraf_deploy.errors import (
    BundleError,
    CheckpointError,
    EngineMemoryError,
    InputError,
    UnavailableError,
)
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.export.gate_inputs import reference_outputs
from sgraf_deploy.gate.inputs import GateInputs
from sgraf_deploy.gate.tolerances import FP8_LOGITS_SHARE, FP16_LOGITS_SHARE
from sgraf_deploy.model.checkpoint import read_reference
from sgraf_deploy.runtime import EngineOptions, Scorer, TileShape, load

MEMBERS = ("sgr", "saf")
ENGINES = ("torch", "torch-reference")
IMAGES = 5
DEPTH = max(logits_depth(config, max(LENGTHS)) for config in (SGR, SAF))

CPU = EngineOptions(device="cpu")


@pytest.fixture(scope="module")
def regions() -> NDArray[np.float32]:
    return random_regions(SGR, IMAGES)


@pytest.fixture(scope="module")
def captions() -> list[NDArray[np.int32]]:
    return random_captions(SGR)


@pytest.fixture(scope="module")
def expected(
    exported: Bundle, regions: NDArray[np.float32], captions: list[NDArray[np.int32]]
) -> dict[str, NDArray[np.float64]]:
    """Every member's logits (images, captions) by the literal loop in float64."""
    inputs = GateInputs(regions, *padded(captions), "random", real=False)
    return {
        name: reference_outputs(
            member.config, read_reference(exported.reference_path(name), member.config), inputs
        ).logits
        for name, member in exported.manifest.members.items()
    }


@pytest.fixture(params=ENGINES)
def scorer(request: pytest.FixtureRequest, exported: Bundle) -> Iterator[Scorer]:
    with load(exported, engine=request.param, options=CPU) as opened:
        yield opened


@pytest.fixture(scope="module")
def bare(checkpoint_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Both members without their reference."""
    target = tmp_path_factory.mktemp("bare") / "bare.sgraf"
    options = ExportOptions(precisions=("fp32",), keep_reference=False)
    return export_bundle([*checkpoint_files.values()], target, options).bundle


@pytest.fixture
def engine(exported: Bundle) -> TorchEngine:
    return TorchEngine(exported, "fp32", CPU)


def test_both_are_available_and_registered(exported: Bundle) -> None:
    for name, kind in zip(ENGINES, (TorchEngine, ReferenceEngine), strict=True):
        assert unavailable(name) is None
        opened: Any = open_engine(name, exported, "fp32", CPU)
        assert type(opened) is kind
        assert (opened.name, opened.executed, opened.device) == (name, "fp32", "cpu")


def test_logits_are_those_of_the_literal_loop(
    scorer: Scorer,
    regions: NDArray[np.float32],
    captions: list[NDArray[np.int32]],
    expected: dict[str, NDArray[np.float64]],
) -> None:
    logits = scorer.logits(regions, captions)

    assert list(logits) == list(expected) == list(MEMBERS)
    for name, right in expected.items():
        assert logits[name].shape == (IMAGES, len(LENGTHS))
        assert right.std() > 1e-3
        assert_close(logits[name], right, DEPTH)


@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (9, 9)], ids=["1x1", "2x3", "9x9"])
@pytest.mark.parametrize("name", ENGINES)
def test_tiles_change_nothing(
    name: str,
    tile: tuple[int, int],
    exported: Bundle,
    regions: NDArray[np.float32],
    captions: list[NDArray[np.int32]],
    expected: dict[str, NDArray[np.float64]],
) -> None:
    with load(exported, engine=name, options=CPU, tile=TileShape(*tile)) as opened:
        logits = opened.logits(regions, captions)

    for member, right in expected.items():
        assert_close(logits[member], right, DEPTH)


def test_pairs_in_any_order_and_repeated(
    scorer: Scorer,
    regions: NDArray[np.float32],
    captions: list[NDArray[np.int32]],
    expected: dict[str, NDArray[np.float64]],
) -> None:
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(0, IMAGES, 30), rng.integers(0, len(captions), 30)

    logits = scorer.logits_pairs(regions, captions, rows, columns)

    for name, right in expected.items():
        assert_close(logits[name], right[rows, columns], DEPTH)


def test_all_engines_give_one_ensemble(
    exported: Bundle, regions: NDArray[np.float32], captions: list[NDArray[np.int32]]
) -> None:
    found = []
    for name in ("ort", *ENGINES):
        with load(exported, engine=name, options=CPU) as opened:
            found.append(opened.score(regions, captions))

    assert found[0].std() > 1e-3
    assert_similar(found[1], found[0], DEPTH)
    assert_similar(found[2], found[0], DEPTH)


def test_half_precision_on_a_cpu_is_rounded(
    exported: Bundle,
    regions: NDArray[np.float32],
    captions: list[NDArray[np.int32]],
    expected: dict[str, NDArray[np.float64]],
) -> None:
    with load(exported, engine="torch", precision="fp16", options=CPU) as opened:
        assert opened.executed == "fp16-rounded"
        images = opened.encode_images(regions)
        assert images.members["sgr"].region_embeddings.dtype == torch.float16
        logits = opened.logits(images, captions)

    for name, right in expected.items():
        assert logits[name].dtype == np.float32
        largest = np.abs(logits[name] - right).max()
        assert tolerance(right, DEPTH) < largest <= FP16_LOGITS_SHARE * right.std()


def test_fp8_is_rounded_in_the_local_projection_alone(
    exported_fp8: Bundle,
    regions: NDArray[np.float32],
    captions: list[NDArray[np.int32]],
    expected: dict[str, NDArray[np.float64]],
) -> None:
    with load(exported_fp8, engine="torch", precision="fp8", options=CPU) as opened:
        assert opened.executed == "fp8-rounded"
        images = opened.encode_images(regions)
        assert images.members["sgr"].region_embeddings.dtype == torch.float16
        logits = opened.logits(images, captions)
        rows, columns = np.arange(IMAGES), np.arange(IMAGES)
        pairs = opened.logits_pairs(images, captions, rows, columns)

    for name, right in expected.items():
        largest = np.abs(logits[name] - right).max() / right.std()
        assert 0.02 < largest <= 0.6  # random weights: 0.04 and 0.3 were measured
        gap = np.abs(pairs[name] - logits[name][rows, columns])
        assert gap.max() <= FP8_LOGITS_SHARE * right.std()


@pytest.mark.parametrize("name", ["ort", "torch-reference", "fused"])
def test_engines_without_fp8_refuse_it(name: str, exported_fp8: Bundle) -> None:
    if (error := unavailable(name)) is not None:
        pytest.skip(error.reason)
    expected = naming("fp32")
    with refused(UnavailableError, name, expected=expected, got="fp8", hint="--engine torch"):
        load(exported_fp8, engine=name, precision="fp8", options=CPU)


def test_the_reference_has_no_half_precision(exported: Bundle) -> None:
    with refused(UnavailableError, expected=naming("fp32"), got="fp16", hint="--engine"):
        load(exported, engine="torch-reference", precision="fp16", options=CPU)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("device", ["tpu-of-mine", "meta", "cpu:x", ""], ids=repr)
def test_an_unknown_device_is_refused(name: str, device: str, exported: Bundle) -> None:
    with refused(
        InputError, "device", expected=naming("cpu", "cuda", "cuda:N"), got=naming(device)
    ):
        load(exported, engine=name, options=EngineOptions(device=device))


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:99"])
def test_a_gpu_that_is_not_there_is_unavailable(
    name: str, device: str, exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)

    with refused(UnavailableError, name, hint="sgraf-deploy bench gpu"):
        load(exported, engine=name, options=EngineOptions(device=device))


def test_without_a_gpu_the_device_is_the_cpu(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    assert TorchEngine(exported, "fp32", EngineOptions()).device == "cpu"


def test_threads_bound_torchs(exported: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", told.append)

    TorchEngine(exported, "fp32", EngineOptions(device="cpu", threads=3))
    TorchEngine(exported, "fp32", CPU)

    assert told == [3]


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(name: str, threads: int, exported: Bundle) -> None:
    options = replace(CPU, threads=threads)

    with refused(InputError, name, "threads", expected=naming(1), got=threads):
        open_engine(name, exported, "fp32", options)


@pytest.mark.parametrize("name", ENGINES)
def test_a_bundle_without_its_reference_names_the_option(name: str, bare: Bundle) -> None:
    with refused(BundleError, "sgr", hint="--checkpoint FILE"):
        load(bare, engine=name, options=CPU)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("order", [1, -1], ids=["in-order", "reversed"])
def test_checkpoints_stand_in_for_the_reference(
    name: str,
    order: int,
    bare: Bundle,
    checkpoint_files: dict[str, Path],
    regions: NDArray[np.float32],
    captions: list[NDArray[np.int32]],
    expected: dict[str, NDArray[np.float64]],
) -> None:
    files = tuple(checkpoint_files.values())[::order]

    with load(bare, engine=name, options=replace(CPU, checkpoints=files)) as opened:
        logits = opened.logits(regions, captions)

    for member, right in expected.items():
        assert_close(logits[member], right, DEPTH)


@pytest.mark.parametrize("fixture", ["bare", "exported"])
def test_another_checkpoint_is_refused(
    fixture: str,
    request: pytest.FixtureRequest,
    checkpoint_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    """Even where the bundle has its own reference: the caller must not be mistaken."""
    other = write_checkpoint_file(tmp_path / "small_SAF.pth.tar", SAF, seed=77)
    options = replace(CPU, checkpoints=(checkpoint_files["sgr"], other))

    with refused(CheckpointError, "saf", expected=naming(checkpoint_files["saf"].name)):
        load(request.getfixturevalue(fixture), engine="torch", options=options)


@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_is_opened_once_and_has_the_bundles_signature(
    graph: Any, precision: Precision, exported: Bundle
) -> None:
    engine = TorchEngine(exported, precision, CPU)

    with ThreadPoolExecutor(4) as pool:
        opened = [*pool.map(lambda _: engine.open("saf", graph), range(8))]

    assert len({id(each) for each in opened}) == 1
    assert opened[0].signature == signature(graph, SAF, precision)
    engine.close()
    assert engine.open("saf", graph) is not opened[0]


def test_buffers_share_the_hosts_memory_where_they_can(engine: TorchEngine) -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3)

    buffer = engine.put(array)

    view = engine.gather(buffer, slice(1, 3))
    view[0, 0] = -1
    assert array[1, 0] == -1
    copied = engine.gather(buffer, np.array([[3, 0]], dtype=np.int32))
    assert copied.shape == (1, 2, 3)
    copied[0, 0, 0] = -2
    assert array[3, 0] == 9
    assert np.array_equal(engine.fetch(engine.gather(buffer, slice(0, 0))), array[:0])


@pytest.mark.parametrize("kind", ["read-only", "reversed", "transposed"])
def test_arrays_that_torch_cannot_share_are_copied(kind: str, engine: TorchEngine) -> None:
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    given = {"read-only": array, "reversed": array[::-1], "transposed": array.T}[kind]
    given.flags.writeable = kind != "read-only"

    buffer = engine.put(given)

    assert np.array_equal(engine.fetch(buffer), given)
    buffer.zero_()
    assert array.any()


def test_outputs_are_written_where_they_are_bound(
    engine: TorchEngine, regions: NDArray[np.float32]
) -> None:
    graph = engine.open("sgr", "image_encoder")
    inputs = {"regions": engine.put(regions)}
    free = graph.run(inputs)
    array = np.zeros((IMAGES, SGR.embed), dtype=np.float32)

    bound = graph.run(inputs, {"image_global": engine.put(array)})

    assert np.array_equal(array, engine.fetch(free["image_global"]))
    assert engine.fetch(bound["image_global"]).ctypes.data == array.ctypes.data
    assert torch.equal(bound["region_embeddings"], free["region_embeddings"])


def _too_large(*_: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return (torch.empty(1 << 60, dtype=torch.uint8),)


def _python_has_none(*_: torch.Tensor) -> tuple[torch.Tensor, ...]:
    raise MemoryError


def _gpu_has_none(*_: torch.Tensor) -> tuple[torch.Tensor, ...]:
    raise torch.cuda.OutOfMemoryError("CUDA out of memory")


@pytest.mark.parametrize("function", [_too_large, _python_has_none, _gpu_has_none])
def test_out_of_memory_is_told_apart(function: Any) -> None:
    graph = TorchGraph(signature("image_encoder", SGR, "fp32"), function)

    with refused(EngineMemoryError, "PyTorch"):
        graph.run({"regions": torch.zeros(1, SGR.regions, SGR.img_dim)})


def test_another_error_of_torch_is_no_lack_of_memory() -> None:
    def wrong(regions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (regions @ regions,)

    graph = TorchGraph(signature("image_encoder", SGR, "fp32"), wrong)
    with pytest.raises(RuntimeError, match="Expected size"):
        graph.run({"regions": torch.zeros(2, SGR.regions, SGR.img_dim)})
