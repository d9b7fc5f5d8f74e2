"""Checkpoints as the authors' train.py saves them, with random weights."""

from __future__ import annotations

import argparse
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import torch
from support.random_weights import random_weights

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.model.keys import to_parts

SGR = ModelConfig(
    module="SGR",
    img_dim=12,
    regions=5,
    embed=8,
    sim_dim=6,
    word_dim=7,
    vocab_size=11,
    num_layers=1,
    bidirectional=True,
    sgr_steps=2,
    image_norm=True,
    text_norm=True,
)
SAF = replace(SGR, module="SAF", sgr_steps=0)


def authors_options(config: ModelConfig) -> dict[str, Any]:
    """What `opt` holds, in the authors' spelling, with options that this package does not read."""
    return {
        "data_path": "data/",
        "data_name": "f30k_precomp",
        "batch_size": 128,
        "learning_rate": 0.0002,
        "max_violation": True,
        "self_regulator": "only_rar",
        "img_dim": config.img_dim,
        "word_dim": config.word_dim,
        "embed_size": config.embed,
        "sim_dim": config.sim_dim,
        "num_layers": config.num_layers,
        "bi_gru": config.bidirectional,
        "no_imgnorm": not config.image_norm,
        "no_txtnorm": not config.text_norm,
        "module_name": config.module,
        "sgr_step": config.sgr_steps or 3,
        "vocab_size": config.vocab_size,
    }


def authors_payload(config: ModelConfig, seed: int = 0) -> dict[str, Any]:
    """The dict that the authors give to `torch.save`."""
    parts = to_parts(random_weights(config, seed))
    return {
        "epoch": 17,
        "model": [
            OrderedDict((key, torch.from_numpy(value)) for key, value in part.items())
            for part in parts
        ],
        "best_rsum": 498.25,
        "opt": argparse.Namespace(**authors_options(config)),
        "Eiters": 12000,
    }
