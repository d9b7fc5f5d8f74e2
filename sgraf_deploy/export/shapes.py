"""Infers the shape of every value in a graph, with names for its dynamic axes."""

from __future__ import annotations

from collections.abc import Iterator

import onnx
from onnx import TensorProto, helper

AXES = ("images", "pairs", "captions", "words")

_SIZES = ((1009, 1013, 1019, 1021), (1031, 1033, 1039, 1049))
"""Primes that the axes are given, twice: what differs is dynamic, and of which primes it is made
says which axes they are. Their products with a model's dimensions do not exceed 64 bits."""

_LARGE = 1024
"""Elements of a tensor whose values no shape depends on."""

_INT32 = TensorProto.INT32

Shape = tuple[int, ...]


def named_shapes(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The type and shape of what every node of a graph makes, in order; for `value_info`.

    An axis is a number or a product of axes' names, as captions*words; 1 + words are the alignments
    of a caption's words and the global one. What is nothing of this kind has no name. The graph's
    outputs are left out. ONNX's own inference cannot name what a reshape makes: it is run with
    sizes in place of names.
    """
    once, again = (_inferred(model, dict(zip(AXES, sizes, strict=True))) for sizes in _SIZES)
    outputs = {value.name for value in model.graph.output}
    made = [name for node in model.graph.node for name in node.output if name and name in once]
    return [
        helper.make_tensor_value_info(
            name,
            once[name][0],
            [_axis(sizes) for sizes in zip(once[name][1], again[name][1], strict=True)],
        )
        for name in made
        if name not in outputs
    ]


def _inferred(model: onnx.ModelProto, sizes: dict[str, int]) -> dict[str, tuple[int, Shape]]:
    """Element type and shape of every value whose shape is known once the axes have sizes."""
    sized = onnx.ModelProto()
    sized.CopyFrom(_without_weights(model))
    for value in (*sized.graph.input, *sized.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param in sizes:  # Not 1 + words, which follows.
                axis.dim_value = sizes[axis.dim_param]
    for node in sized.graph.node:
        if node.op_type == "Range":  # It counts words, and has no shape to ONNX until it is run.
            made = helper.make_tensor_value_info(node.output[0], _INT32, [sizes["words"]])
            sized.graph.value_info.append(made)
    graph = onnx.shape_inference.infer_shapes(sized, strict_mode=True, data_prop=True).graph
    found = {}
    for value in graph.value_info:
        tensor = value.type.tensor_type
        axes = tensor.shape.dim
        if tensor.HasField("shape") and all(axis.HasField("dim_value") for axis in axes):
            shape = tuple(axis.dim_value for axis in axes)
            found[value.name] = (tensor.elem_type, shape)
    return found


def _without_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph with the shapes alone of its large tensors: inference copies what it is given."""
    graph = onnx.GraphProto(name=model.graph.name)
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.initializer.extend(_weightless(model))
    return onnx.ModelProto(
        ir_version=model.ir_version, opset_import=model.opset_import, graph=graph
    )


def _weightless(model: onnx.ModelProto) -> Iterator[TensorProto]:
    for tensor in model.graph.initializer:
        if len(tensor.raw_data) < _LARGE:
            yield tensor
        else:
            yield TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)


def _axis(sizes: tuple[int, int]) -> int | str | None:
    """What an axis is that had these sizes."""
    if sizes[0] == sizes[1]:
        return sizes[0]
    name, again = (_product(size, primes) for size, primes in zip(sizes, _SIZES, strict=True))
    return name if name == again else None


def _product(size: int, primes: tuple[int, ...]) -> str:
    """The names of axes, and the number, that a size is a product of."""
    factors = dict(zip(AXES, primes, strict=True))
    factors["(1 + words)"] = factors["words"] + 1
    names = []
    for name, factor in factors.items():
        if size % factor == 0:
            names.append(name)
            size //= factor
    number = [str(size)] if size > 1 or not names else []
    return "*".join([*names, *number]) if number or len(names) > 1 else names[0].strip("()")
