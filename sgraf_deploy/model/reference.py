"""The literal PyTorch reference: one caption at a time, as the authors score.

It is the yardstick of correctness (in float64 at the gate) and of speed (float32); nothing here
is rearranged for either. What compares with it runs a `Reference`, whose arithmetic is its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import leaky_relu, pad

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.model.constants import ATTENTION_SMOOTHING, EPSILON, LEAKY_SLOPE
from sgraf_deploy.model.exact import exactly
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.layers import GraphReasoning, SimilarityModel, l1norm, l2norm


def build_model(
    config: ModelConfig,
    weights: Mapping[str, NDArray[np.generic]],
    dtype: torch.dtype = torch.float32,
) -> SimilarityModel:
    """The member in eval mode with the given weights (every one, none else)."""
    model = SimilarityModel(config)
    model.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in weights.items()})
    return model.to(dtype).eval().requires_grad_(False)


def attention_weights(regions: Tensor, words: Tensor) -> Tensor:
    """How much every word attends to every region.

    regions (images, regions, embed), words (images, words, embed), all of them real, ->
    (images, words, regions), every row a distribution.
    """
    attention = leaky_relu(regions @ words.transpose(1, 2), LEAKY_SLOPE)
    attention = l2norm(attention, dim=2).transpose(1, 2)  # (images, words, regions)
    return torch.softmax(attention * ATTENTION_SMOOTHING, dim=2)


def cross_attention(regions: Tensor, words: Tensor) -> Tensor:
    """The image context of every word (paper: "Similarity Representation Learning").

    regions (images, regions, embed), words (images, words, embed), all of them real, ->
    (images, words, embed), unit length.
    """
    return l2norm(attention_weights(regions, words) @ regions)


def caption_alignments(
    model: SimilarityModel, regions: Tensor, image_global: Tensor, words: Tensor
) -> Tensor:
    """Alignments (images, 1 + words, sim_dim) of every image with a caption, the global one first.

    `words` (words, embed) are unpadded.
    """
    caption = words.unsqueeze(0)
    text_global = model.text_global(caption)
    expanded = caption.repeat(regions.shape[0], 1, 1)
    context = cross_attention(regions, expanded)
    local = l2norm(model.local_alignment((context - expanded).square()))
    overall = l2norm(model.global_alignment((image_global - text_global).square()))
    return torch.cat([overall.unsqueeze(1), local], dim=1)


def caption_logits(
    model: SimilarityModel, regions: Tensor, image_global: Tensor, words: Tensor
) -> Tensor:
    """Logits (images,) of every image with one caption of `words` (words, embed), unpadded."""
    nodes = caption_alignments(model, regions, image_global, words)
    if model.config.module == "SGR":
        for step in model.reasoning:
            nodes = step(nodes)
        vector = nodes[:, 0]
    else:
        vector = model.filtration(nodes)
    logits: Tensor = model.similarity(vector)
    return logits.squeeze(1)


def caption_internals(
    model: SimilarityModel, regions: Tensor, image_global: Tensor, words: Tensor
) -> dict[str, Tensor]:
    """What `caption_logits` computes on its way, of every image with one unpadded caption.

    attention (images, words, regions) and alignments (images, nodes, sim_dim); of SAF gates, kept
    and contribution, all (images, nodes); of SGR edges (images, steps, nodes, nodes).
    """
    nodes = caption_alignments(model, regions, image_global, words)
    expanded = words.unsqueeze(0).repeat(regions.shape[0], 1, 1)
    found = {"attention": attention_weights(regions, expanded), "alignments": nodes}
    if model.config.module == "SAF":
        gates = model.filtration.gates(nodes)  # (images, 1, nodes)
        kept = l1norm(gates)
        scale = (kept @ nodes).norm(dim=-1) + EPSILON  # (images, 1)
        parts = kept.squeeze(1) * (nodes @ model.similarity.weight[0])
        return found | {
            "gates": gates.squeeze(1),
            "kept": kept.squeeze(1),
            "contribution": parts / scale,
        }
    edges = []
    for step in cast("Iterable[GraphReasoning]", model.reasoning):
        edges.append(step.edges(nodes))
        nodes = step(nodes)
    return found | ({"edges": torch.stack(edges, dim=1)} if edges else {})


def score(
    model: SimilarityModel, regions: Tensor, words: Tensor, lengths: Tensor | NDArray[np.integer]
) -> Tensor:
    """Logits (images, captions), the literal loop over captions.

    regions (images, regions, embed) and words (captions, words, embed) are encoded; `lengths`
    (captions,) counts the real words.
    """
    image_global = model.image_global(regions)
    columns = [
        caption_logits(model, regions, image_global, words[index, : int(length)])
        for index, length in enumerate(lengths)
    ]
    return torch.stack(columns, dim=1)


def text_globals(model: SimilarityModel, words: Tensor, lengths: Tensor) -> Tensor:
    """The global vectors (captions, embed) of padded captions, one caption at a time."""
    rows = [
        model.text_global(words[index : index + 1, : int(length)])
        for index, length in enumerate(lengths)
    ]
    return torch.cat(rows)


class Reference:
    """A member with weights, on a device; every call in exact arithmetic and without gradients."""

    def __init__(
        self,
        config: ModelConfig,
        weights: Mapping[str, NDArray[np.generic]],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Take every weight, and no other, in `dtype`."""
        self._model = build_model(config, weights, dtype).to(device)
        self.dtype = dtype

    @exactly
    def encode_images(self, regions: Tensor) -> Tensor:
        """(images, regions, img_dim) -> (images, regions, embed)."""
        embeddings: Tensor = self._model.image_encoder(regions)
        return embeddings

    @exactly
    def image_globals(self, embeddings: Tensor) -> Tensor:
        """(images, regions, embed) -> (images, embed)."""
        vectors: Tensor = self._model.image_global(embeddings)
        return vectors

    @exactly
    def region_gram(self, embeddings: Tensor) -> Tensor:
        """(images, regions, embed) -> products of an image's regions (images, regions, regions)."""
        return embeddings @ embeddings.mT

    @exactly
    def encode_captions(self, token_ids: Tensor, lengths: Tensor) -> Tensor:
        """(captions, words) ids, (captions,) lengths -> (captions, words, embed), zero padded."""
        words: Tensor = self._model.text_encoder(token_ids, lengths)
        return words

    @exactly
    def text_globals(self, words: Tensor, lengths: Tensor) -> Tensor:
        """See the function of this name."""
        return text_globals(self._model, words, lengths)

    @exactly
    def score(
        self, regions: Tensor, words: Tensor, lengths: Tensor | NDArray[np.integer]
    ) -> Tensor:
        """See the function of this name."""
        return score(self._model, regions, words, lengths)

    @exactly
    def caption_logits(self, regions: Tensor, image_global: Tensor, words: Tensor) -> Tensor:
        """See the function of this name."""
        return caption_logits(self._model, regions, image_global, words)

    @exactly
    def explain(
        self,
        encoded: Encoded[Tensor],
        image_index: Tensor,
        caption_index: Tensor,
    ) -> dict[str, Tensor]:
        """Logits (pairs,) and `caption_internals` of single pairs, one after the other.

        They are padded with zeros to the longest caption, and so are all rows but row 0 of SGR's
        last edges: no other is used.
        """
        longest = encoded.word_embeddings.shape[1]
        rows = []
        for image, caption in zip(image_index.tolist(), caption_index.tolist(), strict=True):
            length = int(encoded.lengths[caption])
            one = slice(image, image + 1)
            inputs = (
                encoded.region_embeddings[one],
                encoded.image_global[one],
                encoded.word_embeddings[caption, :length],
            )
            found = {"logits": caption_logits(self._model, *inputs)}
            found |= caption_internals(self._model, *inputs)
            rows.append({name: _padded(name, x[0], longest - length) for name, x in found.items()})
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _padded(name: str, value: Tensor, more: int) -> Tensor:
    """One pair's value with zeros for `more` words behind its own."""
    if name == "edges":
        edges = value.clone()
        edges[-1, 1:] = 0
        return pad(edges, (0, more, 0, more))
    if name in ("attention", "alignments"):
        return pad(value, (0, 0, 0, more))
    return value if name == "logits" else pad(value, (0, more))
