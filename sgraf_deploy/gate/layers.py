"""Where reduced precision departs: the values of a graph node by node, beside float32's.

The graph is executed twice in onnx's evaluator: as it is, and with everything in float32, its
weights before they were rounded included. Both have the same nodes, which are compared in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS, GraphName, Precision
from sgraf_deploy.errors import InputError
from sgraf_deploy.gate.executors import evaluate_nodes
from sgraf_deploy.gate.inputs import GateInputs, GateReference
from sgraf_deploy.gate.values import Arrays

DEFAULT_BOUND = 0.02
"""The share of a node's standard deviation beyond which it is named."""

WORST = 10
"""How many of the worst nodes a report has."""

ROUNDED = (".float16", ".e4m3")
"""What follows the name of a weight that was rounded."""


@dataclass(frozen=True)
class Layer:
    """One output of a node: its largest difference from float32, and float32's deviation.

    `place` counts the graph's nodes from 1.
    """

    place: int
    name: str
    op: str
    largest: float
    deviation: float

    @property
    def share(self) -> float:
        """The difference as a share of the standard deviation; infinite if that is zero."""
        if self.largest == 0:
            return 0.0
        return self.largest / self.deviation if self.deviation > 0 else float("inf")


@dataclass(frozen=True)
class LayerReport:
    """The compared nodes of one graph, in the order in which it computes them."""

    member: str
    precision: Precision
    graph: GraphName
    nodes: int
    layers: tuple[Layer, ...]

    def first(self, bound: float) -> Layer | None:
        """The first node whose share exceeds the bound, which may be what disturbs the rest."""
        return next((layer for layer in self.layers if not layer.share <= bound), None)

    @property
    def worst(self) -> list[Layer]:
        """The nodes of the largest shares."""
        return sorted(self.layers, key=lambda layer: -layer.share)[:WORST]


def compare_layers(
    bundle: Bundle, inputs: GateInputs, references: Mapping[str, GateReference]
) -> Iterator[LayerReport]:
    """Compare every graph below fp32 of a bundle, node by node, on the gate's inputs.

    Every graph is given the reference's embeddings, so that each is judged by itself. Raises
    InputError for a bundle without such graphs, or without the fp32 ones that hold the weights.
    """
    precisions = bundle.manifest.precisions
    below: list[Precision] = [precision for precision in precisions if precision != "fp32"]
    if not below or "fp32" not in precisions:
        raise InputError(
            "--layers",
            expected="a bundle with fp32 graphs and others",
            got=" + ".join(precisions),
            hint="export it with `--precision both`",
        )
    for member in bundle.manifest.members:
        feed = gate_feed(inputs, references[member])
        for precision in below:
            for graph in GRAPHS:
                path = bundle.graph_path(member, graph, precision)
                full = bundle.graph_path(member, graph, "fp32")
                nodes, layers = _compare(path, full, feed)
                yield LayerReport(member, precision, graph, nodes, layers)


def _compare(path: Path, full: Path, feed: Arrays) -> tuple[int, tuple[Layer, ...]]:
    model = onnx.load(path)
    rounded, exact = (
        evaluate_nodes(graph, path, feed) for graph in (model, widened(model, onnx.load(full)))
    )
    layers = [
        layer
        for place, node in enumerate(model.graph.node, start=1)
        for name in node.output
        if (layer := _layer(place, name, node.op_type, rounded[name], exact[name])) is not None
    ]
    return len(model.graph.node), tuple(layers)


def _layer(
    place: int, name: str, op: str, rounded: NDArray[Any], exact: NDArray[Any]
) -> Layer | None:
    """The comparison of one output; None for sizes, indices and other values that are no floats."""
    if exact.dtype.kind != "f" or exact.size == 0:
        return None
    one, other = rounded.astype(np.float64), exact.astype(np.float64)
    # Both may have overflowed alike, where a later node takes the value away.
    difference = np.where(one == other, 0.0, np.abs(one - other))
    return Layer(place, name, op, float(difference.max()), float(other.std()))


def widened(model: onnx.ModelProto, full: onnx.ModelProto) -> onnx.ModelProto:
    """The same nodes in float32, with the weights of the fp32 graph `full`."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    for node in model.graph.node:
        if node.op_type == "Cast":
            for attribute in node.attribute:
                if attribute.i == TensorProto.FLOAT16:
                    attribute.i = TensorProto.FLOAT
        elif node.op_type in {"QuantizeLinear", "DequantizeLinear"}:
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    _restore_weights(model, {tensor.name: tensor for tensor in full.graph.initializer})
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def _restore_weights(model: onnx.ModelProto, weights: Mapping[str, onnx.TensorProto]) -> None:
    """Put fp32's weights in the place of rounded ones; constants are few and exact in float16."""
    for tensor in model.graph.initializer:
        name = next((tensor.name.removesuffix(x) for x in ROUNDED if tensor.name.endswith(x)), "")
        if name in weights or tensor.data_type == TensorProto.FLOAT16:
            array = numpy_helper.to_array(weights.get(name, tensor)).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def gate_feed(inputs: GateInputs, reference: GateReference) -> Arrays:
    """The inputs of all four graphs, by name; every image with every caption as pairs."""
    images, captions = len(inputs.regions), len(inputs.lengths)
    embeddings = ("region_embeddings", "image_global", "word_embeddings", "text_global")
    return {
        "regions": inputs.regions,
        "token_ids": inputs.token_ids,
        "lengths": inputs.lengths,
        "image_index": np.repeat(np.arange(images, dtype=np.int32), captions),
        "caption_index": np.tile(np.arange(captions, dtype=np.int32), images),
        **{name: getattr(reference, name) for name in embeddings},
    }
