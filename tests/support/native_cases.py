"""Models of many sizes scored in C, and by the folded model in PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from support.random_weights import random_weights
from support.small_models import SGR

from sgraf_deploy.config import ModelConfig, Module
from sgraf_deploy.engines.native.library import NativeModel
from sgraf_deploy.model.folded import Encoded, FoldedModel
from sgraf_deploy.model.folding import FoldedWeights, fold
from sgraf_deploy.model.torch_ops import TorchOps

BOUND = 2e-6
"""Times the largest logit, or 1; 2.4e-7 was measured."""

Inputs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A model's sizes."""

    module: Module = "SGR"
    embed: int = 64
    sim_dim: int = 16
    regions: int = 36
    steps: int = 3

    @property
    def config(self) -> ModelConfig:
        return replace(
            SGR,
            module=self.module,
            embed=self.embed,
            sim_dim=self.sim_dim,
            regions=self.regions,
            sgr_steps=self.steps if self.module == "SGR" else 0,
        )


SMALL = [
    Case(),
    Case("SAF"),
    Case(steps=0),
    Case(steps=1),
    Case(steps=2, embed=300, sim_dim=50),
    Case("SAF", embed=265, sim_dim=7, regions=5),
    Case(embed=8, sim_dim=3, regions=1),
    Case("SAF", embed=132, sim_dim=12, regions=40),
]
CASES = [*SMALL, Case(embed=1024, sim_dim=256), Case("SAF", embed=1024, sim_dim=256)]


@cache
def folded(case: Case) -> FoldedWeights:
    return fold(case.config, random_weights(case.config, 0))


def weights_by_name(weights: FoldedWeights) -> dict[str, NDArray[np.float32]]:
    layers = [weights.local_alignment, weights.global_alignment, weights.similarity]
    layers += [layer for step in weights.reasoning for layer in (step.key, step.update)]
    layers += [weights.filtration] if weights.filtration else []
    named = {f"{layer.name}.weight": layer.weight for layer in layers}
    return named | {f"{layer.name}.bias": layer.bias for layer in layers}


def native_model(case: Case) -> NativeModel:
    return NativeModel(case.config, weights_by_name(folded(case)))


def make_inputs(case: Case, images: int, lengths: list[int], *, seed: int = 0) -> Inputs:
    """Normalised embeddings; what stands past a caption's end is as wild as it may be."""
    rng = np.random.default_rng(seed)

    def unit(*shape: int) -> NDArray[np.float32]:
        x = rng.normal(size=shape)
        x /= np.linalg.norm(x, axis=-1, keepdims=True)
        return x.astype(np.float32)

    regions = unit(images, case.regions, case.embed)
    words = unit(len(lengths), max(lengths), case.embed)
    words[np.arange(max(lengths)) >= np.array(lengths)[:, None]] = np.nan
    return {
        "region_embeddings": regions,
        "image_global": unit(images, case.embed),
        "word_embeddings": words,
        "text_global": unit(len(lengths), case.embed),
        "lengths": np.array(lengths, dtype=np.int32),
        "region_gram": regions @ regions.transpose(0, 2, 1),
    }


def expected(case: Case, inputs: Inputs) -> NDArray[np.float32]:
    """The logits of the folded model in PyTorch."""
    model = FoldedModel(folded(case), TorchOps("fp32", torch.device("cpu")))
    clean = {name: torch.from_numpy(np.nan_to_num(array)) for name, array in inputs.items()}
    with torch.inference_mode():
        logits: NDArray[np.float32] = model.scorer(Encoded(**clean)).numpy()
    return logits


def scored(model: NativeModel, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    images, captions = len(inputs["image_global"]), len(inputs["lengths"])
    logits = np.full((images, captions), np.nan, np.float32)
    model.score(inputs, logits)
    return logits


def assert_close(found: NDArray[np.float32], right: NDArray[np.float32]) -> None:
    assert found.shape == right.shape
    assert np.abs(found - right).max() <= BOUND * max(1.0, float(np.abs(right).max()))
