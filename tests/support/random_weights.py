"""Random weights of any model, for tests that need a member but no training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.model.infer import expected_shapes


def random_weights(config: ModelConfig, seed: int) -> dict[str, NDArray[Any]]:
    """Weights by our names, float32: biases and BatchNorm statistics too, so nothing folds away."""
    rng = np.random.default_rng(seed)
    return {name: _random(rng, name, shape) for name, shape in expected_shapes(config).items()}


def _random(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    owner, leaf = name.rsplit(".", 1)
    if leaf == "num_batches_tracked":
        return np.array(1, dtype=np.int64)
    if leaf == "running_var":
        values = rng.uniform(0.5, 1.5, shape)
    elif owner.endswith("norm"):
        values = rng.uniform(-0.1, 0.1, shape)
        if leaf == "weight":
            values = 1 + 2 * values
    elif leaf.startswith("bias"):
        values = rng.normal(0, 0.1, shape)
    else:
        values = rng.normal(0, 1 / math.sqrt(shape[-1]), shape)
    return values.astype(np.float32)
