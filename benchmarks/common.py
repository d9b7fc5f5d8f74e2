"""What the benchmarks share: random models, the machine's name, a clock around a call."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sgraf_deploy.bundle import Bundle
from sgraf_deploy.config import ModelConfig, Module
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.model.checkpoint import Checkpoint, write_checkpoint
from sgraf_deploy.model.layers import SimilarityModel
from sgraf_deploy.versions import tool_versions


def model_config(module: Module, **changes: int) -> ModelConfig:
    """The authors' dimensions; the vocabulary is small, because scoring never sees it."""
    fields: dict[str, Any] = {
        "img_dim": 2048,
        "regions": 36,
        "embed": 1024,
        "sim_dim": 256,
        "word_dim": 300,
        "vocab_size": 1000,
        "num_layers": 1,
        "bidirectional": True,
        "sgr_steps": 3 if module == "SGR" else 0,
        "image_norm": True,
        "text_norm": True,
    }
    return ModelConfig(module=module, **(fields | changes))


def random_checkpoint(config: ModelConfig, seed: int = 0) -> Checkpoint:
    """PyTorch's own initial weights."""
    torch.manual_seed(seed)
    weights = {name: w.numpy() for name, w in SimilarityModel(config).state_dict().items()}
    return Checkpoint(config, weights, 0, 0.0, None, {})


def export_random(checkpoint: Checkpoint, folder: Path) -> Bundle:
    """Export a checkpoint through the gate, in FP32, into `folder`."""
    path = folder / "checkpoint.pth.tar"
    write_checkpoint(path, checkpoint)
    options = ExportOptions(precisions=("fp32",))
    return export_bundle([path], folder / "random.sgraf", options).bundle


def timed(work: Callable[[], object]) -> float:
    """Wall seconds of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    """What a reader needs to know of the machine and the software."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
        processor = f"{len(names)} x {names[0]}"
    except (OSError, IndexError):
        processor = platform.processor()
    return {
        "processor": processor,
        "threads": torch.get_num_threads(),
        "versions": tool_versions(),
    }
