"""The engine `fused` on an exported bundle, its kernels in Triton's interpreter."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from support.closeness import assert_close, scorer_depth
from support.refusals import naming, refused
from support.small_models import SGR, random_captions, random_regions

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import DEFAULT_PRECISIONS, Precision
from sgraf_deploy.engines.fused import engine
from sgraf_deploy.engines.fused.engine import FusedEngine
from sgraf_deploy.engines.policy import ON_A_CPU, ON_A_GPU
from sgraf_deploy.engines.registry import ENGINES, open_engine, unavailable
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.gate.tolerances import FP16_LOGITS_SHARE
from sgraf_deploy.runtime import EngineOptions, TileShape, load

CPU = EngineOptions(device="cpu")
GPU = EngineOptions(device="cuda:0")
LENGTHS = (2, 9, 3, 2)


@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
def test_logits_are_those_of_engine_torch(exported: Bundle, precision: Precision) -> None:
    regions, captions = random_regions(SGR, 3), random_captions(SGR, LENGTHS)
    tile = TileShape(2, 3)
    with load(exported, engine="torch", precision=precision, options=CPU) as scorer:
        expected = scorer.logits(regions, captions)
    with load(exported, engine="fused", precision=precision, options=CPU, tile=tile) as scorer:
        found = scorer.logits(regions, captions)
        pairs = scorer.score_pairs(regions, captions, [0, 2], [1, 3])

    assert list(found) == list(expected) == ["sgr", "saf"]
    for name, right in expected.items():
        assert found[name].shape == (3, len(LENGTHS))
        if precision == "fp32":
            config = exported.manifest.members[name].config
            assert_close(found[name], right, scorer_depth(config, max(LENGTHS)))
            assert right.std() > 1e-3
        else:
            gap = float(np.abs(found[name] - right).max())
            assert gap <= FP16_LOGITS_SHARE * float(right.std())
    assert pairs.shape == (2,)


def test_no_tile_asks_the_device_for_lengths(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for the tile before."""
    monkeypatch.setattr(engine, "download", lambda lengths: pytest.fail("it waits"))
    with load(exported, engine="fused", precision="fp32", options=CPU) as scorer:
        scorer.logits(random_regions(SGR, 2), random_captions(SGR, LENGTHS))


def test_what_ran_is_said(exported: Bundle) -> None:
    opened = open_engine("fused", exported, "fp16", CPU)
    assert isinstance(opened, FusedEngine)
    assert (opened.name, opened.device) == ("fused", "cpu")
    assert opened.executed == "fp16 in Triton's interpreter"
    assert unavailable("fused") is None
    assert unavailable("fused", "cpu") is None


def test_it_must_be_asked_for_by_name() -> None:
    assert "fused" in ENGINES
    assert "fused" not in {*ON_A_CPU, *ON_A_GPU}


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process without the interpreter."""
    monkeypatch.setattr(engine, "interpreted", lambda: False)


@pytest.mark.usefixtures("compiled")
def test_without_a_gpu_it_is_not_available(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused(UnavailableError, "fused", hint="sgraf-deploy bench gpu"):
        load(exported, "fused")
    with refused(UnavailableError, "fused", "TRITON_INTERPRET=1"):
        load(exported, "fused", options=CPU)


@dataclass(frozen=True)
class Properties:
    """What PyTorch built for CUDA says of a GPU, as far as the engine asks."""

    major: int
    minor: int
    shared_memory_per_block_optin: int


@pytest.fixture
def gpu(compiled: None, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, int], None]:
    """Call it with a compute capability and KiB of shared memory: PyTorch then sees such a GPU."""

    def see(capability: str, shared_memory: int) -> None:
        major, minor = map(int, capability.split("."))
        found = Properties(major, minor, shared_memory * 1024)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (major, minor))

    return see


@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
@pytest.mark.parametrize(
    ("capability", "shared_memory"),
    [("8.0", 163), ("8.6", 99), ("8.9", 99), ("9.0", 227), ("10.0", 227), ("12.0", 99)],
)
def test_it_opens_where_its_kernels_fit(
    gpu: Callable[[str, int], None],
    exported: Bundle,
    capability: str,
    shared_memory: int,
    precision: Precision,
) -> None:
    gpu(capability, shared_memory)
    assert unavailable("fused") is None
    opened = open_engine("fused", exported, precision, GPU)
    assert (opened.name, opened.device) == ("fused", "cuda:0")


def test_a_gpu_that_triton_does_not_compile_for_is_refused(
    gpu: Callable[[str, int], None],
) -> None:
    gpu("7.5", 64)
    error = unavailable("fused")
    assert error is not None
    assert "compute capability 8.0 or above, got 7.5" in error.reason
    assert error.hint == "use engine trt or torch"


@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
def test_a_gpu_of_too_little_shared_memory_is_refused_before_anything_runs(
    gpu: Callable[[str, int], None], exported: Bundle, precision: Precision
) -> None:
    gpu("9.0", 2)
    with pytest.raises(UnavailableError) as caught:
        open_engine("fused", exported, precision, GPU)
    assert "model sgr" in caught.value.what
    found = re.fullmatch(
        r"at least (\d+) KiB of shared memory per block", str(caught.value.expected)
    )
    assert found is not None
    assert int(found[1]) > 2
    assert caught.value.got == "2 KiB"
    assert caught.value.hint == "use engine trt or torch"


@pytest.mark.usefixtures("compiled")
def test_compiled_kernels_do_not_run_on_a_cpu(exported: Bundle) -> None:
    with refused(UnavailableError, expected=naming("cuda"), got="cpu", hint="--engine torch"):
        FusedEngine(exported, "fp32", CPU)


def test_without_triton_it_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton.language", None)
    error = unavailable("fused")
    assert error is not None
    assert error.reason == "Python cannot import triton.language"
