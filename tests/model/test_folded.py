"""The folded model against the literal reference: exact in float64, close in float32."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.closeness import SMALL_NORMS, assert_close, condition_of, logits_depth
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
from torch import Tensor

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.model import folding, reference
from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import fold
from sgraf_deploy.model.ops import GruLayer, Weight
from sgraf_deploy.model.torch_ops import TorchOps

CPU = torch.device("cpu")
IMAGES = 4

Weights = dict[str, NDArray[Any]]


class DoubleOps(TorchOps):
    """The operations in float64, which tells a rewrite that is not exact from rounding."""

    def __init__(self) -> None:
        super().__init__("fp32", CPU)

    def constant(self, name: str, array: Weight) -> Tensor:
        tensor = super().constant(name, array)
        return tensor.double() if tensor.is_floating_point() else tensor

    def load(self, stored: Tensor) -> Tensor:
        return stored

    def word_mask(self, lengths: Tensor, words: Tensor) -> Tensor:
        return super().word_mask(lengths, words).double()

    def _build_gru(self, layer: GruLayer) -> torch.nn.GRU:
        return super()._build_gru(layer).double()


class DoubleModel(FoldedModel[Tensor]):
    """The folded model with weights and constants that were never rounded to float32."""

    def __init__(self, config: ModelConfig, weights: Weights) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(folding, "_float32", np.ascontiguousarray)
            folded = fold(config, weights)
        scale, shift = folding._batchnorm(weights, "image_global.local_norm")
        exact = replace(folded, image_local_scale=scale[:, None], image_local_shift=shift[:, None])
        super().__init__(exact, DoubleOps())

    def _scalar(self, name: str, value: float) -> Tensor:
        return torch.tensor(value, dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """One variant: the folded model in one float type, and the reference in float64."""

    config: ModelConfig
    folded: FoldedModel[Tensor]
    literal: Any
    dtype: torch.dtype

    def encode(
        self, regions: NDArray[np.float32], captions: list[NDArray[np.int32]], extra: int = 0
    ) -> Encoded[Tensor]:
        token_ids, lengths = map(torch.from_numpy, padded(captions, extra))
        return Encoded.of(
            self.folded.image_encoder(torch.from_numpy(regions).to(self.dtype)),
            self.folded.text_encoder(token_ids, lengths),
            lengths,
        )

    def logits(
        self, regions: NDArray[np.float32], captions: list[NDArray[np.int32]], extra: int = 0
    ) -> Tensor:
        return self.folded.scorer(self.encode(regions, captions, extra))

    def expected(
        self, regions: NDArray[np.float32], captions: list[NDArray[np.int32]]
    ) -> dict[str, Tensor]:
        token_ids, lengths = map(torch.from_numpy, padded(captions))
        embeddings = self.literal.image_encoder(torch.from_numpy(regions).double())
        words = self.literal.text_encoder(token_ids.long(), lengths)
        return {
            "region_embeddings": embeddings,
            "image_global": self.literal.image_global(embeddings),
            "word_embeddings": words,
            "text_global": reference.text_globals(self.literal, words, lengths),
            "logits": reference.score(self.literal, embeddings, words, lengths),
        }

    def check(self, found: Tensor, expected: Tensor, condition: float | None = None) -> None:
        assert found.shape == expected.shape
        assert found.dtype == self.dtype
        kind = torch.zeros(0, dtype=self.dtype).numpy().dtype
        depth = logits_depth(self.config, max(LENGTHS))
        assert_close(found, expected, depth, kind, condition or condition_of(self.config))


def make_case(config: ModelConfig, kind: str, seed: int = 3) -> Case:
    weights = random_weights(config, seed)
    literal = reference.build_model(config, weights, torch.float64)
    if kind == "float64":
        return Case(config, DoubleModel(config, weights), literal, torch.float64)
    folded = FoldedModel(fold(config, weights), TorchOps("fp32", CPU))
    return Case(config, folded, literal, torch.float32)


@pytest.fixture(params=["float64", "float32"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["sgr", "saf", "saf-unnormalised", "sgr-2-layers-unidirectional"])
def case(request: pytest.FixtureRequest, kind: str) -> Case:
    return make_case(VARIANTS[request.param], kind)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_output_is_the_references(variant: str, kind: str) -> None:
    case = make_case(VARIANTS[variant], kind)
    regions, captions = random_regions(case.config, IMAGES), random_captions(case.config)

    encoded = case.encode(regions, captions)

    expected = case.expected(regions, captions)
    assert expected["logits"].std() > 1e-3
    case.check(encoded.region_embeddings, expected["region_embeddings"])
    case.check(encoded.image_global, expected["image_global"])
    case.check(encoded.word_embeddings, expected["word_embeddings"])
    case.check(encoded.text_global, expected["text_global"])
    case.check(case.folded.scorer(encoded), expected["logits"])


@pytest.mark.parametrize("block", [1, 5, 8])
def test_the_embedding_axis_may_be_taken_in_pieces(
    case: Case, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert case.config.embed > block
    monkeypatch.setattr("sgraf_deploy.model.folded.EMBED_BLOCK", block)
    regions, captions = random_regions(case.config, IMAGES), random_captions(case.config)
    expected = case.expected(regions, captions)["logits"]
    case.check(case.folded.scorer(case.encode(regions, captions)), expected)


@pytest.mark.parametrize("variant", VARIANTS)
def test_pairs_in_any_order_are_the_references(variant: str, kind: str) -> None:
    case = make_case(VARIANTS[variant], kind)
    regions, captions = random_regions(case.config, IMAGES), random_captions(case.config)
    rng = np.random.default_rng(0)
    rows = torch.from_numpy(rng.integers(0, IMAGES, 40))
    columns = torch.from_numpy(rng.integers(0, len(captions), 40))

    found = case.folded.pair_scorer(
        case.encode(regions, captions), rows.to(torch.int32), columns.to(torch.int32)
    )

    case.check(found, case.expected(regions, captions)["logits"][rows, columns])


@pytest.mark.parametrize("extra", [1, 7, 80])
def test_padding_changes_nothing(case: Case, extra: int) -> None:
    regions, captions = random_regions(case.config, IMAGES), random_captions(case.config)
    expected = case.expected(regions, captions)

    encoded = case.encode(regions, captions, extra)

    longest = max(LENGTHS)
    assert not encoded.word_embeddings[:, longest:].any()
    case.check(encoded.word_embeddings[:, :longest], expected["word_embeddings"])
    case.check(encoded.text_global, expected["text_global"])
    case.check(case.folded.scorer(encoded), expected["logits"])
    index = torch.arange(IMAGES, dtype=torch.int32)
    pairs = case.folded.pair_scorer(encoded, index, index)
    case.check(pairs, expected["logits"].diagonal())


def test_a_caption_alone_scores_as_in_any_batch(case: Case) -> None:
    regions, captions = random_regions(case.config, IMAGES), random_captions(case.config)
    expected = case.expected(regions, captions)["logits"]
    (long,) = random_captions(case.config, (80,), seed=9)

    together = case.logits(regions, [*captions, long])
    reversed_order = case.logits(regions[::-1].copy(), [long, *captions[::-1]])

    case.check(together[:, :-1], expected)
    case.check(reversed_order[:, 1:].flip(0, 1), expected)
    for column, caption in enumerate(captions):
        case.check(case.logits(regions, [caption]), expected[:, [column]])
    for row in range(IMAGES):
        case.check(case.logits(regions[[row]], captions), expected[[row]])


def test_an_image_of_zeros_is_scored_like_any_other(case: Case) -> None:
    """Without a bias its embeddings are zero vectors, which every norm must leave alone."""
    weights = random_weights(case.config, 3) | {
        "image_encoder.projection.bias": np.zeros(case.config.embed, dtype=np.float32)
    }
    literal = reference.build_model(case.config, weights, torch.float64)
    folded: FoldedModel[Tensor] = FoldedModel(fold(case.config, weights), TorchOps("fp32", CPU))
    if case.dtype == torch.float64:
        folded = DoubleModel(case.config, weights)
    case = replace(case, folded=folded, literal=literal)
    regions = np.zeros_like(random_regions(case.config, 1))
    captions = random_captions(case.config)

    encoded = case.encode(regions, captions)

    assert not encoded.region_embeddings.any()
    expected = case.expected(regions, captions)["logits"]
    case.check(case.folded.scorer(encoded), expected)
    index = torch.arange(len(captions), dtype=torch.int32)
    case.check(case.folded.pair_scorer(encoded, 0 * index, index), expected[0])


@pytest.mark.parametrize("variant", ["sgr", "saf"])
def test_captions_of_one_word(variant: str) -> None:
    """With one word the norm over words leaves a sign, so only float64 tells right from wrong."""
    case = make_case(VARIANTS[variant], "float64")
    regions, captions = random_regions(case.config, IMAGES), random_captions(case.config, (1, 6, 1))

    case.check(case.logits(regions, captions), case.expected(regions, captions)["logits"])
    case.check(case.logits(regions, captions[:1]), case.expected(regions, captions[:1])["logits"])


def test_captions_of_start_and_end_alone(case: Case) -> None:
    regions, captions = random_regions(case.config, IMAGES), random_captions(case.config, (2, 2, 2))

    expected = case.expected(regions, captions)["logits"]
    case.check(case.logits(regions, captions), expected, SMALL_NORMS)


@pytest.mark.parametrize("step", range(SGR.sgr_steps))
def test_one_matrix_and_one_vector_stand_for_queries_and_keys(step: int) -> None:
    weights = random_weights(SGR, 3)
    literal = reference.build_model(SGR, weights, torch.float64).reasoning
    key = DoubleModel(SGR, weights).weights.reasoning[step].key
    nodes = torch.from_numpy(np.random.default_rng(0).standard_normal((5, 9, SGR.sim_dim)))
    module: Any = list(literal)[step]
    scores = module.query(nodes) @ module.key(nodes).transpose(1, 2)

    folded = (nodes @ torch.from_numpy(key.weight) + torch.from_numpy(key.bias)) @ nodes.mT

    assert (folded - scores).abs().max() > 1e-2, "terms constant over the keys are left out"
    depth, largest = 3 * SGR.sim_dim + nodes.shape[1], float(scores.abs().max())
    assert_close(folded.softmax(-1), scores.softmax(-1), depth, np.float64, condition=largest)


@pytest.mark.parametrize(
    ("linear", "norm", "name"),
    [
        ("image_global.mean", "image_global.mean_norm", "image_mean"),
        ("filtration.attention", "filtration.norm", "filtration"),
    ],
    ids=["image-mean", "filtration"],
)
def test_a_batchnorm_disappears_into_the_layer_before_it(linear: str, norm: str, name: str) -> None:
    weights = random_weights(SAF, 3)
    literal = reference.build_model(SAF, weights, torch.float64)
    before, after = literal.get_submodule(linear), literal.get_submodule(norm)
    inputs = weights[f"{linear}.weight"].shape[1]
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((6, inputs)))

    folded = getattr(DoubleModel(SAF, weights).weights, name)

    assert isinstance(folded, folding.Linear)
    found = x @ torch.from_numpy(folded.weight) + torch.from_numpy(folded.bias)
    assert_close(found, after(before(x)), inputs, np.float64)


def test_the_region_batchnorm_stays_a_scale_and_shift_per_region() -> None:
    weights = random_weights(SAF, 3)
    norm = reference.build_model(SAF, weights, torch.float64).image_global.local_norm
    folded = fold(SAF, weights)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((6, SAF.regions, SAF.embed)))

    found = x * torch.from_numpy(folded.image_local_scale) + torch.from_numpy(
        folded.image_local_shift
    )

    assert folded.image_local_scale.shape == (SAF.regions, 1)
    assert_close(found, norm(x), depth=2)


@pytest.mark.parametrize("variant", VARIANTS)
def test_folded_weights_are_float32_and_of_their_own_memory(variant: str) -> None:
    config = VARIANTS[variant]
    weights = random_weights(config, 3)

    folded = fold(config, weights)

    arrays = [value for value in vars(folded).values() if isinstance(value, np.ndarray)]
    layers = [value for value in vars(folded).values() if isinstance(value, folding.Linear)]
    layers += [layer for step in folded.reasoning for layer in (step.key, step.update)]
    arrays += [array for layer in layers for array in (layer.weight, layer.bias)]
    arrays += [
        array
        for layer in folded.gru
        for array in (layer.input, layer.hidden, layer.input_bias, layer.hidden_bias)
    ]
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}
    assert all(array.flags.c_contiguous for array in arrays)
    assert len(folded.reasoning) == config.sgr_steps
    assert (folded.filtration is None) == (config.module == "SGR")
    assert len(folded.gru) == config.num_layers
    assert {layer.directions for layer in folded.gru} == {1 + config.bidirectional}
    assert {layer.units for layer in folded.gru} == {config.embed}
