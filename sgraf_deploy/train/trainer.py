"""The training loop: hinge loss, Adam, and validation by rsum, which keeps the best checkpoint."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from sgraf_deploy.engines.torch.memory import memory_errors
from sgraf_deploy.errors import DataError
from sgraf_deploy.evaluation.recall import RecallReport, evaluate
from sgraf_deploy.model.checkpoint import Checkpoint
from sgraf_deploy.model.layers import SimilarityModel
from sgraf_deploy.progress import Progress
from sgraf_deploy.train.batches import TrainingData
from sgraf_deploy.train.diagnosis import not_finite
from sgraf_deploy.train.forward import batch_logits
from sgraf_deploy.train.loss import CollapseWatch, collapsed_loss, hinge_loss
from sgraf_deploy.train.options import TrainOptions
from sgraf_deploy.train.validation import split_logits

log = logging.getLogger(__name__)

EMBEDDING_RANGE = 0.1
"""Word embeddings are initialised uniformly in ± this value, as in the authors' code."""


@dataclass(frozen=True)
class Epoch:
    """The results of an epoch: its number from 1, mean loss per batch, validation, wall seconds."""

    number: int
    loss: float
    learning_rate: float
    report: RecallReport
    best: bool
    seconds: float


@dataclass(frozen=True)
class Hooks:
    """The callbacks of training.

    `save` is called with each checkpoint that is better than all before, `epoch` with each epoch's
    results, `stage` with the name of a long stage, for which it returns a progress callback, and
    `warn` with a warning.
    """

    save: Callable[[Checkpoint], None] = lambda checkpoint: None
    epoch: Callable[[Epoch], None] = lambda epoch: None
    stage: Callable[[str], Progress | None] = lambda name: None
    warn: Callable[[str], None] = log.warning
    clock: Callable[[], float] = time.perf_counter


def train(
    options: TrainOptions,
    vocab_size: int,
    training: TrainingData,
    validation: TrainingData,
    hooks: Hooks = Hooks(),
    device: str = "cpu",
) -> Checkpoint:
    """Train one member and return its best checkpoint, by rsum on the validation split.

    The same options, data, device and number of threads give the same weights. Raises DataError
    for data that fill no batch or do not fit together, and the error of `not_finite` for a loss or
    a gradient that is not finite; EngineMemoryError for a model or a batch that is too large.
    """
    with memory_errors("take smaller dimensions, or a smaller --batch-size"):
        model = new_model(options, vocab_size, training)
        _check_data(options, model, training, validation)
        trainer = _Trainer(options, model.to(device), training, validation, hooks)
        best = trainer.run(0, None)
        for epoch in range(1, options.epochs):
            best = trainer.run(epoch, best)
    return best


def new_model(options: TrainOptions, vocab_size: int, data: TrainingData) -> SimilarityModel:
    """A model in training mode with the authors' initial weights, from the options' seed.

    Linear layers are Xavier-uniform with zero biases, and word embeddings uniform; the GRU keeps
    PyTorch's initial weights.
    """
    torch.manual_seed(options.seed)
    regions, img_dim = data.regions.shape[1:]
    model = SimilarityModel(
        options.model.config(regions=regions, img_dim=img_dim, vocab_size=vocab_size)
    )
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.Embedding):
            nn.init.uniform_(layer.weight, -EMBEDDING_RANGE, EMBEDDING_RANGE)
    return model.train()


class _Trainer:
    def __init__(
        self,
        options: TrainOptions,
        model: SimilarityModel,
        training: TrainingData,
        validation: TrainingData,
        hooks: Hooks,
    ) -> None:
        self._options, self._model, self._hooks = options, model, hooks
        self._training, self._validation = training, validation
        self._optimizer = torch.optim.Adam(model.parameters(), lr=options.learning_rate)
        self._generator = torch.Generator().manual_seed(options.seed)
        self._watch = CollapseWatch()
        self._warned = False
        self._iterations = 0

    def run(self, epoch: int, best: Checkpoint | None) -> Checkpoint:
        """Train and validate epoch 0, 1, …, and return the best checkpoint: `best` or this one."""
        start = self._hooks.clock()
        for group in self._optimizer.param_groups:
            group["lr"] = self._options.learning_rate_in(epoch)
        loss = self._iterate(epoch)
        progress = self._hooks.stage(f"validating {epoch + 1}")
        logits = split_logits(self._model, self._validation, progress)
        report = evaluate(logits, self._validation.captions_per_image)
        current = self._checkpoint(epoch, report.rsum)
        if best is None or best.best_rsum is None or report.rsum > best.best_rsum:
            best = current
            self._hooks.save(best)
        seconds = self._hooks.clock() - start
        rate = self._options.learning_rate_in(epoch)
        self._hooks.epoch(Epoch(epoch + 1, loss, rate, report, best is current, seconds))
        return best

    def _iterate(self, epoch: int) -> float:
        """Train for one pass over the captions, and return the mean loss per batch."""
        options = self._options
        device = self._model.similarity.weight.device
        count = len(self._training.token_ids) // options.batch_size
        progress = self._hooks.stage(f"epoch {epoch + 1} of {options.epochs}")
        total = 0.0
        batches = self._training.batches(options.batch_size, self._generator, device)
        for done, batch in enumerate(batches, 1):
            self._optimizer.zero_grad()
            logits = batch_logits(self._model, batch.regions, batch.token_ids, batch.lengths)
            hardest = options.hardest_in(epoch)
            loss = hinge_loss(torch.sigmoid(logits), options.margin, hardest=hardest)
            loss.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(self._model.parameters(), options.grad_clip)
            self._iterations += 1
            value = float(loss.detach())
            if not (math.isfinite(value) and math.isfinite(norm)):
                when = f"epoch {epoch + 1}, iteration {self._iterations}"
                raise not_finite(self._model, batch, when)
            self._optimizer.step()
            self._warn_of_collapse(value, hardest)
            total += value
            if progress is not None:
                progress(done, count)
        return total / count

    def _warn_of_collapse(self, loss: float, hardest: bool) -> None:
        """Warn once if the loss has collapsed."""
        options = self._options
        size, margin = options.batch_size, options.margin
        if hardest and self._watch.collapsed(loss, size, margin) and not self._warned:
            self._warned = True
            self._hooks.warn(
                f"the loss has collapsed: for {self._watch.patience} iterations it has stayed at "
                f"2 × batch × margin = {collapsed_loss(size, margin):.4g}, the value for a model "
                "to which every image and caption are equally similar; train again with more "
                "--warmup-epochs, or a smaller --learning-rate"
            )

    def _checkpoint(self, epoch: int, rsum: float) -> Checkpoint:
        state = self._model.state_dict()
        return Checkpoint(
            config=self._model.config,
            weights={name: weight.detach().cpu().numpy().copy() for name, weight in state.items()},
            epoch=epoch + 1,
            best_rsum=rsum,
            data_name=self._options.data_name,
            options=self._options.to_opt(),
            iterations=self._iterations,
        )


def _check_data(
    options: TrainOptions,
    model: SimilarityModel,
    training: TrainingData,
    validation: TrainingData,
) -> None:
    captions = len(training.token_ids)
    if captions < options.batch_size:
        raise DataError(
            "batch size", expected=f"at most the {captions} captions", got=options.batch_size
        )
    if training.regions.shape[1:] != validation.regions.shape[1:]:
        raise DataError(
            "regions of the validation split",
            expected=f"{training.regions.shape[1:]} per image, as in training",
            got=validation.regions.shape[1:],
        )
