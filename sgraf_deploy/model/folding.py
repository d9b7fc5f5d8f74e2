"""Fold a checkpoint's weights into the weights of the exact rewrites; numpy only.

Products of weights and BatchNorm folds are formed in float64 and rounded to float32 once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.model.constants import BATCHNORM_EPSILON
from sgraf_deploy.model.ops import GruLayer, Weight


@dataclass(frozen=True)
class Linear:
    """x @ weight + bias; weight is (inputs, outputs), transposed from PyTorch's."""

    name: str
    weight: Weight
    bias: Weight


@dataclass(frozen=True)
class ReasoningStep:
    """One SGR step: scores = (x @ key.weight + key.bias) @ xᵀ, then `update`.

    `key` holds Wqᵀ Wk and Wkᵀ bq: the other terms of QKᵀ are constant over the keys and cancel
    in the softmax.
    """

    key: Linear
    update: Linear


@dataclass(frozen=True)
class FoldedWeights:
    """All weights of the folded model, float32."""

    config: ModelConfig
    projection: Linear
    image_local: Linear
    image_local_scale: Weight
    """(regions, 1): the region BatchNorm remains a scale and a shift per region."""
    image_local_shift: Weight
    image_mean: Linear
    image_attention: Linear
    embedding: Weight
    gru: tuple[GruLayer, ...]
    text_local: Linear
    text_mean: Linear
    text_attention: Linear
    local_alignment: Linear
    global_alignment: Linear
    similarity: Linear
    reasoning: tuple[ReasoningStep, ...] = field(default=())
    filtration: Linear | None = None


def fold(config: ModelConfig, weights: Mapping[str, NDArray[np.generic]]) -> FoldedWeights:
    """The folded weights of one member, from its original weights by name."""
    source = {name: np.asarray(weight) for name, weight in weights.items()}
    local_scale, local_shift = _batchnorm(source, "image_global.local_norm")
    return FoldedWeights(
        config=config,
        projection=_linear(source, "image_encoder.projection"),
        image_local=_linear(source, "image_global.local"),
        image_local_scale=local_scale.astype(np.float32)[:, None],
        image_local_shift=local_shift.astype(np.float32)[:, None],
        image_mean=_linear_batchnorm(source, "image_global.mean", "image_global.mean_norm"),
        image_attention=_linear(source, "image_global.attention"),
        embedding=_float32(source["text_encoder.embedding.weight"]),
        gru=tuple(
            GruLayer(source, layer, config.bidirectional) for layer in range(config.num_layers)
        ),
        text_local=_linear(source, "text_global.local"),
        text_mean=_linear(source, "text_global.mean"),
        text_attention=_linear(source, "text_global.attention"),
        local_alignment=_linear(source, "local_alignment"),
        global_alignment=_linear(source, "global_alignment"),
        similarity=_linear(source, "similarity"),
        reasoning=tuple(_reasoning(source, step) for step in range(config.sgr_steps)),
        filtration=_linear_batchnorm(source, "filtration.attention", "filtration.norm")
        if config.module == "SAF"
        else None,
    )


def _float32(array: Weight) -> Weight:
    return np.ascontiguousarray(array, dtype=np.float32)


def _linear(weights: Mapping[str, Weight], name: str) -> Linear:
    return Linear(name, _float32(weights[f"{name}.weight"].T), _float32(weights[f"{name}.bias"]))


def _batchnorm(weights: Mapping[str, Weight], name: str) -> tuple[Weight, Weight]:
    """The scale and shift, float64, that BatchNorm in eval mode applies."""
    value = {
        part: weights[f"{name}.{part}"].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    }
    scale = value["weight"] / np.sqrt(value["running_var"] + BATCHNORM_EPSILON)
    return scale, value["bias"] - value["running_mean"] * scale


def _linear_batchnorm(weights: Mapping[str, Weight], linear: str, norm: str) -> Linear:
    scale, shift = _batchnorm(weights, norm)
    weight = weights[f"{linear}.weight"].astype(np.float64) * scale[:, None]
    bias = weights[f"{linear}.bias"].astype(np.float64) * scale + shift
    return Linear(linear, _float32(weight.T), _float32(bias))


def _reasoning(weights: Mapping[str, Weight], step: int) -> ReasoningStep:
    name = f"reasoning.{step}"
    query = weights[f"{name}.query.weight"].astype(np.float64)
    query_bias = weights[f"{name}.query.bias"].astype(np.float64)
    key = weights[f"{name}.key.weight"].astype(np.float64)
    folded = Linear(f"{name}.key", _float32(query.T @ key), _float32(query_bias @ key))
    return ReasoningStep(folded, _linear(weights, f"{name}.update"))
