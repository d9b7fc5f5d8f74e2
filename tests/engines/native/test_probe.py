"""A graph that computes something else than engine native is refused, whatever was changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from support.changed_bundles import Change, changed
from support.older_bundles import without_gram_for_pairs
from support.refusals import holds, naming, refused

from sgraf_deploy.bundle.bundle import Bundle, write_manifest
from sgraf_deploy.config import GraphName
from sgraf_deploy.engines.native import library
from sgraf_deploy.errors import BundleError
from sgraf_deploy.runtime import load

pytestmark = pytest.mark.skipif(
    not library.LIBRARY.exists(), reason="engine native was not compiled"
)

SCORERS: tuple[GraphName, ...] = ("scorer", "pair_scorer")

HINT = ["sgraf-deploy export --force", "--engine ort"]


def append(op: str, value: float) -> Change:
    """One more operation on the logits."""

    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.output[:] = ["before" if name == "logits" else name for name in node.output]
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), "more"))
        model.graph.node.append(helper.make_node(op, ["before", "more"], ["logits"]))

    return change


def set_slope(model: onnx.ModelProto) -> None:
    (node,) = (node for node in model.graph.node if node.op_type == "LeakyRelu")
    node.attribute[0].f = 0.11


def set_constant(name: str, value: float) -> Change:
    def change(model: onnx.ModelProto) -> None:
        (tensor,) = (each for each in model.graph.initializer if each.name == name)
        tensor.CopyFrom(numpy_helper.from_array(np.array(value, dtype=np.float32), name))

    return change


def read_instead(one: str, other: str) -> Change:
    """Operations that took a weight take another of its size, and the other way round."""
    exchange = {one: other, other: one}

    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = [exchange.get(name, name) for name in node.input]

    return change


def exchange_values(one: str, other: str) -> Change:
    """Two weights change their names: what one reads from this graph is changed alike."""
    exchange = {one: other, other: one}

    def change(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            tensor.name = exchange.get(tensor.name, tensor.name)

    return change


def skip_a_step(model: onnx.ModelProto) -> None:
    """SGR's first step is computed, and the second begins where the first began."""
    relus = [node for node in model.graph.node if node.op_type == "Relu"]
    first = next(node for node in model.graph.node if "reasoning.0.update.weight" in node.input)
    (relu,) = (node for node in relus if node.input[0] == first.output[0])
    (view,) = (node for node in model.graph.node if relu.output[0] in node.input)
    (nodes,) = (node.output[0] for node in model.graph.node if is_nodes(node, model))
    for node in model.graph.node:
        node.input[:] = [nodes if name == view.output[0] else name for name in node.input]


def is_nodes(node: onnx.NodeProto, model: onnx.ModelProto) -> bool:
    """Whether a node puts a pair's global alignment and its local ones side by side."""
    axis = [each.i for each in node.attribute if each.name == "axis"]
    return node.op_type == "Concat" and axis == [2]


def other_operation(op: str, instead: str) -> Change:
    def change(model: onnx.ModelProto) -> None:
        node = [node for node in model.graph.node if node.op_type == op][-1]
        node.op_type = instead
        del node.attribute[:]

    return change


CHANGES: dict[str, tuple[str, Change]] = {
    "added": ("sgr", append("Add", 1e-3)),
    "multiplied": ("saf", append("Mul", 1.001)),
    "slope": ("sgr", set_slope),
    "slope of SAF": ("saf", set_slope),
    "smoothing": ("sgr", set_constant("attention_smoothing", 8.9)),
    "smoothing of SAF": ("saf", set_constant("attention_smoothing", 9.1)),
    "epsilon": ("sgr", set_constant("epsilon", 1e-7)),
    "no epsilon": ("saf", set_constant("epsilon", 0.0)),
    "padding": ("sgr", set_constant("masked", 0.0)),
    "a step less": ("sgr", skip_a_step),
    "steps swapped": ("sgr", read_instead("reasoning.0.key.weight", "reasoning.1.key.weight")),
    "biases swapped": ("saf", read_instead("local_alignment.bias", "global_alignment.bias")),
    "values swapped": ("sgr", exchange_values("reasoning.0.key.bias", "reasoning.2.key.bias")),
    "no relu": ("sgr", other_operation("Relu", "Identity")),
    "no gate": ("saf", other_operation("Sigmoid", "Tanh")),
}


@pytest.mark.parametrize("graph", SCORERS)
@pytest.mark.parametrize(("member", "change"), CHANGES.values(), ids=CHANGES)
def test_a_changed_graph_is_refused(
    exported: Bundle, tmp_path: Path, member: str, change: Change, graph: GraphName
) -> None:
    bundle = changed(exported, tmp_path / "changed.sgraf", member, graph, change)
    with refused(BundleError, expected=naming("native"), got=naming(), hint=HINT) as caught:
        load(bundle, engine="native")
    # Of weights that the scorer's graph alone has exchanged, the other graph differs.
    paths = [bundle.graph_path(member, each, "fp32") for each in SCORERS]
    assert any(holds(caught.error.what, path) for path in paths)


@pytest.mark.parametrize("graph", SCORERS)
@pytest.mark.parametrize("age", ["first", "pairs without"])
def test_a_changed_graph_of_an_older_bundle_is_refused(
    exported: Bundle, tmp_path: Path, age: str, graph: GraphName
) -> None:
    if age == "first":
        older = Bundle.open(Path(__file__).parents[2] / "fixtures" / "v1.sgraf")
    else:
        older = without_gram_for_pairs(exported, tmp_path / "older.sgraf")
    load(older, engine="native").close()
    member = next(iter(older.manifest.members))
    bundle = changed(older, tmp_path / "changed.sgraf", member, graph, append("Add", 1e-3))
    path = bundle.graph_path(member, graph, "fp32")
    with refused(BundleError, path, expected=naming("native"), got=naming("0.001"), hint=HINT):
        load(bundle, engine="native")


def test_a_bundle_of_other_steps_than_its_graphs_is_refused(
    exported: Bundle, tmp_path: Path
) -> None:
    bundle = changed(exported, tmp_path / "changed.sgraf", "sgr", "scorer", lambda model: None)
    sgr = bundle.manifest.members["sgr"]
    fewer = replace(sgr, config=replace(sgr.config, sgr_steps=sgr.config.sgr_steps - 1))
    members = {**bundle.manifest.members, "sgr": fewer}
    write_manifest(bundle.path, replace(bundle.manifest, members=members, explain={}))
    path = bundle.graph_path("sgr", "scorer", "fp32")
    with refused(BundleError, path, expected=naming("native"), got=naming(), hint=HINT):
        load(Bundle.open(bundle.path), engine="native")


def cast(model: onnx.ModelProto) -> None:
    """Logits of another shape."""
    append("Add", 0.0)(model)
    model.graph.node[-1].op_type = "Reshape"
    model.graph.initializer[-1].CopyFrom(numpy_helper.from_array(np.array([-1, 1]), "more"))


def take_more(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, [1]))


def break_shapes(model: onnx.ModelProto) -> None:
    """It opens, and cannot be run."""
    append("Add", 0.0)(model)
    model.graph.initializer[-1].CopyFrom(
        numpy_helper.from_array(np.zeros((977, 983), np.float32), "more")
    )


@pytest.mark.parametrize("change", [cast, take_more, break_shapes], ids=lambda x: x.__name__)
def test_a_graph_of_another_form_is_refused(
    exported: Bundle, tmp_path: Path, change: Change
) -> None:
    bundle = changed(exported, tmp_path / "changed.sgraf", "saf", "scorer", change)
    with refused(BundleError, bundle.graph_path("saf", "scorer", "fp32"), got=naming("float32")):
        load(bundle, engine="native")
