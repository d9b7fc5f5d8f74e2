"""FP8: the scales, and a product of bounded operands as PyTorch executes it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sgraf_deploy.model.ops import E4M3_LARGEST, e4m3_scales
from sgraf_deploy.model.torch_ops import TorchOps

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("largest", "scale"),
    [(4.0, 2.0**-6), (448.0, 2.0), (447.0, 1.0), (0.06, 2.0**-12), (0.0, 1.0), (1e-9, 2.0**-14)],
)
def test_a_scale_is_a_power_of_two_that_fits(largest: float, scale: float) -> None:
    found = e4m3_scales(np.array(largest))

    assert found.shape == ()
    assert found.dtype == np.float32
    assert found == scale
    assert largest / scale <= E4M3_LARGEST


def operands(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Squares up to 4, weights whose columns differ in size, and a bias."""
    rng = np.random.default_rng(seed)
    x = 4 * rng.random((3, 5, 64)) ** 4
    weight = rng.standard_normal((64, 8)) * np.logspace(-3, 1, 8)
    made = (x, weight, rng.standard_normal(8))
    first, second, third = (torch.from_numpy(each.astype(np.float32)) for each in made)
    return first, second, third


def test_both_operands_have_four_significant_bits() -> None:
    """With one of them exact, a column of the other comes out as E4M3 has it."""
    x, weight, _ = operands()
    zero, eye = torch.zeros(64), torch.eye(64)
    ops = TorchOps("fp8-rounded", CPU)

    squares = ops.linear(x, eye, zero, bound=4.0)
    columns = ops.linear(eye, weight, torch.zeros(8), bound=4.0)

    for found, right, smallest in ((squares, x, 2.0**-15), (columns, weight, 2.0**-20)):
        gap = (found - right).abs()
        assert torch.equal(torch.frexp(found).mantissa * 16 % 1, torch.zeros_like(found))
        assert bool((gap <= right.abs() / 16 + smallest).all())
        assert float((gap / (right.abs() + 1e-9)).mean()) > 0.01


@pytest.mark.parametrize("arithmetic", ["fp32", "fp16-rounded"])
def test_a_bound_means_nothing_elsewhere(arithmetic: str) -> None:
    x, weight, bias = operands()
    ops = TorchOps(arithmetic, CPU)  # type: ignore[arg-type]  # of two

    assert torch.equal(ops.linear(x, weight, bias, bound=4.0), ops.linear(x, weight, bias))


def test_without_a_bound_fp8_is_half_precision() -> None:
    x, weight, bias = operands()
    found, right = (
        TorchOps(name, CPU).linear(x, weight, bias) for name in ("fp8-rounded", "fp16-rounded")
    )

    assert torch.equal(found, right)


def test_what_exceeds_its_bound_saturates() -> None:
    found = TorchOps("fp8-rounded", CPU).linear(
        torch.tensor([[9.0]]), torch.ones(1, 1), torch.zeros(1), bound=4.0
    )

    assert found.item() == E4M3_LARGEST / 64
