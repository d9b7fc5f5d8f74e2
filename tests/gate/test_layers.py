"""Graphs below fp32 beside the same nodes in float32: the node that departs is found and named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.refusals import refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS, Precision
from sgraf_deploy.errors import InputError
from sgraf_deploy.export.verify import expected_values
from sgraf_deploy.gate.executors import evaluate_nodes
from sgraf_deploy.gate.layers import Layer, LayerReport, compare_layers, gate_feed, widened
from sgraf_deploy.gate.values import Arrays

BOTH: tuple[Precision, ...] = ("fp16", "fp32")


def reports(bundle: Bundle) -> dict[str, LayerReport]:
    found = compare_layers(bundle, *expected_values(bundle))
    return {f"{one.member} {one.precision} {one.graph}": one for one in found}


def test_every_graph_below_fp32_is_compared_node_by_node(exported: Bundle) -> None:
    found = reports(exported)
    assert list(found) == [f"{m} fp16 {g}" for m in exported.manifest.members for g in GRAPHS]
    for report in found.values():
        member, graph = report.member, report.graph
        model = onnx.load(exported.graph_path(member, graph, "fp16"))
        places = [layer.place for layer in report.layers]
        assert report.nodes == len(model.graph.node) >= len(set(places)) > report.nodes / 2
        assert places == sorted(places)
        assert {value.name for value in model.graph.output} <= {x.name for x in report.layers}
        for layer in report.layers:
            node = model.graph.node[layer.place - 1]
            assert layer.name in node.output
            assert layer.op == node.op_type
        # Half precision rounds to 2⁻¹¹: something differs, and nothing by a multiple of itself.
        assert 0 < report.worst[0].share < 1
        assert report.first(0.0) is not None
        assert report.first(1.0) is None


def test_widened_graphs_compute_what_the_fp32_graphs_do(exported: Bundle) -> None:
    """Not by the same nodes: fp32 uses products of regions that fp16 does not have."""
    inputs, references = expected_values(exported)
    for member in exported.manifest.members:
        feed = gate_feed(inputs, references[member])
        for graph in GRAPHS:
            paths = [exported.graph_path(member, graph, x) for x in BOTH]
            model, full = map(onnx.load, paths)
            found = evaluate_nodes(widened(model, full), paths[0], feed)
            for value in model.graph.output:
                expected = getattr(references[member], value.name)
                if graph == "pair_scorer":
                    expected = expected.ravel()
                assert found[value.name].dtype == np.float32
                np.testing.assert_allclose(found[value.name], expected, rtol=1e-4, atol=1e-5)


def test_the_first_node_of_wrong_weights_is_named(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A weight of half precision is scaled: what reads it first is the first beyond the bound."""
    member, graph = next(iter(exported.manifest.members)), GRAPHS[0]
    path = exported.graph_path(member, graph, "fp16")
    model = onnx.load(path)
    tensor = max(
        (x for x in model.graph.initializer if x.name.endswith(".float16")),
        key=lambda x: int(np.prod(x.dims)),
    )
    reader = next(node for node in model.graph.node if tensor.name in node.input)

    def disturbed(model: onnx.ModelProto, file: Path, feed: Arrays) -> Arrays:
        for found in model.graph.initializer:
            if file == path and found.name == tensor.name:
                array = numpy_helper.to_array(found)
                if array.dtype == np.float16:
                    found.CopyFrom(numpy_helper.from_array(array * np.float16(1.5), found.name))
        return evaluate_nodes(model, file, feed)

    monkeypatch.setattr("sgraf_deploy.gate.layers.evaluate_nodes", disturbed)
    first = reports(exported)[f"{member} fp16 {graph}"].first(0.1)
    assert first is not None
    assert first.name == reader.output[0]


def test_the_worst_are_ten_and_a_constant_that_moves_is_worst() -> None:
    moved = Layer(30, "c", "Add", largest=1e-9, deviation=0.0)
    rest = [Layer(n, f"n{n}", "Mul", largest=n / 100, deviation=1.0) for n in range(20)]
    report = LayerReport("sgr", "fp16", "scorer", 40, (*rest, moved))
    assert [layer.name for layer in report.worst] == ["c", *(f"n{n}" for n in range(19, 10, -1))]
    assert Layer(1, "same", "Add", largest=0.0, deviation=0.0).share == 0.0
    nan = Layer(1, "nan", "Add", largest=float("nan"), deviation=1.0)
    assert LayerReport("sgr", "fp16", "scorer", 1, (nan,)).first(0.5) == nan


def test_a_bundle_of_fp32_alone_has_nothing_to_compare(three: Bundle) -> None:
    with refused(InputError, "--layers", got="fp32", hint="--precision both"):
        reports(three)
