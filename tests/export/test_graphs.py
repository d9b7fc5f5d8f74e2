"""The ONNX graphs themselves: axes, types, precision, and what must not be optimised away."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto, TensorProto, numpy_helper
from support.closeness import assert_close, condition_of, graph_depth, half_depth, scorer_depth
from support.loops import all_of
from support.random_weights import random_weights
from support.small_models import VARIANTS, padded, random_captions, random_regions

from sgraf_deploy.config import GRAPHS, PRECISIONS, GraphName, Precision, signature
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.export.opsets import OPSETS
from sgraf_deploy.gate.graphs import check_interface
from sgraf_deploy.model.constants import EPSILON
from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import fold
from sgraf_deploy.model.torch_ops import TorchOps

Arrays = dict[str, NDArray[Any]]

SOME = ("sgr", "saf", "sgr-unidirectional", "saf-2-layers", "saf-unnormalised")

SHAPES: dict[str, tuple[int, tuple[int, ...]]] = {
    "one-image-one-caption": (1, (5,)),
    "one-image-many-captions": (1, (2, 9, 4)),
    "many-images-one-caption": (5, (6,)),
    "many-of-both": (4, (3, 14, 2, 8, 5)),
    "one-word-more-than-the-others": (3, (4, 4, 5, 4)),
    "captions-of-one-word": (3, (1, 1)),
    "one-word-beside-many": (2, (1, 30)),
}
"""Images, and the words of each caption."""

HALF_WEIGHTS: dict[GraphName, set[str]] = {
    "image_encoder": {"image_encoder.projection", "image_global.mean", "image_global.local"},
    "text_encoder": {"text_global.mean", "text_global.local"},
    "scorer": {"local_alignment", "global_alignment"},
    "pair_scorer": {"local_alignment", "global_alignment"},
}
"""What is multiplied in half precision, besides SGR's keys and updates."""

EXACT_WEIGHTS = (
    *("image_global.attention", "text_global.attention"),
    *("filtration.attention", "similarity"),
)

MOVES = {"Cast", "Concat", "Gather", "Reshape", "Shape", "Slice", "Transpose"}
"""Operations that compute nothing and so may touch half precision."""


@cache
def built(variant: str, graph: GraphName, precision: Precision) -> onnx.ModelProto:
    config = VARIANTS[variant]
    return build_graph(fold(config, random_weights(config, 3)), graph, precision)


@cache
def session(variant: str, graph: GraphName, precision: Precision) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    model = built(variant, graph, precision).SerializeToString()
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(variant: str, graph: GraphName, precision: Precision, inputs: Arrays) -> Arrays:
    opened = session(variant, graph, precision)
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, inputs), strict=True))


def types(model: onnx.ModelProto) -> dict[str, int]:
    """The element type of every value, by strict inference."""
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = [*inferred.input, *inferred.output, *inferred.value_info]
    found = {value.name: value.type.tensor_type.elem_type for value in values}
    return found | {tensor.name: tensor.data_type for tensor in model.graph.initializer}


def nodes(model: onnx.ModelProto, op: str) -> list[NodeProto]:
    return [node for node in model.graph.node if node.op_type == op]


def attribute(node: NodeProto, name: str) -> Any:
    (found,) = (onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name)
    return found


def consumers(model: onnx.ModelProto, value: str) -> list[NodeProto]:
    return [node for node in model.graph.node if value in node.input]


@all_of(VARIANTS, GRAPHS, PRECISIONS)
def test_the_interface_is_the_signature(
    variant: str, graph: GraphName, precision: Precision
) -> None:
    model = built(variant, graph, precision)
    spec = signature(graph, VARIANTS[variant], precision)

    check_interface(model, spec, variant)

    onnx.checker.check_model(model, full_check=True)
    kinds = [value.type.tensor_type.elem_type for value in model.graph.input]
    assert TensorProto.INT64 not in kinds
    assert [(op.domain, op.version) for op in model.opset_import] == [("", OPSETS[precision])]


@all_of(SOME, GRAPHS, PRECISIONS)
def test_nothing_in_a_graph_is_unused(variant: str, graph: GraphName, precision: Precision) -> None:
    model = built(variant, graph, precision)
    outputs = {value.name for value in model.graph.output}
    used = {value for node in model.graph.node for value in node.input}

    assert {tensor.name for tensor in model.graph.initializer} <= used
    assert {value.name for value in model.graph.input} <= used
    assert all(used.union(outputs).intersection(node.output) for node in model.graph.node)


@all_of(SOME, GRAPHS, PRECISIONS)
def test_no_axis_is_frozen_by_the_nodes(
    variant: str, graph: GraphName, precision: Precision
) -> None:
    """What the nodes alone say of the outputs' axes, without the declared ones."""
    model = onnx.ModelProto()
    model.CopyFrom(built(variant, graph, precision))
    declared = {value.name: axes(value) for value in model.graph.output}
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")

    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    for value in inferred.graph.output:
        pairs = zip(axes(value), declared[value.name], strict=True)
        assert all(not isinstance(found, int) or found == right for found, right in pairs)


def axes(value: onnx.ValueInfoProto) -> list[str | int | None]:
    """A name or a size of each axis, None where neither is known."""
    found: list[str | int | None] = []
    for axis in value.type.tensor_type.shape.dim:
        kind = axis.WhichOneof("value")
        found.append(getattr(axis, kind) if kind else None)
    return found


@all_of(SOME, SHAPES)
def test_fp32_graphs_run_at_every_shape(variant: str, shape: str) -> None:
    images, lengths = SHAPES[shape]
    arrays, expected = inputs_and_expected(variant, images, lengths)

    for graph in GRAPHS:
        spec = signature(graph, VARIANTS[variant], "fp32")
        inputs = {tensor.name: arrays[tensor.name] for tensor in spec.inputs}
        for name, values in run(variant, graph, "fp32", inputs).items():
            right = expected[f"{graph}.{name}"]
            depth = graph_depth(VARIANTS[variant], graph, max(lengths))
            assert_close(values, right, depth, condition=condition_of(VARIANTS[variant]))


@pytest.mark.parametrize("variant", SOME)
@pytest.mark.parametrize("block", [5, 8])
def test_the_scorer_may_take_the_embedding_axis_in_pieces(
    variant: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = VARIANTS[variant]
    assert config.embed > block
    arrays, expected = inputs_and_expected(variant, 3, (4, 1, 7))
    monkeypatch.setattr("sgraf_deploy.model.folded.EMBED_BLOCK", block)
    model = build_graph(fold(config, random_weights(config, 3)), "scorer", "fp32")

    wanted = {spec.name: arrays[spec.name] for spec in signature("scorer", config, "fp32").inputs}
    (logits,) = onnxruntime.InferenceSession(model.SerializeToString()).run(["logits"], wanted)

    pieces = len(nodes(model, "Split")[0].output)
    assert pieces == -(-config.embed // block)
    depth = scorer_depth(config, words=7)
    assert_close(logits, expected["scorer.logits"], depth, condition=condition_of(config))


@all_of(["sgr", "saf"], SHAPES)
def test_fp16_graphs_run_at_every_shape(variant: str, shape: str) -> None:
    """ONNX Runtime computes them in float32 between roundings: this is about shapes."""
    images, lengths = SHAPES[shape]
    arrays, expected = inputs_and_expected(variant, images, lengths)

    for graph in GRAPHS:
        spec = signature(graph, VARIANTS[variant], "fp16")
        inputs = {tensor.name: arrays[tensor.name].astype(tensor.dtype) for tensor in spec.inputs}
        outputs = run(variant, graph, "fp16", inputs)
        for tensor in spec.outputs:
            values, right = outputs[tensor.name], expected[f"{graph}.{tensor.name}"]
            assert values.dtype == tensor.dtype
            assert_close(values, right, half_depth(VARIANTS[variant]), np.float16)


def inputs_and_expected(
    variant: str, images: int, lengths: tuple[int, ...]
) -> tuple[Arrays, Arrays]:
    """Every graph's inputs by name, and the folded model's outputs by graph and name."""
    config = VARIANTS[variant]
    ops = TorchOps("fp32", torch.device("cpu"))
    model = FoldedModel(fold(config, random_weights(config, 3)), ops)
    token_ids, counts = padded(random_captions(config, lengths))
    rng = np.random.default_rng(0)
    arrays: Arrays = {
        "regions": random_regions(config, images),
        "token_ids": token_ids,
        "lengths": counts,
        "image_index": rng.integers(0, images, images + 2, dtype=np.int32),
        "caption_index": rng.integers(0, len(lengths), images + 2, dtype=np.int32),
    }
    tensor = {name: torch.from_numpy(array) for name, array in arrays.items()}
    encoded_images = model.image_encoder(tensor["regions"])
    words = model.text_encoder(tensor["token_ids"], tensor["lengths"])
    encoded = Encoded.of(encoded_images, words, tensor["lengths"])
    expected = {
        "image_encoder.region_embeddings": encoded_images[0],
        "image_encoder.image_global": encoded_images[1],
        "image_encoder.region_gram": encoded_images[2],
        "text_encoder.word_embeddings": words[0],
        "text_encoder.text_global": words[1],
        "scorer.logits": model.scorer(encoded),
        "pair_scorer.logits": model.pair_scorer(
            encoded, tensor["image_index"], tensor["caption_index"]
        ),
    }
    found = {name: array.numpy() for name, array in expected.items()}
    return arrays | {n.split(".")[1]: a for n, a in found.items() if "encoder" in n}, found


@all_of(SOME, GRAPHS)
def test_heavy_products_alone_are_in_half_precision(variant: str, graph: GraphName) -> None:
    config = VARIANTS[variant]
    model = built(variant, graph, "fp16")
    kinds = types(model)
    stored = {tensor.name for tensor in model.graph.initializer}
    half: set[str] = set()
    exact: list[set[str]] = []
    for node in nodes(model, "MatMul"):
        operands = [kinds[value] for value in node.input]
        assert operands[0] == operands[1] == kinds[node.output[0]]
        weights = stored.intersection(node.input)
        if operands[0] == TensorProto.FLOAT16:
            half |= {weight.removesuffix(".weight.float16") for weight in weights}
        else:
            exact.append({weight.removesuffix(".weight") for weight in weights})

    wanted = set(HALF_WEIGHTS[graph])
    if "scorer" in graph:
        wanted |= {
            f"reasoning.{step}.{part}"
            for step in range(config.sgr_steps)
            for part in ("key", "update")
        }
    assert half == wanted
    heads = [name for names in exact for name in names]
    assert Counter(heads) == Counter(set(heads) & set(EXACT_WEIGHTS))
    # A weighted sum of a few rows stands beside each attention's head.
    attentions = [name for name in heads if name.endswith("attention")]
    assert len(exact) == len(heads) + len(attentions)
    assert not nodes(model, "Gemm")
    assert not {f"{name}.weight" for name in half} & stored


@all_of(SOME, GRAPHS)
def test_nothing_else_computes_in_half_precision(variant: str, graph: GraphName) -> None:
    model = built(variant, graph, "fp16")
    kinds = types(model)

    for node in model.graph.node:
        halves = TensorProto.FLOAT16 in {kinds[value] for value in (*node.input, *node.output)}
        assert not halves or node.op_type in MOVES | {"MatMul"}, node
    assert {"Softmax", "Sqrt"} <= {node.op_type for node in model.graph.node}


@all_of(SOME, GRAPHS)
def test_stored_embeddings_are_multiplied_as_they_are(variant: str, graph: GraphName) -> None:
    """No value goes from half to float and back: it would cost time and change nothing."""
    model = built(variant, graph, "fp16")
    producers = {value: node for node in model.graph.node for value in node.output}

    for node in nodes(model, "Cast"):
        if attribute(node, "to") != TensorProto.FLOAT16:
            continue
        source = producers.get(node.input[0])
        while source is not None and source.op_type in ("Reshape", "Transpose"):
            source = producers.get(source.input[0])
        assert source is None or source.op_type != "Cast", node


@all_of(SOME, GRAPHS)
def test_fp32_graphs_have_no_half_precision(variant: str, graph: GraphName) -> None:
    assert TensorProto.FLOAT16 not in types(built(variant, graph, "fp32")).values()


@all_of(["sgr", "sgr-unidirectional", "saf-2-layers", "sgr-2-layers-unidirectional"], PRECISIONS)
def test_the_gru_resets_after_its_product_and_stops_at_the_caption(
    variant: str, precision: Precision
) -> None:
    config = VARIANTS[variant]
    model = built(variant, "text_encoder", precision)
    kinds = types(model)

    layers = nodes(model, "GRU")

    assert len(layers) == config.num_layers
    for node in layers:
        assert attribute(node, "linear_before_reset") == 1
        assert attribute(node, "hidden_size") == config.embed
        direction = "bidirectional" if config.bidirectional else "forward"
        assert attribute(node, "direction") == direction.encode()
        (lengths,) = list(node.input)[4:]
        assert kinds[lengths] == TensorProto.INT32
        assert lengths not in {value.name for value in model.graph.input}
        assert {kinds[value] for value in node.input[:4]} == {TensorProto.FLOAT}
        assert all(a.type != AttributeProto.GRAPH for a in node.attribute)


@all_of(VARIANTS, GRAPHS, PRECISIONS)
def test_every_norm_has_its_epsilon(variant: str, graph: GraphName, precision: Precision) -> None:
    config = VARIANTS[variant]
    model = built(variant, graph, precision)
    norms = {
        "image_encoder": 1 + config.image_norm,
        "text_encoder": 1 + config.text_norm,
        # Attention, context, local and global alignment; SAF's gates and vector.
        "scorer": 4 if config.module == "SGR" else 6,
        "pair_scorer": 4 if config.module == "SGR" else 6,
    }[graph]

    added = [node for node in nodes(model, "Add") if "epsilon" in node.input]

    assert len(added) == norms
    for node in nodes(model, "Sqrt"):
        assert [user.op_type for user in consumers(model, node.output[0])] == ["Add"]
        assert "epsilon" in consumers(model, node.output[0])[0].input
    for node in added:
        (user,) = consumers(model, node.output[0])
        if user.op_type == "Unsqueeze":
            (user,) = consumers(model, user.output[0])
        assert user.op_type == "Div"
    (epsilon,) = (tensor for tensor in model.graph.initializer if tensor.name == "epsilon")
    assert numpy_helper.to_array(epsilon) == np.float32(EPSILON)


@all_of(SOME, GRAPHS, PRECISIONS)
def test_constants_have_the_rank_that_onnx_asks_for(
    variant: str, graph: GraphName, precision: Precision
) -> None:
    """ONNX Runtime takes a vector of one for a scalar; other readers do not."""
    model = built(variant, graph, precision)
    ranks = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}

    for node, position, rank in ranked_inputs(model):
        assert ranks.get(node.input[position], rank) == rank, node


def ranked_inputs(model: onnx.ModelProto) -> Iterator[tuple[NodeProto, int, int]]:
    """Inputs of a fixed rank: Range's limits are scalars, sizes and axes are vectors."""
    for node in model.graph.node:
        if node.op_type == "Range":
            yield from ((node, position, 0) for position in range(3))
        elif node.op_type in ("Reshape", "ReduceSum", "ReduceSumSquare", "Slice"):
            yield from ((node, position, 1) for position in range(1, len(node.input)))
