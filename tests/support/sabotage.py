"""Damage to exported graphs, each kind an edit of the loaded model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper
from support.small_models import SGR

from sgraf_deploy.config import GraphName

Edit = Callable[[ModelProto], None]


def weight(model: ModelProto, name: str) -> tuple[int, NDArray[Any]]:
    """The place and the values of an initialiser, of its half twin in a half graph."""
    names = [tensor.name for tensor in model.graph.initializer]
    place = names.index(name if name in names else f"{name}.float16")
    return place, numpy_helper.to_array(model.graph.initializer[place]).copy()


def put(model: ModelProto, place: int, array: NDArray[Any]) -> None:
    tensor = model.graph.initializer[place]
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def flip(name: str) -> Edit:
    """Turn the sign of the largest element of one weight."""

    def edit(model: ModelProto) -> None:
        place, array = weight(model, name)
        array.flat[np.abs(array).argmax()] *= -1
        put(model, place, array)

    return edit


def negate(name: str) -> Edit:
    """Turn the sign of a whole weight: some of a head's inputs are zero, after SGR's ReLU."""

    def edit(model: ModelProto) -> None:
        place, array = weight(model, name)
        put(model, place, -array)

    return edit


def swap_gates(name: str) -> Edit:
    """PyTorch's order of the gates where ONNX's is due."""

    def edit(model: ModelProto) -> None:
        place, array = weight(model, name)
        update, reset, *rest = np.split(array, array.shape[1] // SGR.embed, axis=1)
        put(model, place, np.concatenate([reset, update, *rest], axis=1))

    return edit


def reset_before_the_product(model: ModelProto) -> None:
    for node in nodes(model, "GRU"):
        (found,) = (each for each in node.attribute if each.name == "linear_before_reset")
        found.i = 0


def forward_only(model: ModelProto) -> None:
    """Both directions read the caption in the same order."""
    for node in nodes(model, "ReverseSequence"):
        node.op_type = "Identity"
        del node.input[1:], node.attribute[:]


def forget_the_lengths(model: ModelProto) -> None:
    """The backward direction begins with the padding."""
    reversals = nodes(model, "ReverseSequence")
    lengths = reversals[0].input[1]
    extra = [
        helper.make_node("ReduceMax", [lengths], ["longest"], keepdims=1),
        helper.make_node("Shape", [lengths], ["captions"]),
        helper.make_node("Expand", ["longest", "captions"], ["longest_of_all"]),
    ]
    place = list(model.graph.node).index(reversals[0])
    for offset, made in enumerate(extra):
        model.graph.node.insert(place + offset, made)
    for node in nodes(model, "ReverseSequence"):
        node.input[1] = "longest_of_all"


def every_word_is_real(model: ModelProto) -> None:
    """A mask of ones: padding leaks."""
    for node in nodes(model, "Less"):
        (cast,) = (user for user in model.graph.node if node.output[0] in user.input)
        names = [node.output[0], f"{node.output[0]}_not", f"{node.output[0]}_or"]
        extra = [
            helper.make_node("Not", names[:1], names[1:2]),
            helper.make_node("Or", names[:2], names[2:]),
        ]
        cast.input[0] = names[2]
        place = list(model.graph.node).index(cast)
        for offset, made in enumerate(extra):
            model.graph.node.insert(place + offset, made)


def freeze_declared(graph: str, axis: int) -> Edit:
    def edit(model: ModelProto) -> None:
        values = model.graph.output if graph == "output" else model.graph.input
        values[0].type.tensor_type.shape.dim[axis].dim_value = 6

    return edit


def freeze_inside(model: ModelProto) -> None:
    """The last reshape gets the sizes of the inputs that the graph was written with."""
    node = nodes(model, "Reshape")[-1]
    shape = numpy_helper.from_array(np.array([7, 8], dtype=np.int64), "frozen")
    model.graph.initializer.append(shape)
    node.input[1] = "frozen"


def rename(kind: str) -> Edit:
    def edit(model: ModelProto) -> None:
        values = model.graph.output if kind == "output" else model.graph.input
        old, new = values[0].name, f"{values[0].name}_1"
        values[0].name = new
        for node in model.graph.node:
            node.input[:] = [new if value == old else value for value in node.input]
            node.output[:] = [new if value == old else value for value in node.output]

    return edit


def drop_epsilon(model: ModelProto) -> None:
    place, array = weight(model, "epsilon")
    put(model, place, np.zeros_like(array))


def wider_ids(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT64


def nodes(model: ModelProto, op: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == op]


VALUES: dict[str, tuple[GraphName, Edit]] = {
    "projection-weight": ("image_encoder", flip("image_encoder.projection.weight")),
    "projection-bias": ("image_encoder", flip("image_encoder.projection.bias")),
    "image-attention-weight": ("image_encoder", flip("image_global.attention.weight")),
    "region-scale": ("image_encoder", flip("image_global.local_norm.scale")),
    "gru-input-weight": ("text_encoder", flip("text_encoder.gru.0.input")),
    "gru-hidden-weight": ("text_encoder", flip("text_encoder.gru.0.hidden")),
    "gru-backward-weight": ("text_encoder", flip("text_encoder.gru.0.reverse.hidden")),
    "text-attention-weight": ("text_encoder", flip("text_global.attention.weight")),
    "local-alignment-weight": ("scorer", flip("local_alignment.weight")),
    "similarity-weight": ("scorer", negate("similarity.weight")),
    "similarity-bias": ("scorer", flip("similarity.bias")),
    "pairs-similarity-weight": ("pair_scorer", negate("similarity.weight")),
    "pairs-local-alignment-bias": ("pair_scorer", flip("local_alignment.bias")),
    "gate-order-of-inputs": ("text_encoder", swap_gates("text_encoder.gru.0.input")),
    "gate-order-of-states": ("text_encoder", swap_gates("text_encoder.gru.0.hidden")),
    "gate-order-of-biases": ("text_encoder", swap_gates("text_encoder.gru.0.bias")),
    "linear-before-reset": ("text_encoder", reset_before_the_product),
    "forward-twice": ("text_encoder", forward_only),
    "padding-in-the-text-encoder": ("text_encoder", every_word_is_real),
    "padding-in-the-scorer": ("scorer", every_word_is_real),
    "padding-in-the-pair-scorer": ("pair_scorer", every_word_is_real),
}

INTERFACES: dict[str, tuple[GraphName, Edit]] = {
    "images-of-the-encoder": ("image_encoder", freeze_declared("input", 0)),
    "captions-of-the-encoder": ("text_encoder", freeze_declared("input", 0)),
    "words-of-the-encoder": ("text_encoder", freeze_declared("input", 1)),
    "images-of-the-scorer": ("scorer", freeze_declared("output", 0)),
    "captions-of-the-scorer": ("scorer", freeze_declared("output", 1)),
    "pairs": ("pair_scorer", freeze_declared("output", 0)),
    "renamed-input": ("image_encoder", rename("input")),
    "renamed-output": ("image_encoder", rename("output")),
    "renamed-logits": ("scorer", rename("output")),
    "ids-of-64-bits": ("text_encoder", wider_ids),
}
