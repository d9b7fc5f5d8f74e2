"""Models with random weights, exported through the gate, to measure speed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import PAPER, ModelConfig, Module, Precision
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.model.checkpoint import Checkpoint, write_checkpoint


def model_config(module: Module, **changes: Any) -> ModelConfig:
    """The paper's dimensions with `changes`; the vocabulary, which scoring ignores, is small."""
    return replace(PAPER[module], **({"vocab_size": 1000} | changes))


_UNBIASED = (
    "local_alignment",
    "global_alignment",
    "reasoning",
    "filtration.attention",
    "similarity",
)
"""Layers whose biases are 0, as the authors initialise them."""


def random_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    """PyTorch's initial weights, without biases after the encoders.

    With biases, all pairs are almost the same to SGR: logits at the paper's dimensions differ by
    1e-4, and half precision changes them by 7 % of that, more than the gate's bound. Without
    biases they differ by 6e-4, and half precision changes them by 0.5 % of that.
    """
    import torch

    from sgraf_deploy.model.layers import SimilarityModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = {name: w.numpy() for name, w in SimilarityModel(config).state_dict().items()}
    for name, weight in weights.items():
        if name.startswith(_UNBIASED) and name.endswith(".bias"):
            weight[...] = 0
    return Checkpoint(config, weights, 0, 0.0, None, {})


def export_random(
    checkpoint: Checkpoint, folder: Path, precisions: tuple[Precision, ...] = ("fp32",)
) -> Bundle:
    """Export a checkpoint through the gate into `folder`."""
    path = folder / "checkpoint.pth.tar"
    write_checkpoint(path, checkpoint)
    options = ExportOptions(precisions=precisions)
    return export_bundle(
        [path], folder / f"random-{checkpoint.config.module}.sgraf", options
    ).bundle
