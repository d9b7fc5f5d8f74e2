"""ONNX Runtime as an engine: what it opens, what it refuses, and how its errors read."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.onnx_bundles import small_config, write_bundle, write_graph
from support.refusals import naming, refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GraphSignature, TensorSpec, signature
from sgraf_deploy.engines import ort
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.ort import OrtEngine, OrtGraph
from sgraf_deploy.errors import BundleError, EngineMemoryError, InputError, UnavailableError
from sgraf_deploy.runtime import load

CONFIG = small_config()
SCORER = signature("scorer", CONFIG, "fp32")

HUGE = """<ir_version: 9, opset_import: ["": 18]>
huge (float[n] x, int32[m] size) => (float[n] y) {
  shape = Cast <to = 7> (size)
  filled = ConstantOfShape (shape)
  total = ReduceSum <keepdims = 0> (filled)
  y = Add (x, total)
}"""
HUGE_SIGNATURE = GraphSignature(
    (TensorSpec("x", "float32", ("n",)), TensorSpec("size", "int32", ("m",))),
    (TensorSpec("y", "float32", ("n",)),),
)


@pytest.fixture
def engine(bundle: Bundle) -> OrtEngine:
    """ONNX Runtime on the small bundle in fp32."""
    return OrtEngine(bundle, "fp32", EngineOptions(threads=1))


@pytest.fixture
def huge(tmp_path: Path) -> OrtGraph:
    """A graph that takes as much memory as its second input says, and returns its first."""
    path = tmp_path / "sgr" / "fp32" / "huge.onnx"
    path.parent.mkdir(parents=True)
    onnx.save(onnx.parser.parse_model(HUGE), path)
    return OrtGraph(path, HUGE_SIGNATURE, 1)


def scorer_inputs(images: int = 2, captions: int = 3, words: int = 4) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "region_embeddings": rng.normal(size=(images, 4, 8)).astype(np.float32),
        "image_global": rng.normal(size=(images, 8)).astype(np.float32),
        "word_embeddings": rng.normal(size=(captions, words, 8)).astype(np.float32),
        "text_global": rng.normal(size=(captions, 8)).astype(np.float32),
        "lengths": np.full(captions, words, np.int32),
        "region_gram": rng.normal(size=(images, 4, 4)).astype(np.float32),
    }


def test_it_is_available_and_says_what_it_executes(bundle: Bundle) -> None:
    OrtEngine.check_available("cpu")
    assert OrtEngine(bundle, "fp32", EngineOptions()).executed == "fp32"
    half = OrtEngine(bundle, "fp16", EngineOptions(device="cpu"))
    assert half.executed == "fp32 arithmetic on an fp16 graph"
    assert (half.name, half.device) == ("ort", "cpu")


def test_without_onnxruntime_it_is_unavailable(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with refused(UnavailableError, "onnxruntime"):
        OrtEngine(bundle, "fp32", EngineOptions())
    with refused(UnavailableError, "ort", "onnxruntime", hint="pip install 'sgraf-deploy[cpu]'"):
        load(bundle, "ort")


def test_a_graph_is_opened_once_by_any_number_of_threads(
    engine: OrtEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    original = ort._open_session

    def counting(*args: Any) -> Any:
        opened.append(args)
        return original(*args)

    monkeypatch.setattr(ort, "_open_session", counting)
    with ThreadPoolExecutor(4) as pool:
        graphs = list(pool.map(lambda _: engine.open("saf", "scorer"), range(8)))
    assert len(opened) == 1
    assert len({id(graph) for graph in graphs}) == 1
    assert engine.open("sgr", "scorer") is not graphs[0]


def test_buffers_are_arrays(engine: OrtEngine) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(6, 2)
    buffer = engine.put(rows)
    assert buffer is rows
    assert engine.fetch(buffer) is rows
    assert engine.put(rows[:, 1]).flags.c_contiguous
    assert np.shares_memory(engine.gather(buffer, slice(1, 3)), rows)
    index = np.array([[5, 0], [2, 2]], dtype=np.int32)
    gathered = engine.gather(buffer, index)
    assert gathered.shape == (2, 2, 2)
    assert np.array_equal(gathered, rows[index])
    assert not np.shares_memory(gathered, rows)


def test_outputs_are_written_where_they_are_bound(engine: OrtEngine) -> None:
    graph, inputs = engine.open("sgr", "scorer"), scorer_inputs()
    expected = graph.run(inputs)["logits"]
    whole = np.full((4, 3), np.nan, np.float32)
    bound = engine.gather(engine.put(whole), slice(1, 3))
    found = graph.run(inputs, {"logits": bound})
    assert found["logits"] is bound
    assert np.array_equal(whole[1:3], expected)
    assert np.isnan(whole[[0, 3]]).all()


def test_an_output_may_be_left_to_the_engine(engine: OrtEngine) -> None:
    graph = engine.open("sgr", "image_encoder")
    regions = np.random.default_rng(0).normal(size=(3, 4, 6)).astype(np.float32)
    expected = graph.run({"regions": regions})
    bound = np.empty((3, 8), np.float32)
    found = graph.run({"regions": regions}, {"image_global": bound})
    assert found["image_global"] is bound
    for name, array in expected.items():
        assert np.array_equal(found[name], array)


@pytest.mark.parametrize(
    "bound",
    [np.empty((3, 3), np.float32), np.empty((2, 6), np.float32)[:, ::2], np.empty((2, 3))],
    ids=["shape", "strides", "dtype"],
)
def test_an_unfit_bound_output_is_refused(engine: OrtEngine, bound: Any) -> None:
    graph = engine.open("sgr", "scorer")
    with refused(InputError, "logits") as caught:
        graph.run(scorer_inputs(), {"logits": bound})
    assert "\n" not in str(caught.error)


@pytest.mark.parametrize("bound", [False, True], ids=["returned", "bound"])
def test_what_onnx_runtime_refuses_is_said_in_one_line(
    engine: OrtEngine, capfd: pytest.CaptureFixture[str], bound: bool
) -> None:
    graph = engine.open("sgr", "text_encoder")
    # Callers bound the ids: a graph does not say how many there are.
    inputs = {"token_ids": np.full((1, 3), 9999, np.int32), "lengths": np.array([3], np.int32)}
    outputs = {"text_global": np.empty((1, 8), np.float32)} if bound else None
    with refused(InputError, "sgr/fp32/text_encoder.onnx", got=naming(9999)) as caught:
        graph.run(inputs, outputs)
    assert "\n" not in str(caught.error)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("bound", [False, True], ids=["returned", "bound"])
def test_out_of_memory_is_told_apart(huge: OrtGraph, bound: bool) -> None:
    x = np.ones(2, np.float32)
    outputs = {"y": np.empty(2, np.float32)} if bound else None
    small = huge.run({"x": x, "size": np.array([3, 4], np.int32)}, outputs)
    assert small["y"].tolist() == [1.0, 1.0]
    with refused(EngineMemoryError, "sgr/fp32/huge.onnx"):
        huge.run({"x": x, "size": np.array([2**30, 2**25], np.int32)}, outputs)


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "InvalidArgument"), (b"hello", "InvalidProtobuf")],
    ids=["empty", "text"],
)
def test_a_file_that_is_no_graph_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "scorer.onnx"
    path.write_bytes(content)
    with refused(BundleError, path, hint="sgraf-deploy export --force") as caught:
        OrtGraph(path, SCORER, 1)
    assert type(caught.error.got).__name__ == reason


def _rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[4].name = "len"
    for node in model.graph.node:
        node.input[:] = ["len" if name == "lengths" else name for name in node.input]


def _freeze_axis(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5


def _reorder(model: onnx.ModelProto) -> None:
    inputs = [model.graph.input[index] for index in (1, 0, 2, 3, 4)]
    del model.graph.input[:]
    model.graph.input.extend(inputs)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_rename_input, ["len", "int32"]),
        (_freeze_axis, ["region_embeddings", "float32", "(5, 4, 8)"]),
        (_reorder, ["image_global", "float32"]),
    ],
    ids=["name", "fixed-axis", "order"],
)
def test_a_graph_that_the_manifest_does_not_describe_is_refused(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], found: list[str]
) -> None:
    path = tmp_path / "scorer.onnx"
    write_graph(path, "scorer", CONFIG, "fp32")
    OrtGraph(path, SCORER, 1)
    model = onnx.load(path)
    change(model)
    onnx.save(model, path)
    with refused(BundleError, path, got=naming(*found), hint="sgraf-deploy export --force"):
        OrtGraph(path, SCORER, 1)


def test_another_precision_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "image_encoder.onnx"
    write_graph(path, "image_encoder", CONFIG, "fp16")
    with refused(BundleError, path, got=naming("region_embeddings", "float16")):
        OrtGraph(path, signature("image_encoder", CONFIG, "fp32"), 1)


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "small.sgraf", "SAF", precisions=["fp32"])
    path = bundle.path / "saf" / "fp32" / "scorer.onnx"
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:-1])
    engine = OrtEngine(bundle, "fp32", EngineOptions())
    with refused(
        BundleError,
        "saf/fp32/scorer.onnx",
        bundle.path,
        expected=naming(size),
        got=naming(size - 1),
    ):
        engine.open("saf", "scorer")


def test_another_provider_is_not_accepted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    path = tmp_path / "scorer.onnx"
    write_graph(path, "scorer", CONFIG, "fp32")
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda _: ["Other"])
    with refused(UnavailableError, path, expected=["CPUExecutionProvider"], got=["Other"]):
        OrtGraph(path, SCORER, 1)


def test_closing_forgets_the_sessions(engine: OrtEngine) -> None:
    graph = engine.open("sgr", "scorer")
    engine.close()
    assert engine.open("sgr", "scorer") is not graph


def test_one_run_may_be_shared_by_threads(engine: OrtEngine) -> None:
    graph = engine.open("saf", "scorer")
    sizes = [(1, 1, 1), (5, 2, 7), (2, 9, 3), (4, 4, 4)] * 4
    inputs = [_saf_inputs(*size) for size in sizes]
    expected = [graph.run(each)["logits"] for each in inputs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda each: graph.run(each)["logits"], inputs))
    assert all(np.array_equal(one, two) for one, two in zip(found, expected, strict=True))


def _saf_inputs(images: int, captions: int, words: int) -> dict[str, Any]:
    """The second member's embeddings are one wider."""
    return {
        name: np.concatenate([array, array[..., :1]], axis=-1) if array.shape[-1] == 8 else array
        for name, array in scorer_inputs(images, captions, words).items()
    }
