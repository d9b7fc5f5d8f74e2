"""Training on a task that a small model learns in seconds."""

from __future__ import annotations

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.closeness import assert_close, logits_depth
from support.refusals import ANY, holds, naming, refused

from sgraf_deploy.errors import DataError, EngineMemoryError, InputError
from sgraf_deploy.evaluation.recall import evaluate
from sgraf_deploy.model import reference
from sgraf_deploy.model.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from sgraf_deploy.train.batches import TrainingData, pad
from sgraf_deploy.train.loss import CollapseWatch
from sgraf_deploy.train.options import ModelOptions, TrainOptions
from sgraf_deploy.train.trainer import Epoch, Hooks, new_model, train
from sgraf_deploy.train.validation import split_logits

THINGS, REGIONS, IMG_DIM = 12, 5, 16

SMALL = TrainOptions(
    model=ModelOptions("SGR", embed=16, sim_dim=8, word_dim=8, sgr_steps=2),
    epochs=2,
    batch_size=20,
    learning_rate=5e-3,
    warmup_epochs=2,
    seed=4,
)


def made_up(images: int, seed: int, captions_per_image: int = 5) -> TrainingData:
    """Images show three things each, in noisy regions; captions name them in some order."""
    looks = np.random.default_rng(99).standard_normal((THINGS, IMG_DIM)).astype(np.float32)
    rng = np.random.default_rng(seed)
    regions = 0.1 * rng.standard_normal((images, REGIONS, IMG_DIM)).astype(np.float32)
    token_ids: list[NDArray[np.int32]] = []
    for image in range(images):
        things = rng.permutation(THINGS)[:3]
        regions[image, :3] += looks[things]
        for _ in range(captions_per_image):
            words = rng.permutation(4 + things)[: rng.integers(2, 4)]
            token_ids.append(np.array([1, *words, 2], dtype=np.int32))
    owners = np.arange(len(token_ids), dtype=np.int32) // np.int32(captions_per_image)
    return TrainingData(regions, token_ids, owners, captions_per_image)


@pytest.fixture(scope="module")
def data() -> tuple[TrainingData, TrainingData]:
    return made_up(60, 1), made_up(20, 2)


@pytest.mark.parametrize("module", ["SGR", "SAF"])
def test_it_learns(module: str, data: tuple[TrainingData, TrainingData]) -> None:
    epochs: list[Epoch] = []
    saved: list[Checkpoint] = []
    ticks = count()
    hooks = Hooks(save=saved.append, epoch=epochs.append, clock=lambda: float(next(ticks)))
    model = replace(SMALL.model, module=module)  # type: ignore[arg-type]  # one of two strings
    options = replace(SMALL, model=model, epochs=8, warmup_epochs=6)

    best = train(options, 4 + THINGS, *data, hooks)

    assert [epoch.number for epoch in epochs] == list(range(1, 9))
    assert {epoch.seconds for epoch in epochs} == {1.0}
    assert epochs[5].loss < 0.8 * epochs[0].loss
    assert best.best_rsum == max(epoch.report.rsum for epoch in epochs) > 1.3 * 107.5  # chance
    assert saved[-1] is best
    assert [c.epoch for c in saved] == [epoch.number for epoch in epochs if epoch.best]
    assert best.epoch is not None
    assert best.iterations == best.epoch * (300 // 20)


def test_a_checkpoint_scores_as_it_was_validated(
    data: tuple[TrainingData, TrainingData], tmp_path: Path
) -> None:
    best = train(SMALL, 4 + THINGS, *data)
    write_checkpoint(tmp_path / "best.pth.tar", best)

    found = read_checkpoint(tmp_path / "best.pth.tar")

    model = reference.build_model(found.config, found.weights)
    token_ids, lengths = pad(data[1].token_ids)
    regions = model.image_encoder(torch.from_numpy(data[1].regions))
    logits = reference.score(model, regions, model.text_encoder(token_ids, lengths), lengths)
    assert evaluate(logits.numpy(), 5).rsum == pytest.approx(found.best_rsum)
    assert (found.epoch, found.iterations) == (best.epoch, best.iterations)
    assert found.options["margin"] == SMALL.margin
    assert_close(split_logits(model, data[1]), logits, logits_depth(found.config, words=5))


def test_a_seed_gives_the_same_weights(data: tuple[TrainingData, TrainingData]) -> None:
    first, again = (train(SMALL, 4 + THINGS, *data) for _ in range(2))
    other = train(replace(SMALL, seed=5), 4 + THINGS, *data)
    for name, weight in first.weights.items():
        assert np.array_equal(weight, again.weights[name]), name
    assert not np.array_equal(
        first.weights["similarity.weight"], other.weights["similarity.weight"]
    )


def test_a_collapsed_loss_is_warned_of_once(
    data: tuple[TrainingData, TrainingData], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CollapseWatch, "patience", 5)
    monkeypatch.setattr("sgraf_deploy.train.trainer.CollapseWatch", lambda: CollapseWatch(5))
    warnings: list[str] = []
    frozen = replace(SMALL, learning_rate=1e-12, warmup_epochs=0, margin=2000.0)
    train(frozen, 4 + THINGS, *data, Hooks(warn=warnings.append))
    (warning,) = warnings
    assert holds(warning, "8e+04")  # 2 × batch × margin
    assert holds(warning, "--warmup-epochs")


@pytest.mark.parametrize("module", ["SGR", "SAF"])
@pytest.mark.parametrize("norm", [True, False], ids=["normalised", "unnormalised"])
def test_images_with_fewer_boxes_train(
    module: str, norm: bool, data: tuple[TrainingData, TrainingData]
) -> None:
    regions = data[0].regions.copy()
    regions[::2, 3:] = 0
    regions[7] = 0
    model = replace(SMALL.model, module=module, image_norm=norm)  # type: ignore[arg-type]  # a module
    epochs: list[Epoch] = []
    best = train(
        replace(SMALL, model=model, epochs=8, warmup_epochs=6),
        4 + THINGS,
        replace(data[0], regions=regions),
        data[1],
        Hooks(epoch=epochs.append),
    )
    assert all(np.isfinite(weight).all() for weight in best.weights.values())
    assert epochs[5].loss < 0.8 * epochs[0].loss


def test_every_caption_is_taken_once_an_epoch(data: tuple[TrainingData, TrainingData]) -> None:
    generator = torch.Generator().manual_seed(0)
    batches = list(data[0].batches(70, generator, torch.device("cpu")))
    assert [len(batch.lengths) for batch in batches] == [70] * 4
    for batch in batches:
        for row, length in zip(batch.token_ids, batch.lengths, strict=True):
            assert row[0] == 1
            assert row[length - 1] == 2
            assert not row[length:].any()


def test_a_batch_larger_than_the_data_is_refused(data: tuple[TrainingData, TrainingData]) -> None:
    with refused(DataError, expected=naming(300), got=301):
        train(replace(SMALL, batch_size=301), 4 + THINGS, *data)


def test_regions_of_other_shapes_are_refused(data: tuple[TrainingData, TrainingData]) -> None:
    other = replace(data[1], regions=data[1].regions[:, 1:])
    expected, got = data[0].regions.shape[1:], other.regions.shape[1:]
    with refused(DataError, "regions", expected=naming(expected), got=got):
        train(SMALL, 4 + THINGS, data[0], other)


def test_a_model_that_does_not_fit_into_memory_says_so(
    data: tuple[TrainingData, TrainingData],
) -> None:
    huge = replace(SMALL, model=replace(SMALL.model, embed=10**11))
    with refused(EngineMemoryError, got=ANY, hint="--batch-size"):
        train(huge, 4 + THINGS, *data)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("epochs", 0), ("batch_size", 1), ("lr_update", 0), ("learning_rate", 0.0)),
        *(("margin", -0.1), ("grad_clip", float("nan")), ("warmup_epochs", -1)),
        *(("learning_rate", float("inf")), ("margin", float("inf")), ("seed", 2**63)),
    ],
)
def test_a_schedule_that_makes_no_training_is_refused(field: str, value: float) -> None:
    with refused(InputError, field.replace("_", " "), got=value):
        replace(SMALL, **{field: value})  # type: ignore[arg-type]  # that is the point


def test_the_schedule_by_epoch() -> None:
    options = TrainOptions(warmup_epochs=2, lr_update=3, learning_rate=1.0)
    assert [options.hardest_in(epoch) for epoch in range(4)] == [False, False, True, True]
    rates = [options.learning_rate_in(epoch) for epoch in range(7)]
    assert rates == pytest.approx([1, 1, 1, 0.1, 0.1, 0.1, 0.01])
    assert not replace(options, hardest=False).hardest_in(5)


def test_the_initial_weights_are_the_authors(data: tuple[TrainingData, TrainingData]) -> None:
    model = new_model(SMALL, 4 + THINGS, data[0])
    weight = model.local_alignment.weight
    assert float(weight.detach().abs().max()) <= (6 / sum(weight.shape)) ** 0.5
    assert not model.local_alignment.bias.any()
    assert float(model.text_encoder.embedding.weight.detach().abs().max()) <= 0.1
