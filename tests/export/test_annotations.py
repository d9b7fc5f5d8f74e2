"""What graphs say about themselves: metadata, documentation, and the shape of every value."""

from __future__ import annotations

import os
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import onnx
import onnxruntime
import pytest
from support.loops import all_of
from support.random_weights import random_weights
from support.small_models import VARIANTS

from sgraf_deploy import __version__
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import (
    GRAPHS,
    PRECISIONS,
    GraphName,
    Precision,
    combined_signature,
    signature,
)
from sgraf_deploy.export.annotations import PREFIX, annotate
from sgraf_deploy.export.graphs import build_combined, build_graph
from sgraf_deploy.export.shapes import AXES, named_shapes
from sgraf_deploy.model.checkpoint import Checkpoint
from sgraf_deploy.model.folding import fold

SOME = ("sgr", "saf", "sgr-odd-sizes", "saf-one-region", "saf-2-layers", "saf-unnormalised")

NAMES = {*AXES, "1 + words", "captions*words", "pairs*words"}


def checkpoint_of(variant: str) -> Checkpoint:
    config = VARIANTS[variant]
    digest = sha256(variant.encode()).hexdigest()
    weights = random_weights(config, 3)
    return Checkpoint(config, weights, 17, None, None, {}, sha256=digest)


def annotated(variant: str, graph: GraphName, precision: Precision) -> onnx.ModelProto:
    checkpoint = checkpoint_of(variant)
    model = build_graph(fold(checkpoint.config, checkpoint.weights), graph, precision)
    annotate(model, signature(graph, checkpoint.config, precision), precision, {"": checkpoint})
    return model


def annotated_combined(precision: Precision) -> onnx.ModelProto:
    checkpoints = {name: checkpoint_of(name) for name in ("sgr", "saf")}
    folded = {name: fold(each.config, each.weights) for name, each in checkpoints.items()}
    model = build_combined(folded, precision)
    prefixed = {f"{name}.": each for name, each in checkpoints.items()}
    annotate(model, combined_signature(VARIANTS["sgr"]), precision, prefixed)
    return model


def without_shape(model: onnx.ModelProto) -> list[str]:
    """The values that nodes make of which an axis is neither a number nor named, or all are."""
    values = [*model.graph.value_info, *model.graph.output]
    known = {
        value.name
        for value in values
        if value.type.tensor_type.HasField("shape")
        and all(axis.WhichOneof("value") for axis in value.type.tensor_type.shape.dim)
    }
    made = [name for node in model.graph.node for name in node.output if name]
    assert len(values) == len({value.name for value in values}) == len(made)
    return [name for name in made if name not in known]


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert len(found) == len(model.metadata_props)
    assert all(key.startswith(PREFIX) for key in found)
    return {key.removeprefix(PREFIX): value for key, value in found.items()}


@all_of(SOME, GRAPHS, PRECISIONS)
def test_every_value_has_a_shape_of_numbers_and_names(
    variant: str, graph: GraphName, precision: Precision
) -> None:
    model = annotated(variant, graph, precision)

    assert without_shape(model) == []
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)


@all_of(PRECISIONS)
def test_so_has_every_value_of_a_combined_graph(precision: Precision) -> None:
    assert without_shape(annotated_combined(precision)) == []


def test_axes_have_the_names_that_the_interface_has() -> None:
    shapes = {
        value.name: [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in annotated("sgr", "scorer", "fp32").graph.value_info
    }
    config = VARIANTS["sgr"]

    def of(op: str) -> list[list[str | int]]:
        return [shape for name, shape in shapes.items() if name.partition("_")[0] == op]

    assert of("leakyrelu") == [["images", config.regions, "captions", "words"]]
    assert ["captions", "words"] in of("less")
    assert ["captions*words", config.embed] in of("reshape")
    assert of("range") == [["words"]]
    nodes = ["images", "captions", "1 + words", config.sim_dim]
    assert nodes in of("concat")
    assert ["images*captions*(1 + words)", config.sim_dim] in of("gemm")
    assert of("max") == [["captions", 1]]


def test_a_shape_that_a_runtime_finds_is_the_one_stated(tmp_path: Path) -> None:
    """ONNX Runtime merges what it infers with what is stated, and complains where they differ."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 2
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = annotated("sgr", "pair_scorer", "fp32")

    onnxruntime.InferenceSession(model.SerializeToString(), options)

    again = onnx.load(tmp_path / "optimised.onnx")
    stated, found = (
        {value.name: value.type for value in each.graph.value_info} for each in (model, again)
    )
    assert found
    assert all(stated[name] == kind for name, kind in found.items() if name in stated)


@pytest.mark.parametrize("size", [1009, 1013, 1020, 1031])
def test_a_dimension_that_is_one_of_the_sizes_tried_stays_a_number(size: int) -> None:
    """Axes are told by the primes that they are given: no model's dimension is mistaken for one."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 18]>
        graph (float[images,{size}] x) => (float[{size},images] y) {{
            a = Add (x, x)
            b = Transpose <perm = [1, 0]> (a)
            y = Add (b, b)
        }}"""
    )

    found = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in named_shapes(model)
    ]

    assert found == [["images", size], [size, "images"]]


@all_of(GRAPHS, ["fp32", "fp16"])
def test_a_graph_says_where_it_is_from(graph: GraphName, precision: Precision) -> None:
    model = annotated("saf", graph, precision)
    config = VARIANTS["saf"]

    said = metadata(model)

    assert said["graph"] == model.graph.name == graph
    assert (said["model"], said["precision"]) == ("SAF", precision)
    assert (said["version"], said["onnx_version"]) == (__version__, onnx.__version__)
    assert said["checkpoint_sha256"] == checkpoint_of("saf").sha256
    assert {name: said[name] for name in vars(config)} == {
        name: str(value) for name, value in vars(config).items()
    }
    assert (model.producer_name, model.producer_version) == ("sgraf-deploy", __version__)


def test_a_combined_graph_says_it_of_every_member() -> None:
    said = metadata(annotated_combined("fp32"))

    assert (said["graph"], said["model"], said["members"]) == ("combined", "SGRAF", "sgr saf")
    for name in ("sgr", "saf"):
        assert said[f"{name}.checkpoint_sha256"] == checkpoint_of(name).sha256
        assert said[f"{name}.sgr_steps"] == str(VARIANTS[name].sgr_steps)


@all_of(GRAPHS, ["fp32", "fp16"])
def test_inputs_and_outputs_say_what_they_are(graph: GraphName, precision: Precision) -> None:
    model = annotated("sgr", graph, precision)
    spec = signature(graph, VARIANTS["sgr"], precision)

    assert model.graph.doc_string
    for values, tensors in ((model.graph.input, spec.inputs), (model.graph.output, spec.outputs)):
        for value, tensor in zip(values, tensors, strict=True):
            assert ", ".join(map(str, tensor.axes)) in value.doc_string
            assert tensor.dtype in value.doc_string


def test_runtimes_read_the_metadata(combined: Bundle) -> None:
    session = onnxruntime.InferenceSession(combined.combined_path("fp32"))

    meta = session.get_modelmeta()

    assert meta.custom_metadata_map[f"{PREFIX}members"] == "sgr sgr-2 saf"
    assert meta.graph_name == "combined"


_EXPORT = """
import sys
from pathlib import Path
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
paths = [Path(path) for path in sys.argv[2:]]
print(export_bundle(paths, Path(sys.argv[1]), ExportOptions(combined=True)).bundle.sha256)
"""


def test_graphs_are_the_same_from_process_to_process(
    checkpoint_files: dict[str, Path], tmp_path: Path
) -> None:
    found = []
    for seed in ("1", "2"):
        target = tmp_path / f"{seed}.sgraf"
        subprocess.run(
            [sys.executable, "-c", _EXPORT, target, *checkpoint_files.values()],
            check=True,
            capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )
        graphs = sorted(target.rglob("*.onnx"))
        found.append({path.relative_to(target): path.read_bytes() for path in graphs})

    assert found[0] == found[1]
    assert len(found[0]) == 2 * 2 * len(GRAPHS) + 2 + 2
