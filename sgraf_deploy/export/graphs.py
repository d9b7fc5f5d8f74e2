"""Builds the four ONNX graphs of one member."""

from __future__ import annotations

import onnx

from sgraf_deploy.config import GraphName, Precision, signature
from sgraf_deploy.export.onnx_ops import OnnxOps
from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import FoldedWeights


def build_graph(weights: FoldedWeights, graph: GraphName, precision: Precision) -> onnx.ModelProto:
    """Build one graph with dynamic axes, checked by ONNX; `config.signature` is its interface."""
    spec = signature(graph, weights.config, precision)
    ops = OnnxOps(precision)
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
