"""The batched forward is the literal loop: values, gradients and BatchNorm statistics."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from support.closeness import assert_close, condition_of, logits_depth, tolerance
from support.random_weights import random_weights
from support.small_models import VARIANTS, padded, random_captions, random_regions
from torch import Tensor, nn

from sgraf_deploy.model import reference
from sgraf_deploy.model.layers import SimilarityModel
from sgraf_deploy.train import forward
from sgraf_deploy.train.forward import batch_logits

IMAGES = 5
LENGTHS = (7, 3, 1, 9, 7, 12, 2)

DTYPES = {torch.float64: np.float64, torch.float32: np.float32}

BACKWARD = 32.0
"""Condition of gradients: they take the same way back, through quotients by small norms and by
BatchNorms' deviations over few values. A quarter of what it allows was measured."""

SILENT = 1e-3
"""A gradient is measured against its own largest value, but at least this share of the model's
largest: that of a bias before a BatchNorm or a softmax is zero but for rounding."""


def in_training(variant: str, dtype: torch.dtype) -> SimilarityModel:
    config = VARIANTS[variant]
    model = reference.build_model(config, random_weights(config, 3), dtype)
    for layer in model.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = 0.0
    return model.train().requires_grad_(True)


def inputs(variant: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    config = VARIANTS[variant]
    token_ids, lengths = map(torch.from_numpy, padded(random_captions(config, LENGTHS)))
    regions = torch.from_numpy(random_regions(config, IMAGES)).to(dtype)
    return regions, token_ids.long(), lengths.long()


def literal_logits(
    model: SimilarityModel, regions: Tensor, token_ids: Tensor, lengths: Tensor
) -> Tensor:
    words = model.text_encoder(token_ids, lengths)
    return reference.score(model, model.image_encoder(regions), words, lengths)


def gradients_of(model: SimilarityModel) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    present = {name: gradient for name, gradient in found.items() if gradient is not None}
    assert len(present) == len(found)
    return present


@pytest.fixture(params=[1, 3, 32], ids="groups-of-{}".format)
def _group(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "GROUP", request.param)


@pytest.mark.usefixtures("_group")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_and_statistics_are_the_literal_loops(variant: str, dtype: torch.dtype) -> None:
    literal, batched = in_training(variant, dtype), in_training(variant, dtype)
    given = inputs(variant, dtype)
    target = torch.linspace(-1, 3, IMAGES * len(LENGTHS), dtype=dtype).reshape(IMAGES, -1)

    expected, found = literal_logits(literal, *given), batch_logits(batched, *given)
    for logits in (expected, found):
        (logits * target).sum().backward()  # type: ignore[no-untyped-call]

    depth = logits_depth(VARIANTS[variant], max(LENGTHS))
    kind, condition = DTYPES[dtype], condition_of(VARIANTS[variant])
    assert_close(found.detach(), expected.detach(), depth, kind, condition)
    bound = tolerance(1.0, 2 * depth, kind, condition * BACKWARD)
    gradients = gradients_of(literal)
    largest = max(float(gradient.abs().max()) for gradient in gradients.values())
    for name, gradient in gradients_of(batched).items():
        scale = max(float(gradients[name].abs().max()), SILENT * largest)
        difference = float((gradient - gradients[name]).abs().max())
        assert difference <= bound * scale, name
    buffers = dict(literal.named_buffers())
    assert any(name.endswith("running_var") for name in buffers)
    for name, buffer in batched.named_buffers():
        assert_close(buffer, buffers[name], depth, kind, condition)


@pytest.mark.parametrize("variant", ["sgr", "saf"])
def test_in_eval_mode_no_statistics_move(variant: str) -> None:
    model = in_training(variant, torch.float64).eval()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    given = inputs(variant, torch.float64)

    found = batch_logits(model, *given)

    depth = logits_depth(VARIANTS[variant], max(LENGTHS))
    assert_close(found.detach(), literal_logits(model, *given).detach(), depth, np.float64)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])


def test_saf_counts_every_caption_as_a_batch() -> None:
    model = in_training("saf", torch.float64)
    counter = model.filtration.norm.get_buffer("num_batches_tracked")
    before = int(counter)
    batch_logits(model, *inputs("saf", torch.float64))
    assert int(counter) == before + len(LENGTHS)


def test_dropout_is_drawn_anew() -> None:
    config = VARIANTS["sgr"]
    model = reference.build_model(config, random_weights(config, 3)).train()
    given = inputs("sgr", torch.float32)
    assert not torch.equal(batch_logits(model, *given), batch_logits(model, *given))
