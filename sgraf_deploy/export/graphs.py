"""Builds the ONNX graphs: the four of one member, its `explain`, and the combined one of all."""

from __future__ import annotations

from collections.abc import Mapping

import onnx

from sgraf_deploy.config import (
    COMBINED,
    EXPLAIN,
    GraphName,
    Precision,
    combined_signature,
    explain_signature,
    signature,
)
from sgraf_deploy.export.onnx_ops import OnnxOps
from sgraf_deploy.model.combined import combine
from sgraf_deploy.model.explained import ExplainedModel
from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import FoldedWeights


def build_graph(
    weights: FoldedWeights, graph: GraphName, precision: Precision, opset: int | None = None
) -> onnx.ModelProto:
    """Build one graph with dynamic axes, checked by ONNX; `config.signature` is its interface.

    `opset` is None for the precision's own.
    """
    spec = signature(graph, weights.config, precision)
    ops = OnnxOps(precision, opset)
    model = FoldedModel(weights, ops)
    names = [tensor.name for tensor in spec.inputs]
    outputs: list[str]
    if graph == "image_encoder":
        outputs = list(model.image_encoder(*names))
    elif graph == "text_encoder":
        outputs = list(model.text_encoder(*names))
    elif graph == "scorer":
        outputs = [model.scorer(Encoded(**{name: name for name in names}))]
    else:
        outputs = [model.pair_scorer(Encoded(*names[:-2]), *names[-2:])]
    return ops.model(graph, spec, outputs)


def build_explain(weights: FoldedWeights, opset: int | None = None) -> onnx.ModelProto:
    """Build a member's graph `explain`, in float32; see `config.explain_signature`."""
    spec = explain_signature(weights.config)
    ops = OnnxOps("fp32", opset)
    names = [tensor.name for tensor in spec.inputs]
    outputs = ExplainedModel(weights, ops).explain(Encoded(*names[:-2]), *names[-2:])
    return ops.model(EXPLAIN, spec, list(outputs))


def build_combined(
    members: Mapping[str, FoldedWeights], precision: Precision, opset: int | None = None
) -> onnx.ModelProto:
    """Build the graph of all members: from regions and ids to the logits of the ensemble.

    `config.combined_signature` is its interface. Names of a member's weights and values begin with
    the member's name and a period.
    """
    ops = OnnxOps(precision, opset)
    logits = []
    for name, weights in members.items():
        ops.scope = f"{name}."
        model = FoldedModel(weights, ops)
        texts = model.text_encoder("token_ids", "lengths")
        logits.append(model.scorer(Encoded.of(model.image_encoder("regions"), texts, "lengths")))
    ops.scope = ""
    spec = combined_signature(next(iter(members.values())).config)
    return ops.model(COMBINED, spec, list(combine(ops, logits)))
