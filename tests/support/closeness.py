"""How far two computations of one number may lie apart: as far as rounding takes them.

A sum of `depth` terms that are rounded one by one goes astray like a random walk, by about the
square root of `depth` roundings of the largest value. `FACTOR` times that is allowed, on every
processor: in which order, and how many terms at a time, is the processor's affair.
"""

from __future__ import annotations

import math
from typing import Any, NotRequired, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgraf_deploy.config import GraphName, ModelConfig, Precision


class Rounded(TypedDict):
    """Arguments of `assert_close` and `assert_similar`."""

    depth: int
    dtype: NotRequired[Any]


FACTOR = 2.0
"""Both sides are rounded, and of many values the worst is looked at. Most outputs differ by less
than a third of what it allows and the worst by two thirds, with AVX-512 and with AVX2."""

SLOPE = 0.25
"""Of the sigmoid at its steepest: so much of a logit's difference is left in the similarity. It
holds for logits of any size, whose rounding grows with them: |x| sigmoid'(x) stays below it."""

SMALL_NORMS = 4.0
"""Condition of attention where a norm may be a small part of the products that it is taken of: over
as few words as two, or of embeddings that were not normalised. The literal loop in float32 differs
from itself in float64 by as much as 0.4 of what this allows."""


def rounding(dtype: Any) -> float:
    """The largest relative error of one rounding to `dtype`."""
    return float(np.finfo(dtype).eps) / 2


def tolerance(
    expected: ArrayLike, depth: int, dtype: Any = np.float32, condition: float = 1.0
) -> float:
    """What may lie between a value of `expected` and another computation of it in `dtype`.

    `depth` terms are summed one after the other on the longest way from the inputs. What is on
    that way is no larger than 1, as in normalised vectors, or than the largest expected value;
    `condition` is by how much more an error grows.
    """
    largest = float(np.abs(np.asarray(expected)).max(initial=1.0))
    return FACTOR * rounding(dtype) * condition * math.sqrt(depth) * largest


def assert_close(
    found: ArrayLike,
    expected: ArrayLike,
    depth: int,
    dtype: Any = np.float32,
    condition: float = 1.0,
) -> None:
    """Values of the same shape within `tolerance`."""
    _compare(found, expected, tolerance(expected, depth, dtype, condition))


def assert_similar(
    found: ArrayLike,
    expected: ArrayLike,
    depth: int,
    dtype: Any = np.float32,
    condition: float = 1.0,
) -> None:
    """Similarities, whose logits are within `tolerance`, each rounded to float32 once more."""
    allowed = SLOPE * tolerance(0.0, depth, dtype, condition)
    _compare(found, expected, allowed + FACTOR * rounding(np.float32))


def _compare(found: ArrayLike, expected: ArrayLike, allowed: float) -> None:
    one: NDArray[Any] = np.asarray(found)
    two: NDArray[Any] = np.asarray(expected)
    assert one.shape == two.shape
    np.testing.assert_allclose(one, two, rtol=0, atol=allowed)


def image_depth(config: ModelConfig) -> int:
    """Of region_embeddings: the projection and its norm."""
    return config.img_dim + config.embed


def image_global_depth(config: ModelConfig) -> int:
    """Of image_global from the regions: two linear layers, attention, its sum and a norm."""
    return image_depth(config) + 3 * config.regions + 4 * config.embed


def text_depth(config: ModelConfig, words: int) -> int:
    """Of word_embeddings: a step of each GRU, whose state is a mean over the steps, and a norm."""
    layers = config.word_dim + (2 * config.num_layers - 1) * config.embed
    return layers + config.num_layers * words + config.embed


def text_global_depth(config: ModelConfig, words: int) -> int:
    """Of text_global from the token ids: two linear layers, attention, its sum and a norm."""
    return text_depth(config, words) + 3 * words + 4 * config.embed


def scorer_depth(config: ModelConfig, words: int) -> int:
    """Of logits, from embeddings of captions of at most so many words."""
    return _attention_depth(config, words) + _head_depth(config, words)


def logits_depth(config: ModelConfig, words: int) -> int:
    """Of logits, all the way from region features and token ids."""
    local = max(image_depth(config), text_depth(config, words)) + _attention_depth(config, words)
    overall = max(image_global_depth(config), text_global_depth(config, words))
    return max(local, overall) + _head_depth(config, words)


def _attention_depth(config: ModelConfig, words: int) -> int:
    """Products, a norm over words, a softmax and a sum over regions, and a norm."""
    return config.embed + words + 2 * config.regions + config.embed


def _head_depth(config: ModelConfig, words: int) -> int:
    """Alignments and their norm, the reasoning or the filtration, and the last layer."""
    nodes, sim_dim = 1 + words, config.sim_dim
    reasoning = config.sgr_steps * (3 * sim_dim + 2 * nodes)
    filtration = 2 * sim_dim + 2 * nodes if config.module == "SAF" else 0
    return config.embed + sim_dim + reasoning + filtration + sim_dim


def graph_depth(config: ModelConfig, graph: GraphName, words: int) -> int:
    """Of a graph's outputs, from its inputs."""
    if graph == "image_encoder":
        return image_global_depth(config)
    if graph == "text_encoder":
        return text_global_depth(config, words)
    return scorer_depth(config, words)


def half_depth(config: ModelConfig) -> int:
    """Roundings to float16 one after the other: embeddings, alignments, a step's two products."""
    return 2 + 2 * config.sgr_steps


def graph_rounding(config: ModelConfig, precision: Precision, words: int) -> Rounded:
    """How often, and to what, an engine rounds that runs the bundle's graphs in other tiles.

    Sums are float32; in another order one may be rounded to another float16.
    """
    if precision == "fp32":
        return {"depth": logits_depth(config, words)}
    return {"depth": half_depth(config), "dtype": np.float16}


def condition_of(config: ModelConfig) -> float:
    """By how much errors grow in a model besides rounding."""
    return 1.0 if config.image_norm and config.text_norm else SMALL_NORMS
