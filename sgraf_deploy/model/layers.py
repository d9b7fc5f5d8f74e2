"""The layers of SGRAF as the paper defines them (Diao et al., AAAI 2021), in PyTorch.

Attribute names are this package's weight names; `keys` maps them to the authors' state dicts.
Axis names: `images`, `regions`, `words`, `nodes` (= 1 + words, the global alignment first).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.model.constants import EPSILON


def l2norm(x: Tensor, dim: int = -1) -> Tensor:
    """x / (‖x‖₂ + 1e-8) along `dim`; a zero vector stays zero and gets no gradient."""
    if torch.is_grad_enabled() and x.requires_grad:
        normalised: Tensor = _L2Norm.apply(x, dim)  # type: ignore[no-untyped-call]
        return normalised
    return x / (_norm(x, dim) + EPSILON)


def _norm(x: Tensor, dim: int) -> Tensor:
    return x.square().sum(dim=dim, keepdim=True).sqrt()


class _L2Norm(torch.autograd.Function):
    """`l2norm` with a finite gradient at zero, where the gradient of the square root is infinite.

    The formula's own gradient at zero is 1e8 times the incoming one, so regions of zeros, which pad
    images with fewer boxes, would dominate a training step. They carry no information and get no
    gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        norm = _norm(x, dim)
        ctx.save_for_backward(x, norm)
        ctx.dim = dim
        return x / (norm + EPSILON)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        x, norm = ctx.saved_tensors
        zero = norm == 0
        scale = (norm + EPSILON).reciprocal().masked_fill(zero, 0)
        along = (gradient * x).sum(dim=ctx.dim, keepdim=True) / norm.masked_fill(zero, 1)
        return (gradient - x * (along * scale)) * scale, None


def l1norm(x: Tensor, dim: int = -1) -> Tensor:
    """x / (‖x‖₁ + 1e-8) along `dim`."""
    return x / (x.abs().sum(dim=dim, keepdim=True) + EPSILON)


class ImageEncoder(nn.Module):
    """Project region features into the joint space: v = l2norm(W x + b)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.normalise = config.image_norm
        self.projection = nn.Linear(config.img_dim, config.embed)

    def forward(self, regions: Tensor) -> Tensor:
        """(images, regions, img_dim) -> (images, regions, embed)."""
        embeddings: Tensor = self.projection(regions)
        return l2norm(embeddings) if self.normalise else embeddings


class TextEncoder(nn.Module):
    """Embed words and run a (bi)GRU over the real words; directions are averaged."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.normalise = config.text_norm
        self.bidirectional = config.bidirectional
        self.embedding = nn.Embedding(config.vocab_size, config.word_dim)
        self.dropout = nn.Dropout(0.4)
        self.gru = nn.GRU(
            config.word_dim,
            config.embed,
            config.num_layers,
            batch_first=True,
            bidirectional=config.bidirectional,
        )

    def forward(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """(captions, words) ids, (captions,) lengths -> (captions, words, embed), zero padded."""
        embedded = self.dropout(self.embedding(token_ids))
        packed = nn.utils.rnn.pack_padded_sequence(
            embedded, lengths.cpu().long(), batch_first=True, enforce_sorted=False
        )
        states, _ = nn.utils.rnn.pad_packed_sequence(
            self.gru(packed)[0], batch_first=True, total_length=token_ids.shape[1]
        )
        if self.bidirectional:
            half = states.shape[-1] // 2
            states = (states[..., :half] + states[..., half:]) / 2
        return l2norm(states) if self.normalise else states


class RegionSelfAttention(nn.Module):
    """The image's global vector: its regions, attended by their mean.

    Paper: "Generic Representation Extraction".
    """

    def __init__(self, config: ModelConfig, dropout: float = 0.4) -> None:
        super().__init__()
        self.local = nn.Linear(config.embed, config.embed)
        self.local_norm = nn.BatchNorm1d(config.regions)
        self.mean = nn.Linear(config.embed, config.embed)
        self.mean_norm = nn.BatchNorm1d(config.embed)
        self.attention = nn.Linear(config.embed, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, local: Tensor) -> Tensor:
        """(images, regions, embed) -> (images, embed), unit length."""
        query = self.dropout(torch.tanh(self.mean_norm(self.mean(local.mean(dim=1)))))
        keys = self.dropout(torch.tanh(self.local_norm(self.local(local))))
        weights = torch.softmax(self.attention(keys * query.unsqueeze(1)).squeeze(2), dim=1)
        return l2norm((weights.unsqueeze(2) * local).sum(dim=1))


class WordSelfAttention(nn.Module):
    """The caption's global vector: real words attended by their mean."""

    def __init__(self, config: ModelConfig, dropout: float = 0.4) -> None:
        super().__init__()
        self.local = nn.Linear(config.embed, config.embed)
        self.mean = nn.Linear(config.embed, config.embed)
        self.attention = nn.Linear(config.embed, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, words: Tensor) -> Tensor:
        """(1, words, embed), real words only -> (1, embed), unit length."""
        query = self.dropout(torch.tanh(self.mean(words.mean(dim=1))))
        keys = self.dropout(torch.tanh(self.local(words)))
        weights = torch.softmax(self.attention(keys * query.unsqueeze(1)).squeeze(2), dim=1)
        return l2norm((weights.unsqueeze(2) * words).sum(dim=1))


class GraphReasoning(nn.Module):
    """One step of edges, message and update over the alignments.

    Paper: "Similarity Graph Reasoning".
    """

    def __init__(self, sim_dim: int) -> None:
        super().__init__()
        self.query = nn.Linear(sim_dim, sim_dim)
        self.key = nn.Linear(sim_dim, sim_dim)
        self.update = nn.Linear(sim_dim, sim_dim)

    def forward(self, nodes: Tensor) -> Tensor:
        """(images, nodes, sim_dim) -> the same shape."""
        return torch.relu(self.update(self.edges(nodes) @ nodes))

    def edges(self, nodes: Tensor) -> Tensor:
        """(images, nodes, sim_dim) -> (images, nodes, nodes), every row a distribution."""
        return torch.softmax(self.query(nodes) @ self.key(nodes).transpose(1, 2), dim=-1)


class AttentionFiltration(nn.Module):
    """The gated sum of the alignments (paper: "Similarity Attention Filtration")."""

    def __init__(self, sim_dim: int) -> None:
        super().__init__()
        self.attention = nn.Linear(sim_dim, 1)
        self.norm = nn.BatchNorm1d(1)

    def forward(self, nodes: Tensor) -> Tensor:
        """(images, nodes, sim_dim) -> (images, sim_dim), unit length."""
        return l2norm((l1norm(self.gates(nodes)) @ nodes).squeeze(1))

    def gates(self, nodes: Tensor) -> Tensor:
        """(images, nodes, sim_dim) -> (images, 1, nodes), each within 0 … 1."""
        return torch.sigmoid(self.norm(self.attention(nodes).transpose(1, 2)))


class SimilarityModel(nn.Module):
    """One member of SGRAF: encoders, alignments, and SGR or SAF."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.image_encoder = ImageEncoder(config)
        self.text_encoder = TextEncoder(config)
        self.image_global = RegionSelfAttention(config)
        self.text_global = WordSelfAttention(config)
        self.local_alignment = nn.Linear(config.embed, config.sim_dim)
        self.global_alignment = nn.Linear(config.embed, config.sim_dim)
        if config.module == "SGR":
            self.reasoning = nn.ModuleList(
                GraphReasoning(config.sim_dim) for _ in range(config.sgr_steps)
            )
        else:
            self.filtration = AttentionFiltration(config.sim_dim)
        self.similarity = nn.Linear(config.sim_dim, 1)
