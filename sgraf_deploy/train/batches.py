"""Shuffled batches of captions with their images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgraf_deploy.data.precomp import PrecompSplit


@dataclass(frozen=True)
class TrainingBatch:
    """Regions (images, regions, img_dim) float32, token_ids (captions, words) int64 and lengths
    (captions,) int64 on the CPU; image i belongs to caption i.

    `images` and `captions` are their rows in the split, counted from 0.
    """

    regions: Tensor
    token_ids: Tensor
    lengths: Tensor
    images: NDArray[np.int32]
    captions: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """One split as training data: memory-mapped regions, and captions as ids."""

    regions: NDArray[Any]
    token_ids: Sequence[NDArray[np.int32]]
    image_of_caption: NDArray[np.int32]
    captions_per_image: int

    @classmethod
    def of(cls, split: PrecompSplit, token_ids: Sequence[NDArray[np.int32]]) -> TrainingData:
        """The training data of a split whose captions are given as ids (words,) int32 each."""
        return cls(split.regions, token_ids, split.image_of_caption, split.captions_per_image)

    def batches(
        self, size: int, generator: torch.Generator, device: torch.device
    ) -> Iterator[TrainingBatch]:
        """Every caption once in random order; the last ones that fill no batch are left out."""
        order = torch.randperm(len(self.token_ids), generator=generator).numpy()
        for start in range(0, len(order) - size + 1, size):
            yield self.batch(order[start : start + size], device)

    def batch(self, captions: NDArray[np.int64], device: torch.device) -> TrainingBatch:
        """A batch of these captions, each with its image."""
        images = self.image_of_caption[captions]
        regions = self.regions[images].astype(np.float32)
        token_ids, lengths = pad([self.token_ids[caption] for caption in captions])
        on_device = torch.from_numpy(regions).to(device), token_ids.to(device)
        return TrainingBatch(*on_device, lengths, images, captions)


def pad(token_ids: Sequence[NDArray[np.int32]]) -> tuple[Tensor, Tensor]:
    """Ids (captions, words) int64, padded with 0, and lengths (captions,) int64."""
    lengths = torch.tensor([len(ids) for ids in token_ids])
    padded = torch.zeros(len(token_ids), int(lengths.max()), dtype=torch.long)
    for row, ids in enumerate(token_ids):
        padded[row, : len(ids)] = torch.from_numpy(ids.astype(np.int64))
    return padded, lengths
