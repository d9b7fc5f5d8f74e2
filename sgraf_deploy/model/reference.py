"""The literal PyTorch reference: one caption at a time, as the authors score.

It is the yardstick of correctness (in float64 at the gate) and of speed (float32); nothing here
is rearranged for either. What compares with it runs a `Reference`, whose arithmetic is its own.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import leaky_relu

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.model.constants import ATTENTION_SMOOTHING, LEAKY_SLOPE
from sgraf_deploy.model.exact import exactly
from sgraf_deploy.model.layers import SimilarityModel, l2norm


def build_model(
    config: ModelConfig,
    weights: Mapping[str, NDArray[np.generic]],
    dtype: torch.dtype = torch.float32,
) -> SimilarityModel:
    """The member in eval mode with the given weights (every one, none else)."""
    model = SimilarityModel(config)
    model.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in weights.items()})
    return model.to(dtype).eval().requires_grad_(False)


def cross_attention(regions: Tensor, words: Tensor) -> Tensor:
    """The image context of every word (paper: "Similarity Representation Learning").

    regions (images, regions, embed), words (images, words, embed), all of them real, ->
    (images, words, embed), unit length.
    """
    attention = leaky_relu(regions @ words.transpose(1, 2), LEAKY_SLOPE)
    attention = l2norm(attention, dim=2).transpose(1, 2)  # (images, words, regions)
    weights = torch.softmax(attention * ATTENTION_SMOOTHING, dim=2)
    return l2norm(weights @ regions)


def caption_logits(
    model: SimilarityModel, regions: Tensor, image_global: Tensor, words: Tensor
) -> Tensor:
    """Logits (images,) of every image with one caption of `words` (words, embed), unpadded."""
    images = regions.shape[0]
    caption = words.unsqueeze(0)
    text_global = model.text_global(caption)
    expanded = caption.repeat(images, 1, 1)
    context = cross_attention(regions, expanded)
    local = l2norm(model.local_alignment((context - expanded).square()))
    overall = l2norm(model.global_alignment((image_global - text_global).square()))
    nodes = torch.cat([overall.unsqueeze(1), local], dim=1)  # (images, 1 + words, sim_dim)
    if model.config.module == "SGR":
        for step in model.reasoning:
            nodes = step(nodes)
        vector = nodes[:, 0]
    else:
        vector = model.filtration(nodes)
    logits: Tensor = model.similarity(vector)
    return logits.squeeze(1)


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
