"""Graphs that need more than their own file are refused, whoever opens them and however deep."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from google.protobuf.message import DecodeError
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper
from support.cli_world import error_line, replace_file, run
from support.refusals import naming, refused
from support.trt_world import TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.graph_check import check_graph
from sgraf_deploy.compile.build import CompileOptions, list_builds
from sgraf_deploy.engines.registry import unavailable
from sgraf_deploy.errors import BundleError
from sgraf_deploy.export.verify import verify_bundle
from sgraf_deploy.runtime import load

GRAPH = "sgr/fp32/scorer.onnx"
VALUES = "weights.bin"


def elsewhere(name: str = "t", location: str = VALUES) -> TensorProto:
    """A tensor (2,) float32 whose values another file holds."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def constant(tensor: TensorProto, output: str = "c") -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], value=tensor)


def with_attribute(**attributes: Any) -> ModelProto:
    """A model of one node with attributes that nothing reads."""
    node = helper.make_node("Identity", ["x"], ["y"], **attributes)
    return model_of(helper.make_graph([node], "g", [], []))


def model_of(graph: onnx.GraphProto, *domains: str) -> ModelProto:
    opsets = [helper.make_opsetid(domain, 18) for domain in ("", *domains)]
    return helper.make_model(graph, opset_imports=opsets)


def graph_of(*nodes: onnx.NodeProto, **parts: Any) -> onnx.GraphProto:
    return helper.make_graph(list(nodes), "g", [], [], **parts)


def sparse() -> onnx.SparseTensorProto:
    indices = numpy_helper.from_array(np.array([0, 1], dtype=np.int64), "i")
    return helper.make_sparse_tensor(elsewhere(), indices, [4])


def in_training() -> ModelProto:
    model = model_of(graph_of())
    model.training_info.add().algorithm.initializer.append(elsewhere())
    return model


def unmarked() -> ModelProto:
    tensor = elsewhere()
    tensor.ClearField("data_location")
    return model_of(graph_of(initializer=[tensor]))


def nowhere() -> ModelProto:
    tensor = elsewhere()
    tensor.ClearField("external_data")
    return model_of(graph_of(initializer=[tensor]))


def with_function(domain: str) -> ModelProto:
    model = model_of(graph_of())
    opsets = [helper.make_opsetid("", 18)]
    function = helper.make_function(domain, "F", [], ["c"], [constant(elsewhere())], opsets)
    model.functions.append(function)
    return model


def unknown_field() -> ModelProto:
    """What a newer ONNX may say, a runtime heed and this reader not see."""
    model = model_of(graph_of())
    model.MergeFromString(b"\xf2\x07\x01x")
    return model


def branch() -> onnx.GraphProto:
    return helper.make_graph([constant(elsewhere())], "branch", [], [])


REACHING_OUT: dict[str, Callable[[], ModelProto]] = {
    "initializer": lambda: model_of(graph_of(initializer=[elsewhere()])),
    "initializer-in-memory": lambda: model_of(
        graph_of(initializer=[elsewhere(location="*/_ORT_MEM_ADDR_/*")])
    ),
    "initializer-unmarked": unmarked,
    "initializer-nowhere": nowhere,
    "sparse-initializer": lambda: model_of(graph_of(sparse_initializer=[sparse()])),
    "attribute": lambda: model_of(graph_of(constant(elsewhere()))),
    "attribute-of-tensors": lambda: with_attribute(values=[elsewhere("a"), elsewhere("b")]),
    "attribute-sparse": lambda: with_attribute(value=sparse()),
    "attribute-of-sparse": lambda: with_attribute(values=[sparse()]),
    "subgraph": lambda: with_attribute(then_branch=branch()),
    "subgraphs": lambda: with_attribute(bodies=[branch()]),
    "subgraph-of-a-subgraph": lambda: with_attribute(
        body=graph_of(helper.make_node("If", ["x"], ["y"], then_branch=branch()))
    ),
    "function": lambda: with_function("mine"),
    "standard-function": lambda: with_function(""),
    "training": in_training,
    "custom-operator": lambda: model_of(graph_of(helper.make_node("Steal", ["x"], ["y"]))),
    "custom-domain": lambda: model_of(
        graph_of(helper.make_node("Relu", ["x"], ["y"], domain="mine"))
    ),
    "runtime's-domain": lambda: model_of(
        graph_of(helper.make_node("EPContext", ["x"], ["y"], domain="com.microsoft"))
    ),
    "declared-domain": lambda: model_of(graph_of(), "mine"),
    "unknown-field": unknown_field,
}


@pytest.mark.parametrize("make", REACHING_OUT.values(), ids=REACHING_OUT)
def test_what_reaches_out_of_the_file_is_refused(
    tmp_path: Path, make: Callable[[], ModelProto]
) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(make().SerializeToString())
    with refused(BundleError, path, hint="sgraf-deploy export --force") as found:
        check_graph(path)
    assert found.error.__cause__ is None  # it is a graph, and was looked into
    assert found.error.got


def test_a_name_in_the_graph_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    model = model_of(graph_of(initializer=[elsewhere("\x1b[2J", location="\x1b]0;x\x07")]))
    path.write_bytes(model.SerializeToString())
    with refused(BundleError, path) as found:
        check_graph(path)
    assert str(found.error).isprintable()


@pytest.mark.parametrize("suffix", [".ort", ".json", ".onnxtxt", ""])
def test_a_graph_under_another_formats_name_is_refused(
    exported: Bundle, tmp_path: Path, suffix: str
) -> None:
    path = Path(shutil.copy(exported.path / GRAPH, tmp_path / f"scorer{suffix}"))
    with refused(BundleError, path, expected="*.onnx"):
        check_graph(path)


def test_a_file_that_is_no_graph_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    path.write_bytes(b"no graph at all")
    with refused(BundleError, path, "ONNX") as found:
        check_graph(path)
    assert isinstance(found.error.got, DecodeError)


def test_what_is_exported_is_whole_by_itself(exported: Bundle, exported_fp8: Bundle) -> None:
    for bundle in (exported, exported_fp8):
        for ref in bundle.manifest.graphs:
            check_graph(bundle.path / ref.file)


def test_attributes_of_every_kind_are_looked_into() -> None:
    kinds = {field.name for field in AttributeProto.DESCRIPTOR.fields if field.message_type}
    seen = {"t", "tensors", "sparse_tensor", "sparse_tensors", "g", "graphs"}
    assert kinds == seen | {"tp", "type_protos"}, "a new kind needs a case above"


@pytest.fixture
def split(exported: Bundle, tmp_path: Path) -> Bundle:
    """A bundle that scores as before, from a graph whose weights lie where no hash is taken."""
    folder = shutil.copytree(exported.path, tmp_path / "split.sgraf")
    for name in ("scorer", "pair_scorer"):
        for precision in ("fp32", "fp16"):
            file = f"sgr/{precision}/{name}.onnx"
            model = onnx.load(folder / file)
            onnx.save(
                model,
                folder / file,
                save_as_external_data=True,
                location=f"{name}.bin",
                size_threshold=256,
            )
            replace_file(folder, file, (folder / file).read_bytes())
            assert (folder / f"sgr/{precision}/{name}.bin").stat().st_size > 0
    return Bundle.open(folder)


@pytest.mark.parametrize("engine", ["native", "ort"])
def test_an_engine_on_the_cpu_refuses_weights_that_are_not_hashed(
    split: Bundle, engine: str
) -> None:
    if unavailable(engine) is not None:
        pytest.skip(f"engine {engine} is not available here")
    with refused(BundleError, got=naming("'scorer.bin'")):
        load(split, engine=engine)


def test_an_engine_on_a_gpu_refuses_weights_that_are_not_hashed(
    split: Bundle, tmp_path: Path
) -> None:
    world = TrtWorld(split, tmp_path / "engines")
    with refused(BundleError, got=naming("'scorer.bin'")):
        world.engine().open("sgr", "scorer")


def test_nothing_is_built_of_weights_that_are_not_hashed(split: Bundle) -> None:
    with refused(BundleError, got=naming("'scorer.bin'")):
        list_builds(split, CompileOptions())


def test_verify_refuses_weights_that_are_not_hashed(split: Bundle) -> None:
    precisions, graphs = ("fp32", "fp16"), ("scorer", "pair_scorer")
    files = [f"sgr/{each}/{name}.onnx" for each in precisions for name in graphs]
    with refused(BundleError, split.path, *files, got=naming("'scorer.bin'")):
        verify_bundle(split)


@pytest.mark.parametrize("options", [(), ("--json",)], ids=["table", "json"])
def test_inspect_refuses_weights_that_are_not_hashed(split: Bundle, options: tuple[str]) -> None:
    result = run("inspect", split.path, *options)
    assert result.exit_code == 2
    assert "scorer.bin" in error_line(result)
