"""Rewrites graphs for TensorRT so that every FP16 product sums in FP32.

An ONNX product of float16 operands does not say what it sums in, and TensorRT takes the faster
accumulator. Its documentation ("Control of Computational Precision") says how to ask for float32:
cast the operands to float32, multiply, cast the result back. The builder fuses that into one
product of float16 operands with a float32 accumulator, if nothing else reads the casts. If casts
are shared, or the last one is missing, it becomes a product in float32.

The bundle's own graphs stay as they are: ONNX Runtime does not fuse these casts, and its float16
products sum in float32 anyway.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import onnx
from onnx import TensorProto, helper

if TYPE_CHECKING:
    import tensorrt as api

SUMS_IN_FP32 = "HALF+FLOAT"
"""The type of a product of float16 operands that sums in float32."""


def sum_in_fp32(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph in which every float16 product, but those of FP8 operands, sums in float32.

    It computes what the given graph does, to the rounding of a float16.
    """
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    halves = _halves(model)
    quantized = _dequantized(model)
    nodes: list[onnx.NodeProto] = []
    for node in changed.graph.node:
        inputs = set(node.input)
        if node.op_type == "MatMul" and inputs <= halves and not inputs & quantized:
            nodes.extend(_with_casts(node))
        else:
            nodes.append(node)
    del changed.graph.node[:]
    changed.graph.node.extend(nodes)
    return changed


def count_products(trt: Any, network: api.INetworkDefinition) -> dict[str, int]:
    """Count the matrix products by data type, as TensorRT builds them.

    The types are FLOAT, HALF, SUMS_IN_FP32 and FP8. The network is strongly typed: a product has
    the type of its operands, and if these are dequantized, the type that they had before. Casts
    that TensorRT fuses into a product decide its type, too.
    """
    made: dict[str, Any] = {}
    readers: Counter[str] = Counter()
    layers: list[Any] = [network.get_layer(index) for index in range(network.num_layers)]
    cast_back: set[str] = set()
    for layer in layers:
        operands = [layer.get_input(index) for index in range(layer.num_inputs)]
        names = [operand.name for operand in operands if operand is not None]
        if layer.type != trt.LayerType.SHAPE:  # A shape layer reads no values.
            readers.update(names)
        made |= {layer.get_output(index).name: layer for index in range(layer.num_outputs)}
        if layer.type == trt.LayerType.CAST and layer.get_output(0).dtype == trt.DataType.HALF:
            cast_back.update(names)
    counts: Counter[str] = Counter()
    for layer in layers:
        if layer.type == trt.LayerType.MATRIX_MULTIPLY:
            result = layer.get_output(0)
            sources = [_source(trt, layer.get_input(index), made, readers) for index in (0, 1)]
            fused = result.name in cast_back and readers[result.name] == 1
            counts[_kind(trt, sources, result.dtype.name, fused)] += 1
    return dict(sorted(counts.items()))


def _kind(trt: Any, sources: list[Any], result: str, cast_back: bool) -> str:
    """A product's type; `sources` are the layers that widened its operands, or None for each."""
    kinds = {
        None if source is None else (source.type, source.get_input(0).dtype) for source in sources
    }
    if kinds == {(trt.LayerType.DEQUANTIZE, trt.DataType.FP8)}:
        return "FP8"
    if kinds == {(trt.LayerType.CAST, trt.DataType.HALF)} and result == "FLOAT" and cast_back:
        return SUMS_IN_FP32
    return result


def _source(trt: Any, operand: Any, made: dict[str, Any], readers: Counter[str]) -> Any:
    """The cast or dequantization behind an operand that nothing else reads, or None."""
    while operand.name in made and readers[operand.name] == 1:
        layer = made[operand.name]
        if layer.type in (trt.LayerType.CAST, trt.LayerType.DEQUANTIZE):
            return layer
        if layer.type != trt.LayerType.SHUFFLE:
            return None
        operand = layer.get_input(0)
    return None


def _halves(model: onnx.ModelProto) -> set[str]:
    """The names of a graph's float16 values."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    half = TensorProto.FLOAT16
    values = (*inferred.input, *inferred.output, *inferred.value_info)
    found = {value.name for value in values if value.type.tensor_type.elem_type == half}
    return found | {tensor.name for tensor in inferred.initializer if tensor.data_type == half}


def _dequantized(model: onnx.ModelProto) -> set[str]:
    """The names of a graph's dequantized values."""
    return {
        value
        for node in model.graph.node
        if node.op_type == "DequantizeLinear"
        for value in node.output
    }


def _with_casts(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """A product between casts that nothing else reads."""
    (result,) = node.output
    wide = []
    for side, operand in zip(("left", "right"), node.input, strict=True):
        wide.append(f"{result}.{side}")
        yield helper.make_node("Cast", [operand], wide[-1:], name=wide[-1], to=TensorProto.FLOAT)
    total = f"{result}.sum"
    yield helper.make_node("MatMul", wide, [total], name=node.name)
    back = f"{result}.half"
    yield helper.make_node("Cast", [total], [result], name=back, to=TensorProto.FLOAT16)
