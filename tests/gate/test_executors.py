"""What runs a graph at the gate: ONNX Runtime and onnx's evaluator say the same, or GateError."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from support.closeness import assert_close, condition_of, graph_depth
from support.random_weights import random_weights
from support.refusals import naming, refused
from support.small_models import LENGTHS, VARIANTS, padded, random_captions, random_regions

from sgraf_deploy.config import DEFAULT_PRECISIONS, GRAPHS, GraphName, Precision, signature
from sgraf_deploy.errors import GateError
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.gate.executors import EVALUATOR, ONNXRUNTIME, executor_name, open_graph
from sgraf_deploy.gate.values import Arrays
from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import fold
from sgraf_deploy.model.torch_ops import Arithmetic, TorchOps

SOME = ("sgr", "saf", "sgr-2-layers-unidirectional", "saf-2-layers", "saf-unnormalised")
HALF_SHARE = 2e-3
"""Of the logits' standard deviation, between two orders of summing rounded products: 0.03 % was
measured, while rounding itself costs up to 2 %."""


@pytest.fixture
def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.util.find_spec

    def find_spec(name: str, package: str | None = None) -> Any:
        return None if name == "onnxruntime" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def write(folder: Path, variant: str, graph: GraphName, precision: Precision) -> Path:
    config = VARIANTS[variant]
    path = folder / f"{graph}.onnx"
    onnx.save(build_graph(fold(config, random_weights(config, 3)), graph, precision), path)
    return path


def encoded(variant: str, ops: TorchOps) -> tuple[FoldedModel[Any], Arrays]:
    """The folded model on these operations, and every graph's inputs as it encodes them."""
    config = VARIANTS[variant]
    model: FoldedModel[Any] = FoldedModel(fold(config, random_weights(config, 3)), ops)
    token_ids, lengths = padded(random_captions(config))
    regions = random_regions(config, 3)
    images = model.image_encoder(torch.from_numpy(regions))
    words = model.text_encoder(torch.from_numpy(token_ids), torch.from_numpy(lengths))
    arrays: Arrays = {"regions": regions, "token_ids": token_ids, "lengths": lengths}
    image_names = ("region_embeddings", "image_global", "region_gram")
    arrays |= {name: x.numpy() for name, x in zip(image_names, images, strict=False)}
    arrays |= {
        name: x.numpy() for name, x in zip(("word_embeddings", "text_global"), words, strict=True)
    }
    arrays["image_index"] = np.array([2, 0, 2], dtype=np.int32)
    arrays["caption_index"] = np.array([5, 1, 0], dtype=np.int32)
    return model, arrays


def inputs_of(variant: str, graph: GraphName, precision: Precision, arrays: Arrays) -> Arrays:
    spec = signature(graph, VARIANTS[variant], precision)
    return {tensor.name: arrays[tensor.name] for tensor in spec.inputs}


def test_onnxruntime_runs_fp32_and_the_evaluator_fp16() -> None:
    assert {p: executor_name(p) for p in DEFAULT_PRECISIONS} == {
        "fp32": ONNXRUNTIME,
        "fp16": EVALUATOR,
    }


@pytest.mark.usefixtures("without_onnxruntime")
def test_without_onnxruntime_the_evaluator_runs_both() -> None:
    assert {executor_name(precision) for precision in DEFAULT_PRECISIONS} == {EVALUATOR}


@pytest.mark.parametrize("variant", SOME)
@pytest.mark.parametrize("graph", GRAPHS)
def test_both_executors_say_the_same(
    variant: str, graph: GraphName, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    path = write(tmp_path, variant, graph, "fp32")
    _, arrays = encoded(variant, TorchOps("fp32", torch.device("cpu")))
    inputs = inputs_of(variant, graph, "fp32", arrays)

    fast = open_graph(path, "fp32")(inputs)
    request.getfixturevalue("without_onnxruntime")
    slow = open_graph(path, "fp32")(inputs)

    assert list(fast) == list(slow)
    for name, values in fast.items():
        assert slow[name].dtype == values.dtype == np.float32
        config = VARIANTS[variant]
        depth = graph_depth(config, graph, max(LENGTHS))
        assert_close(slow[name], values, depth, condition=condition_of(config))


@pytest.mark.parametrize("precision", ["fp16", "fp8"])
@pytest.mark.parametrize("variant", SOME)
def test_the_evaluator_computes_as_torch_rounds(
    variant: str, precision: Precision, tmp_path: Path
) -> None:
    arithmetic: Arithmetic = "fp16-rounded" if precision == "fp16" else "fp8-rounded"
    model, arrays = encoded(variant, TorchOps(arithmetic, torch.device("cpu")))
    embeddings: Arrays = {}
    encoders: tuple[GraphName, ...] = ("image_encoder", "text_encoder")
    for graph in encoders:
        run = open_graph(write(tmp_path, variant, graph, precision), precision)
        embeddings |= run(inputs_of(variant, graph, precision, arrays))
    for name in ("region_embeddings", "image_global", "word_embeddings", "text_global"):
        assert embeddings[name].dtype == arrays[name].dtype == np.float16
        assert_close(embeddings[name].astype(float), arrays[name].astype(float), 1, np.float16)
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    expected = model.scorer(
        Encoded(
            tensors["region_embeddings"],
            tensors["image_global"],
            tensors["word_embeddings"],
            tensors["text_global"],
            tensors["lengths"],
        )
    ).numpy()

    run = open_graph(write(tmp_path, variant, "scorer", precision), precision)
    logits = run(inputs_of(variant, "scorer", precision, arrays))["logits"]

    assert logits.dtype == np.float32
    assert np.abs(logits - expected).max() <= HALF_SHARE * expected.std()


def test_the_evaluator_sums_half_products_in_float32(tmp_path: Path) -> None:
    """Summed in float16, ones would stop counting at 2048."""
    path = save(tmp_path, "MatMul", TensorProto.FLOAT16)
    ones: NDArray[np.float16] = np.ones((1, 4096), dtype=np.float16)

    (total,) = open_graph(path, "fp16")({"a": ones, "b": ones.T}).values()

    assert total.dtype == np.float16
    assert total.item() == 4096


def test_the_evaluator_is_silent_about_zeros_and_saturation(tmp_path: Path) -> None:
    """Warnings are errors in these tests; the gate tries what would cause them."""
    run = open_graph(save(tmp_path, "Div", TensorProto.FLOAT), "fp16")
    tiny = np.full((1, 1), 1e-30, dtype=np.float32)

    found = [run({"a": a, "b": b})["c"].item() for a, b in ((1 / tiny, tiny), (tiny, 0 * tiny))]

    assert found == [np.inf, np.inf]


@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
def test_a_graph_that_cannot_be_opened(precision: Precision, tmp_path: Path) -> None:
    path = save(tmp_path, "NoSuchOperation", TensorProto.FLOAT)

    with refused(GateError, path.name, got=naming("NoSuchOperation")):
        open_graph(path, precision)


@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
def test_a_graph_that_cannot_be_run(
    precision: Precision, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = save(tmp_path, "MatMul", TensorProto.FLOAT)
    run = open_graph(path, precision)
    two = np.ones((2, 2), dtype=np.float32)
    three = np.ones((3, 3), dtype=np.float32)

    with refused(GateError, path.name, got=naming()):
        run({"a": two, "b": three})

    assert capfd.readouterr().err == ""


def save(folder: Path, op: str, kind: int) -> Path:
    """A graph of one operation on two matrices."""
    a, b, c = (helper.make_tensor_value_info(name, kind, ["x", f"y{name}"]) for name in "abc")
    graph = helper.make_graph([helper.make_node(op, ["a", "b"], ["c"])], "odd", [a, b], [c])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "odd.onnx"
    onnx.save(model, path)
    return path
