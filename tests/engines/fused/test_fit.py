"""Which blocks a GPU gets for a model, and what they need of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sgraf_deploy.config import DEFAULT_PRECISIONS, PAPER, Module, Precision
from sgraf_deploy.engines.fused.blocks import FLOAT, HALF, MORE_WARPS, SHORTER_STEPS, Blocks
from sgraf_deploy.engines.fused.fit import HOPPER, KIB, Gpu, choose_blocks, shared_bytes
from sgraf_deploy.engines.fused.resources import GPUS
from sgraf_deploy.errors import UnavailableError

AMPERE, ADA, BLACKWELL = Gpu((8, 0), 163 * KIB), Gpu((8, 9), 99 * KIB), Gpu((12, 0), 99 * KIB)


@pytest.mark.parametrize(
    ("gpu", "half"),
    [(HOPPER, HALF), (AMPERE, MORE_WARPS), (ADA, SHORTER_STEPS), (BLACKWELL, SHORTER_STEPS)],
    ids=["9.0", "8.0", "8.9", "12.0"],
)
@pytest.mark.parametrize("module", ["SGR", "SAF"])
def test_blocks_of_the_papers_dimensions(module: Module, gpu: Gpu, half: Blocks) -> None:
    assert choose_blocks(PAPER[module], "fp16", gpu) == half
    assert choose_blocks(PAPER[module], "fp32", gpu) == FLOAT


@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
@pytest.mark.parametrize(
    "change", [{"regions": 100}, {"sim_dim": 512}, {"embed": 40, "sim_dim": 20}], ids=str
)
@pytest.mark.parametrize("gpu", GPUS, ids=str)
def test_blocks_of_other_dimensions_fit(
    gpu: Gpu, change: dict[str, Any], precision: Precision
) -> None:
    config = replace(PAPER["SGR"], **change)
    blocks = choose_blocks(config, precision, gpu)
    assert max(shared_bytes(blocks, config, precision, gpu).values()) <= gpu.shared_memory


def test_a_wide_model_fits_one_gpu_and_is_refused_by_another_with_both_figures() -> None:
    wide = replace(PAPER["SGR"], sim_dim=1000)
    blocks = choose_blocks(wide, "fp32", HOPPER)
    with pytest.raises(UnavailableError) as caught:
        choose_blocks(wide, "fp32", ADA)
    needed = max(shared_bytes(blocks, wide, "fp32", ADA).values())
    assert caught.value.expected == f"at least {-(-needed // KIB)} KiB of shared memory per block"
    assert caught.value.got == "99 KiB"
    assert caught.value.hint == "use engine trt or torch"


@pytest.mark.parametrize("change", [{"regions": 1025}, {"sim_dim": 2049}], ids=str)
@pytest.mark.parametrize("precision", DEFAULT_PRECISIONS)
def test_a_model_too_wide_for_any_chip_is_refused(
    precision: Precision, change: dict[str, Any]
) -> None:
    with pytest.raises(UnavailableError) as caught:
        choose_blocks(replace(PAPER["SGR"], **change), precision)
    assert caught.value.got == "227 KiB"
    assert int(str(caught.value.expected).split()[2]) > 227
    assert caught.value.hint == "use engine trt or torch"


def test_wide_models_get_fewer_rows() -> None:
    wide = choose_blocks(replace(PAPER["SGR"], sim_dim=1000), "fp16")
    assert (wide.words, wide.pairs) <= (32, 32)
    assert wide.words >= 16
