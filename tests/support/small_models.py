"""Small models of every variant: configs, checkpoint files of random weights, and inputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary

SGR = ModelConfig(
    module="SGR",
    img_dim=64,
    regions=7,
    embed=32,
    sim_dim=16,
    word_dim=24,
    vocab_size=53,
    num_layers=1,
    bidirectional=True,
    sgr_steps=3,
    image_norm=True,
    text_norm=True,
)
SAF = replace(SGR, module="SAF", sgr_steps=0)

VARIANTS: dict[str, ModelConfig] = {
    "sgr": SGR,
    "sgr-2-steps": replace(SGR, sgr_steps=2),
    "sgr-1-step": replace(SGR, sgr_steps=1),
    "saf": SAF,
    "sgr-unidirectional": replace(SGR, bidirectional=False),
    "saf-2-layers": replace(SAF, num_layers=2),
    "sgr-2-layers-unidirectional": replace(SGR, num_layers=2, bidirectional=False),
    "saf-unnormalised": replace(SAF, image_norm=False, text_norm=False),
    "sgr-images-unnormalised": replace(SGR, image_norm=False),
    "sgr-words-unnormalised": replace(SGR, text_norm=False),
    "sgr-odd-sizes": replace(SGR, img_dim=31, regions=5, embed=29, sim_dim=11, word_dim=13),
    "saf-one-region": replace(SAF, regions=1, embed=17),
}

WORDS = (*SPECIAL_WORDS, *(f"word{index}" for index in range(SGR.vocab_size - 4)))
"""A vocabulary of the models' size."""

LENGTHS = (2, 9, 3, 14, 2, 7)
"""Words per caption of `random_inputs`, in no order."""


def write_checkpoint_file(path: Path, config: ModelConfig, seed: int = 0) -> Path:
    """A checkpoint as the authors save it, with random weights."""
    import torch
    from support.authors_checkpoint import authors_payload

    torch.save(authors_payload(config, seed), path)
    return path


def write_vocabulary_file(path: Path) -> Path:
    Vocabulary(WORDS).save(path)
    return path


def random_regions(config: ModelConfig, images: int, seed: int = 0) -> NDArray[np.float32]:
    """Standard normal regions (images, regions, img_dim)."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((images, config.regions, config.img_dim), dtype=np.float32)


def random_captions(
    config: ModelConfig, lengths: tuple[int, ...] = LENGTHS, seed: int = 0
) -> list[NDArray[np.int32]]:
    """Token ids (words,) of each caption, unpadded, none of them `<pad>`."""
    rng = np.random.default_rng(seed)
    return [rng.integers(1, config.vocab_size, words, dtype=np.int32) for words in lengths]


def padded(
    captions: list[NDArray[np.int32]], extra: int = 0
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Token ids (captions, words) padded with 0 to the longest and `extra` more, and lengths."""
    lengths = np.array([len(caption) for caption in captions], dtype=np.int32)
    token_ids = np.zeros((len(captions), int(lengths.max()) + extra), dtype=np.int32)
    for row, caption in enumerate(captions):
        token_ids[row, : len(caption)] = caption
    return token_ids, lengths
