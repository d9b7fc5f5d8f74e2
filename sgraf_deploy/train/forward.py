"""The training forward: every image with every caption of a batch, differentiable and batched.

It has the same values, gradients and BatchNorm statistics as the literal loop
(`model.reference.score`) in training mode, but scores several captions at a time. Axis names:
`images` N, `regions` R, `captions` C, `words` L, `nodes` 1 + L, `embed` D, `sim_dim` S.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from sgraf_deploy.model.constants import ATTENTION_SMOOTHING, LEAKY_SLOPE
from sgraf_deploy.model.layers import (
    AttentionFiltration,
    GraphReasoning,
    SimilarityModel,
    WordSelfAttention,
    l1norm,
    l2norm,
)

GROUP = 32
"""Captions, sorted by length, that are scored together: few enough for little padding."""


def batch_logits(
    model: SimilarityModel, regions: Tensor, token_ids: Tensor, lengths: Tensor
) -> Tensor:
    """Logits (images, captions) of raw inputs, in the model's mode, with its dropout.

    regions (images, regions, img_dim) float; token_ids (captions, words) int64, padded with any
    id; lengths (captions,) int64 on the CPU, the real words. In training mode the BatchNorms'
    running statistics change as in the literal loop: SAF's once per caption, in order.
    """
    embeddings = model.image_encoder(regions)
    words = model.text_encoder(token_ids, lengths)
    image_global = model.image_global(embeddings)
    saf = model.config.module == "SAF"
    statistics = _CaptionStatistics(model.filtration, len(lengths)) if saf else None
    order = torch.argsort(lengths, stable=True)
    columns = []
    for rows in torch.split(order, GROUP):
        longest = int(lengths[rows].max())
        mask = _mask(lengths[rows], longest).to(words)
        group = words[rows.to(words.device), :longest] * mask.unsqueeze(2)
        nodes = _alignments(model, embeddings, image_global, group, mask)
        columns.append(_group_logits(model, nodes, mask, statistics, rows))
    if statistics is not None:
        statistics.update()
    return torch.cat(columns, dim=1)[:, torch.argsort(order).to(words.device)]


def _mask(lengths: Tensor, words: int) -> Tensor:
    """(captions,) -> (captions, words) of True for the real ones."""
    return torch.arange(words, device=lengths.device) < lengths.unsqueeze(1)


def _alignments(
    model: SimilarityModel, regions: Tensor, image_global: Tensor, words: Tensor, mask: Tensor
) -> Tensor:
    """(N, R, D), (N, D), padded (C, L, D) and (C, L) -> alignments (N, C, 1 + L, S)."""
    text_global = _text_global(model.text_global, words, mask)
    attention = leaky_relu(torch.einsum("nrd,cld->ncrl", regions, words), LEAKY_SLOPE)
    attention = l2norm(attention * mask.unsqueeze(1), dim=3)
    weights = torch.softmax(attention * ATTENTION_SMOOTHING, dim=2)
    context = l2norm(torch.einsum("ncrl,nrd->ncld", weights, regions))
    local = l2norm(model.local_alignment((context - words).square()))
    difference = image_global.unsqueeze(1) - text_global  # (N, C, D)
    overall = l2norm(model.global_alignment(difference.square()))
    return torch.cat([overall.unsqueeze(2), local], dim=2)


def _text_global(layer: WordSelfAttention, words: Tensor, mask: Tensor) -> Tensor:
    """Padded words (C, L, D) and their mask -> (C, D): `WordSelfAttention`, several at a time."""
    mean = words.sum(dim=1) / mask.sum(dim=1, keepdim=True)
    query = layer.dropout(torch.tanh(layer.mean(mean)))
    keys = layer.dropout(torch.tanh(layer.local(words)))
    scores = layer.attention(keys * query.unsqueeze(1)).squeeze(2)
    weights = torch.softmax(scores.masked_fill(mask == 0, -torch.inf), dim=1)
    return l2norm((weights.unsqueeze(2) * words).sum(dim=1))


def _group_logits(
    model: SimilarityModel,
    nodes: Tensor,
    mask: Tensor,
    statistics: _CaptionStatistics | None,
    rows: Tensor,
) -> Tensor:
    """(N, C, 1 + L, S) and the word mask (C, L) -> logits (N, C)."""
    real = torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1)  # the global node always is
    if statistics is not None:
        vector = _filter(model.filtration, nodes, real, statistics, rows)
    else:
        for step in cast("Iterable[GraphReasoning]", model.reasoning):
            nodes = _reason(step, nodes, real)
        vector = nodes[:, :, 0]
    logits: Tensor = model.similarity(vector)
    return logits.squeeze(2)


def _reason(step: GraphReasoning, nodes: Tensor, real: Tensor) -> Tensor:
    """`GraphReasoning` over the real nodes; the values of padded nodes are never read."""
    scores = step.query(nodes) @ step.key(nodes).transpose(2, 3)
    edges = torch.softmax(scores.masked_fill(real.unsqueeze(1) == 0, -torch.inf), dim=-1)
    return torch.relu(step.update(edges @ nodes))


def _filter(
    layer: AttentionFiltration,
    nodes: Tensor,
    real: Tensor,
    statistics: _CaptionStatistics,
    rows: Tensor,
) -> Tensor:
    """`AttentionFiltration` with BatchNorm statistics of the images and nodes of each caption."""
    scores = layer.attention(nodes).squeeze(3)  # (N, C, 1 + L)
    mean, variance = statistics.of(scores, real, rows)
    norm = layer.norm
    scores = (scores - mean) / (variance + norm.eps).sqrt() * norm.weight + norm.bias
    gates = torch.sigmoid(scores) * real
    return l2norm((l1norm(gates).unsqueeze(2) @ nodes).squeeze(2))


class _CaptionStatistics:
    """SAF's BatchNorm: in training every caption is a separate batch, images x (words + 1)."""

    def __init__(self, layer: AttentionFiltration, captions: int) -> None:
        self._norm = layer.norm
        self._captions = captions
        self._seen: list[tuple[Tensor, Tensor, Tensor]] = []

    def of(self, scores: Tensor, real: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and variance to normalise scores (N, C, 1 + L): (C, 1), or the running ones."""
        if not self._norm.training:
            return self._norm.get_buffer("running_mean"), self._norm.get_buffer("running_var")
        count = scores.shape[0] * real.sum(dim=1, keepdim=True)
        mean = (scores * real).sum(dim=(0, 2)).unsqueeze(1) / count
        variance = ((scores - mean).square() * real).sum(dim=(0, 2)).unsqueeze(1) / count
        unbiased = variance.detach() * count / (count - 1)
        self._seen.append((rows, mean.detach().squeeze(1), unbiased.squeeze(1)))
        return mean, variance

    @torch.no_grad()
    def update(self) -> None:
        """Update the running statistics with every caption, in the batch's order."""
        if not self._seen:
            return
        norm, momentum = self._norm, self._norm.momentum or 0.0
        rows, means, variances = (torch.cat(parts) for parts in zip(*self._seen, strict=True))
        order = torch.argsort(rows).to(means.device)
        # running <- (1 - m) running + m value, caption after caption.
        powers = torch.arange(self._captions - 1, -1, -1).to(means)
        shares = momentum * (1 - momentum) ** powers
        kept = (1 - momentum) ** self._captions
        norm.get_buffer("running_mean").mul_(kept).add_((means[order] * shares).sum())
        norm.get_buffer("running_var").mul_(kept).add_((variances[order] * shares).sum())
        norm.get_buffer("num_batches_tracked").add_(self._captions)
