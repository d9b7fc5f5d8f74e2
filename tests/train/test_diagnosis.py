"""A loss or a gradient that is not finite is traced to its tensor, and to its image or caption."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.refusals import check_error, holds, refused
from train.test_trainer import SMALL, THINGS, made_up

from sgraf_deploy.errors import DataError, InputError, SgrafDeployError
from sgraf_deploy.model.layers import SimilarityModel
from sgraf_deploy.train import trainer
from sgraf_deploy.train.batches import TrainingBatch, TrainingData
from sgraf_deploy.train.diagnosis import not_finite
from sgraf_deploy.train.trainer import new_model, train

IMAGE = 17

Spoil = Callable[[NDArray[np.float32]], None]


@pytest.fixture(scope="module")
def data() -> TrainingData:
    return made_up(30, 1)


def put(value: float) -> Spoil:
    def spoil(regions: NDArray[np.float32]) -> None:
        regions[IMAGE, 2, 3] = value

    return spoil


def error_of(data: TrainingData, spoil: Spoil, *, norm: bool = True) -> SgrafDeployError:
    """The error of a training on regions that something is wrong with, in its first epoch."""
    regions = data.regions.copy()
    spoil(regions)
    options = replace(SMALL, model=replace(SMALL.model, image_norm=norm))
    with refused(DataError, 1) as found:
        train(options, 4 + THINGS, replace(data, regions=regions), data)
    return found.error


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("norm", [True, False], ids=["normalised", "unnormalised"])
def test_an_image_with_a_number_that_is_none_is_named(
    data: TrainingData, value: float, norm: bool
) -> None:
    error = error_of(data, put(value), norm=norm)
    check_error(error, "epoch 1", "regions", f"image {IMAGE}", got=value, hint=f"image {IMAGE}")
    assert "--learning-rate" not in (error.hint or "")


def test_an_image_whose_embedding_overflows_is_named(data: TrainingData) -> None:
    def spoil(regions: NDArray[np.float32]) -> None:
        regions[IMAGE, 2] = 3e38

    error = error_of(data, spoil)
    check_error(error, "region_embeddings", f"image {IMAGE}", hint="3e+38")


def test_of_images_that_one_has_spoilt_that_one_is_named(data: TrainingData) -> None:
    """The sum of its region embeddings overflows, and a BatchNorm makes NaN of every image."""
    regions = data.regions.copy()
    regions[IMAGE, :, :4] = 2e38
    spoilt = replace(data, regions=regions)
    batch = spoilt.batch(np.array([40, 3, 88, 12]), torch.device("cpu"))
    assert batch.images[2] == IMAGE
    options = replace(SMALL, model=replace(SMALL.model, image_norm=False))
    error = not_finite(new_model(options, 4 + THINGS, spoilt), batch, "here")
    assert type(error) is DataError
    check_error(error, "here", "image_global", f"image {IMAGE}", hint=f"image {IMAGE}")


def batch_and_model(data: TrainingData) -> tuple[TrainingBatch, SimilarityModel]:
    captions = np.array([40, 3, 88, 12])
    return data.batch(captions, torch.device("cpu")), new_model(SMALL, 4 + THINGS, data)


def test_a_weight_that_is_none_is_named_and_blamed_on_the_rate(data: TrainingData) -> None:
    batch, model = batch_and_model(data)
    with torch.no_grad():
        model.local_alignment.weight[1, 2] = torch.nan
    error = not_finite(model, batch, "here")
    assert type(error) is InputError
    check_error(error, "here", "local_alignment.weight", got="nan", hint="--learning-rate")


def test_a_caption_is_named(data: TrainingData) -> None:
    batch, model = batch_and_model(data)
    word = int(batch.token_ids[2, 1])
    first = next(row for row, ids in enumerate(batch.token_ids) if word in ids)
    with torch.no_grad():
        model.text_encoder.embedding.weight[word] = 3e38
        model.text_encoder.gru.get_parameter("weight_ih_l0")[:] = 3e38
    error = not_finite(model, batch, "here")
    check_error(error, "here", "word_embeddings", f"caption {batch.captions[first]}")


def test_logits_name_image_and_caption(data: TrainingData) -> None:
    batch, model = batch_and_model(data)
    with torch.no_grad():
        model.similarity.weight[:] = 3e38
        model.similarity.bias[:] = 3e38
    error = not_finite(model, batch, "here")
    assert type(error) is InputError
    images = [image for image in batch.images if holds(error.what, f"image {image}")]
    captions = [caption for caption in batch.captions if holds(error.what, f"caption {caption}")]
    assert (len(images), len(captions)) == (1, 1)


def test_a_gradient_is_named(data: TrainingData) -> None:
    batch, model = batch_and_model(data)
    bias = model.image_encoder.projection.bias
    bias.grad = torch.full_like(bias, torch.inf)
    error = not_finite(model, batch, "here")
    check_error(error, "here", "image_encoder.projection.bias", got="inf")


def test_a_gradient_that_is_none_does_not_reach_the_weights(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SimilarityModel] = []

    def look(model: SimilarityModel, batch: TrainingBatch, when: str) -> InputError:
        seen.append(model)
        return InputError(when)

    monkeypatch.setattr(trainer, "not_finite", look)
    hook = "sgraf_deploy.train.trainer.hinge_loss"
    monkeypatch.setattr(hook, lambda values, *_, **__: (values - values.detach()).sqrt().sum())
    with refused(InputError, "epoch 1", "iteration 1"):
        train(SMALL, 4 + THINGS, data, data)
    (model,) = seen
    assert all(weight.isfinite().all() for weight in model.parameters())
