"""The literal reference against the paper's formulas, one image and one caption at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.closeness import assert_close, condition_of, logits_depth
from support.random_weights import random_weights
from support.small_models import (
    LENGTHS,
    SAF,
    SGR,
    VARIANTS,
    padded,
    random_captions,
    random_regions,
)

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.model import reference
from sgraf_deploy.model.constants import EPSILON
from sgraf_deploy.model.layers import SimilarityModel, l1norm, l2norm

Vector = NDArray[np.float64]
IMAGES = 3


class Paper:
    """The formulas of one member on one image and one caption, in numpy and float64."""

    def __init__(self, config: ModelConfig, weights: dict[str, NDArray[Any]]) -> None:
        self.config = config
        self.weights = {name: weight.astype(np.float64) for name, weight in weights.items()}

    def linear(self, name: str, x: Vector) -> Vector:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def batchnorm(self, name: str, x: Vector) -> Vector:
        part = {leaf: self.weights[f"{name}.{leaf}"] for leaf in ("weight", "bias")}
        deviation = np.sqrt(self.weights[f"{name}.running_var"] + 1e-5)
        return (x - self.weights[f"{name}.running_mean"]) / deviation * part["weight"] + part[
            "bias"
        ]

    def regions(self, features: Vector) -> Vector:
        projected = self.linear("image_encoder.projection", features)
        return unit(projected) if self.config.image_norm else projected

    def words(self, token_ids: NDArray[np.int32]) -> Vector:
        states = self.weights["text_encoder.embedding.weight"][token_ids]
        for layer in range(self.config.num_layers):
            forward = self.gru(f"l{layer}", states)
            if not self.config.bidirectional:
                states = forward
                continue
            backward = self.gru(f"l{layer}_reverse", states[::-1])[::-1]
            states = np.concatenate([forward, backward], axis=1)
        if self.config.bidirectional:
            states = (states[:, : self.config.embed] + states[:, self.config.embed :]) / 2
        return unit(states) if self.config.text_norm else states

    def gru(self, suffix: str, inputs: Vector) -> Vector:
        part = {
            leaf: self.weights[f"text_encoder.gru.{leaf}_{suffix}"]
            for leaf in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        hidden, states = np.zeros(self.config.embed), []
        for x in inputs:
            from_input = np.split(part["weight_ih"] @ x + part["bias_ih"], 3)
            from_hidden = np.split(part["weight_hh"] @ hidden + part["bias_hh"], 3)
            reset, update = (
                sigmoid(a + b) for a, b in zip(from_input[:2], from_hidden[:2], strict=True)
            )
            new = np.tanh(from_input[2] + reset * from_hidden[2])
            hidden = (1 - update) * new + update * hidden
            states.append(hidden)
        return np.stack(states)

    def image_global(self, regions: Vector) -> Vector:
        mean = self.linear("image_global.mean", regions.mean(axis=0))
        query = np.tanh(self.batchnorm("image_global.mean_norm", mean))
        local = self.linear("image_global.local", regions)
        # The BatchNorm's channels are the regions.
        keys = np.tanh(self.batchnorm("image_global.local_norm", local.T).T)
        weights = softmax(self.linear("image_global.attention", keys * query)[:, 0])
        return unit(weights @ regions)

    def text_global(self, words: Vector) -> Vector:
        query = np.tanh(self.linear("text_global.mean", words.mean(axis=0)))
        keys = np.tanh(self.linear("text_global.local", words))
        weights = softmax(self.linear("text_global.attention", keys * query)[:, 0])
        return unit(weights @ words)

    def nodes(self, regions: Vector, words: Vector) -> Vector:
        products = regions @ words.T
        attention = np.where(products > 0, products, 0.1 * products)
        attention = unit(attention)  # Over the words, for each region.
        context = np.stack([softmax(9 * column) @ regions for column in attention.T])
        local = (unit(context) - words) ** 2
        overall = (self.image_global(regions) - self.text_global(words)) ** 2
        return np.stack(
            [
                unit(self.linear("global_alignment", overall)),
                *unit(self.linear("local_alignment", local)),
            ]
        )

    def logit(self, features: Vector, token_ids: NDArray[np.int32]) -> float:
        nodes = self.nodes(self.regions(features), self.words(token_ids))
        for step in range(self.config.sgr_steps):
            queries = self.linear(f"reasoning.{step}.query", nodes)
            keys = self.linear(f"reasoning.{step}.key", nodes)
            edges = np.stack([softmax(row) for row in queries @ keys.T])
            nodes = np.maximum(self.linear(f"reasoning.{step}.update", edges @ nodes), 0)
        vector = nodes[0]
        if self.config.module == "SAF":
            gates = self.linear("filtration.attention", nodes)
            gates = sigmoid(self.batchnorm("filtration.norm", gates))[:, 0]
            vector = unit(gates / (np.abs(gates).sum() + 1e-8) @ nodes)
        return float(self.linear("similarity", vector)[0])


def unit(x: Vector) -> Vector:
    scaled: Vector = x / (np.sqrt((x**2).sum(axis=-1, keepdims=True)) + 1e-8)
    return scaled


def softmax(x: Vector) -> Vector:
    raised = np.exp(x - x.max())
    weights: Vector = raised / raised.sum()
    return weights


def sigmoid(x: Vector) -> Vector:
    return 1 / (1 + np.exp(-x))


def encoded(
    model: SimilarityModel, config: ModelConfig
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Regions, words and lengths of the random inputs."""
    token_ids, lengths = map(torch.from_numpy, padded(random_captions(config)))
    regions = model.image_encoder(torch.from_numpy(random_regions(config, IMAGES)).double())
    return regions, model.text_encoder(token_ids.long(), lengths), lengths


@pytest.fixture(params=[SGR, SAF], ids=["sgr", "saf"])
def config(request: pytest.FixtureRequest) -> ModelConfig:
    chosen: ModelConfig = request.param
    return chosen


@pytest.fixture
def model(config: ModelConfig) -> SimilarityModel:
    return reference.build_model(config, random_weights(config, 3), torch.float64)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_logit_is_that_of_the_papers_formulas(variant: str) -> None:
    config = VARIANTS[variant]
    weights = random_weights(config, 3)
    model = reference.build_model(config, weights, torch.float64)
    paper = Paper(config, weights)
    expected = [
        [paper.logit(image.astype(np.float64), caption) for caption in random_captions(config)]
        for image in random_regions(config, IMAGES)
    ]

    logits = reference.score(model, *encoded(model, config)).numpy()

    assert logits.shape == (IMAGES, len(LENGTHS))
    assert logits.std() > 1e-3
    depth = logits_depth(config, max(LENGTHS))
    assert_close(logits, expected, depth, np.float64, condition_of(config))


def test_the_model_is_ready_for_inference(config: ModelConfig, model: SimilarityModel) -> None:
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float64}
    assert not any(p.requires_grad for p in model.parameters())
    float32 = reference.build_model(config, random_weights(config, 3))
    assert {p.dtype for p in float32.parameters()} == {torch.float32}


@pytest.mark.parametrize("missing", ["similarity.bias", "image_global.local_norm.running_var"])
def test_a_missing_weight_is_refused(config: ModelConfig, missing: str) -> None:
    weights = random_weights(config, 3)
    del weights[missing]

    with pytest.raises(RuntimeError, match=missing):
        reference.build_model(config, weights)


def test_the_weights_are_copied(config: ModelConfig) -> None:
    weights = random_weights(config, 3)
    weights["similarity.weight"].flags.writeable = False
    model = reference.build_model(config, weights)
    before = model.similarity.bias.clone()

    weights["similarity.bias"][:] = 9

    assert torch.equal(model.similarity.bias, before)


def test_what_stands_past_a_captions_end_is_never_read(
    config: ModelConfig, model: SimilarityModel
) -> None:
    regions, words, lengths = encoded(model, config)
    clean = reference.score(model, regions, words, lengths)
    for row, length in enumerate(lengths):
        assert not words[row, length:].any()
        words[row, length:] = torch.nan

    assert torch.equal(reference.score(model, regions, words, lengths), clean)
    assert not reference.text_globals(model, words, lengths).isnan().any()


def test_every_caption_has_its_own_global_vector(
    config: ModelConfig, model: SimilarityModel
) -> None:
    _, words, lengths = encoded(model, config)

    together = reference.text_globals(model, words, lengths)

    assert together.shape == (len(LENGTHS), config.embed)
    for row, length in enumerate(lengths):
        alone = model.text_global(words[row : row + 1, : int(length)])
        assert torch.equal(together[row], alone[0])


@pytest.mark.parametrize("norm", [l1norm, l2norm])
def test_a_norm_keeps_zero_and_scales_the_rest_to_one(norm: Any) -> None:
    rows = torch.tensor([[0.0, 0.0], [3.0, -4.0]], dtype=torch.float64)

    zero, scaled = norm(rows)

    assert torch.equal(zero, torch.zeros_like(zero))
    order = 1 if norm is l1norm else 2
    length = float(scaled.norm(p=order))
    assert 1 - EPSILON < length < 1  # 5 and 7 are divided by as much more


def test_a_norm_runs_along_the_axis_that_is_asked_for() -> None:
    x = torch.arange(6.0, dtype=torch.float64).reshape(2, 3)

    for norm in (l1norm, l2norm):
        assert_close(norm(x, dim=0), norm(x.T).T, depth=2, dtype=np.float64)
