"""Whatever runs a model for others to compare with does so in exact arithmetic."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from support.small_models import SGR, random_captions, random_regions
from torch import nn

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.fused.scorer import FusedScorer
from sgraf_deploy.engines.torch import literal
from sgraf_deploy.engines.torch.literal import LiteralLoop
from sgraf_deploy.export.gate_inputs import reference_outputs, synthetic_inputs
from sgraf_deploy.model.checkpoint import read_reference
from sgraf_deploy.model.exact import Observed, observe
from sgraf_deploy.model.layers import SimilarityModel
from sgraf_deploy.runtime import EngineOptions, TileShape, load
from sgraf_deploy.train.batches import TrainingData
from sgraf_deploy.train.validation import split_logits

EXACT = Observed((), cudnn=True)
LENGTHS = (2, 3)


class Watch:
    """What PyTorch is set to at every product, every GRU and every fused kernel, by its name."""

    def __init__(self) -> None:
        self.seen: dict[str, set[Observed]] = {}

    def over(self, owner: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        real = getattr(owner, name)

        @functools.wraps(real)
        def watched(*arguments: Any, **named: Any) -> Any:
            self.seen.setdefault(f"{owner.__name__}.{name}", set()).add(observe())
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, watched)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """A caller who has TensorFloat-32 and bfloat16 on, and what a model finds all the same."""
    found = Watch()
    for owner, name in (
        *((torch, "matmul"), (torch, "addmm"), (torch.Tensor, "__matmul__")),
        *((nn.GRU, "forward"), (nn.Linear, "forward"), (FusedScorer, "__call__")),
    ):
        found.over(owner, name, monkeypatch)
    torch.set_float32_matmul_precision("medium")
    try:
        yield found
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
        for backend in ("cuda", "mkldnn"):
            torch._C._set_fp32_precision_setter(backend, "matmul", "none")


def assert_exact(watch: Watch, *expected: str) -> None:
    assert set(watch.seen) >= set(expected)
    for name, seen in watch.seen.items():
        assert seen == {EXACT}, name


@pytest.mark.parametrize(
    ("engine", "products"),
    [
        ("torch", ("torch.matmul", "torch.addmm", "GRU.forward")),
        ("torch-reference", ("Linear.forward", "Tensor.__matmul__", "GRU.forward")),
        ("fused", ("torch.addmm", "GRU.forward", "FusedScorer.__call__")),
    ],
)
def test_engines(engine: str, products: tuple[str, ...], exported: Bundle, watch: Watch) -> None:
    options = EngineOptions(device="cpu")
    with load(exported, engine=engine, precision="fp32", options=options, tile=TileShape(1, 2)) as (
        scorer
    ):
        images = scorer.encode_images(random_regions(SGR, 1))
        captions = scorer.encode_captions(random_captions(SGR, LENGTHS))
        scorer.score(images, captions)
        scorer.score_pairs(images, captions, [0], [1])
    assert_exact(watch, *products)


def test_the_literal_loop(exported: Bundle, watch: Watch) -> None:
    loop = LiteralLoop(exported)
    products = ("Linear.forward", "Tensor.__matmul__", "GRU.forward")
    images = loop.encode_images(random_regions(SGR, 2))
    captions = loop.encode_captions(random_captions(SGR, LENGTHS))
    loop.in_shards(1).logits(images, captions)

    assert_exact(watch, *products)
    found = loop.yardstick
    assert (found.dtype, found.below_float32, found.missed) == ("float32", (), None)
    assert (found.device, found.device_name, found.cudnn) == ("cpu", None, None)
    assert found.to_json() == {
        "dtype": "float32",
        "below_float32": [],
        "tf32": False,
        "cudnn": None,
        "device": "cpu",
        "device_name": None,
    }


def test_what_the_literal_loop_says_was_seen(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what it should have been: somebody else may have changed a setting while it ran."""
    loop = LiteralLoop(exported)
    images = loop.encode_images(random_regions(SGR, 1))
    with monkeypatch.context() as patched:
        seen = Observed(("cuda rnn tf32",), cudnn=False)
        patched.setattr("sgraf_deploy.model.exact.observe", lambda: seen)
        captions = loop.in_shards(7).encode_captions(random_captions(SGR, LENGTHS))
    loop.logits(images, captions)

    found = loop.yardstick
    assert found.below_float32 == ("cuda rnn tf32",)
    assert found.missed is not None
    assert "cuda rnn tf32" in found.missed
    assert found.to_json()["tf32"] is True


@pytest.mark.parametrize(("cudnn", "said"), [(True, "cuDNN on"), (False, "cuDNN off")])
def test_on_a_gpu_it_says_which_and_how(cudnn: bool, said: str) -> None:
    found = literal.Yardstick("float32", (), cudnn, "cuda:1", "NVIDIA H100")
    assert str(found) == f"float32, TF32 off, {said}, cuda:1 NVIDIA H100"


def test_reference_values_of_the_gate(exported: Bundle, watch: Watch) -> None:
    config = exported.manifest.members["sgr"].config
    weights = read_reference(exported.reference_path("sgr"), config)
    found = reference_outputs(config, weights, synthetic_inputs(config), fp8=True)
    assert found.fp8_logits is not None
    assert_exact(watch, "Linear.forward", "torch.matmul", "GRU.forward")


def test_validation_during_training(watch: Watch) -> None:
    data = TrainingData(
        random_regions(SGR, 2),
        random_captions(SGR, (2, 3, 2, 3)),
        np.array([0, 0, 1, 1], dtype=np.int32),
        2,
    )
    split_logits(SimilarityModel(SGR).eval(), data)
    assert_exact(watch, "torch.matmul", "torch.addmm", "GRU.forward")
