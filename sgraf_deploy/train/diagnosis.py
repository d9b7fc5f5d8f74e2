"""Finds the cause of a loss or gradient that is not finite: the first such tensor, and its row."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.model.layers import SimilarityModel
from sgraf_deploy.train.batches import TrainingBatch
from sgraf_deploy.train.forward import batch_logits

LARGE = 1e4
"""No detector gives region features beyond this, so the data is the cause."""

_SLOWER = "use a smaller --learning-rate"


@torch.no_grad()
def not_finite(model: SimilarityModel, batch: TrainingBatch, when: str) -> InputError:
    """The error for a batch, which is computed again to find the first tensor that is not finite.

    `when` begins the message. It is a DataError if an image is the cause. The model cannot be used
    afterwards, because its running statistics change.
    """
    for name, weight in model.named_parameters():
        if not _finite(weight):
            return _error(InputError, f"{when}: weight {name}", weight, _SLOWER)
    largest = batch.regions.abs().flatten(1).amax(dim=1).nan_to_num(torch.inf, torch.inf)
    for name, values, owners in _steps(model, batch):
        if not _finite(values):
            rows = _rows(values, owners, largest)
            kind, hint = _blamed(batch, largest, rows.get("image"))
            whose = " and ".join(
                f"{owner} {getattr(batch, f'{owner}s')[row]}" for owner, row in rows.items()
            )
            return _error(kind, f"{when}: {name} of {whose} (counted from 0)", values, hint)
    kind, hint = _blamed(batch, largest, None)
    for name, weight in model.named_parameters():
        if weight.grad is not None and not _finite(weight.grad):
            return _error(kind, f"{when}: the gradient of {name}", weight.grad, hint)
    return kind(f"{when}: the loss", expected="a finite value", hint=hint)


def _steps(
    model: SimilarityModel, batch: TrainingBatch
) -> Iterator[tuple[str, Tensor, tuple[str, ...]]]:
    """The computed tensors in order, each with its name and the names of its first axes."""
    yield "the regions", batch.regions, ("image",)
    regions = model.image_encoder(batch.regions)
    yield "region_embeddings", regions, ("image",)
    yield "word_embeddings", model.text_encoder(batch.token_ids, batch.lengths), ("caption",)
    yield "image_global", model.image_global(regions), ("image",)
    logits = batch_logits(model, batch.regions, batch.token_ids, batch.lengths)
    yield "the logit", logits, ("image", "caption")


def _rows(values: Tensor, owners: tuple[str, ...], largest: Tensor) -> dict[str, int]:
    """The row in the batch, by axis, of the values that are not finite.

    A BatchNorm spreads one image's values over all, so of several images the one with the largest
    features is chosen.
    """
    axes = len(owners)
    invalid = ~values.isfinite().reshape(*values.shape[:axes], -1).all(dim=-1)
    places = invalid.nonzero()  # (invalid items, axes)
    chosen = int(largest[places[:, 0]].argmax()) if owners[0] == "image" else 0
    return dict(zip(owners, places[chosen].tolist(), strict=True))


def _blamed(batch: TrainingBatch, largest: Tensor, row: int | None) -> tuple[type[InputError], str]:
    """The error class and hint: an image with huge features, in `row` or any, or else the learning
    rate."""
    row = int(largest.argmax()) if row is None else row
    value = float(largest[row])
    if value <= LARGE:
        return InputError, _SLOWER
    return DataError, f"check image {batch.images[row]}, whose regions reach {value:.3g}"


def _error(kind: type[InputError], what: str, values: Tensor, hint: str) -> InputError:
    first = float(values[~values.isfinite()][0])
    return kind(what, expected="finite values", got=first, hint=hint)


def _finite(values: Tensor) -> bool:
    return bool(values.isfinite().all())
