"""The ONNX graphs in FP8: what they have beyond those in FP16."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, numpy_helper
from support.loops import all_of
from support.random_weights import random_weights
from support.small_models import VARIANTS

from sgraf_deploy.config import GRAPHS, GraphName
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.model.folding import fold


def is_fp8(node: NodeProto) -> bool:
    return node.op_type == "MatMul" and "dequantizelinear" in node.input[0]


@all_of(["sgr", "saf", "saf-unnormalised"], GRAPHS)
def test_fp8_is_fp16_but_for_the_local_projection(variant: str, graph: GraphName) -> None:
    """Both of its operands are in E4M3, scaled by powers of two, and its result is in float16."""
    config = VARIANTS[variant]
    weights = fold(config, random_weights(config, 3))
    half, model = (build_graph(weights, graph, precision) for precision in ("fp16", "fp8"))
    products = [node for node in model.graph.node if is_fp8(node)]
    if "scorer" not in graph:
        assert model.graph == half.graph
        return
    added = Counter(node.op_type for node in model.graph.node)
    added.subtract(node.op_type for node in half.graph.node)
    assert {op: count for op, count in added.items() if count} == {
        "QuantizeLinear": 1,
        "DequantizeLinear": 2,
        "Cast": -1,
    }
    (product,) = products
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in inferred.value_info}
    kinds |= {tensor.name: tensor.data_type for tensor in inferred.initializer}
    producers = {node.output[0]: node for node in model.graph.node}
    for value in product.input:
        codes, scales = producers[value].input[:2]
        assert kinds[codes] == TensorProto.FLOAT8E4M3FN
        assert kinds[scales] == kinds[value] == TensorProto.FLOAT16
        (stored,) = (t for t in model.graph.initializer if t.name == scales)
        assert set(np.frexp(numpy_helper.to_array(stored))[0].ravel().tolist()) == {0.5}
    assert producers[product.input[1]].input[0] == "local_alignment.weight.e4m3"
