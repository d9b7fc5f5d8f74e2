"""The norms: the paper's values to the last bit, and gradients that are finite everywhere."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sgraf_deploy.model.constants import EPSILON
from sgraf_deploy.model.layers import l1norm, l2norm

SHAPE = (3, 5, 7)


def literal(x: Tensor, dim: int) -> Tensor:
    """The paper's formula, whose gradient at zero is not a number."""
    return x / (x.square().sum(dim=dim, keepdim=True).sqrt() + EPSILON)


def vectors(dtype: torch.dtype, scale: float = 1.0) -> Tensor:
    return scale * torch.randn(SHAPE, generator=torch.Generator().manual_seed(3), dtype=dtype)


def with_zeros(dtype: torch.dtype) -> Tensor:
    """Vectors of zeros along each axis, zeros of both signs, and vectors whose squares are zero."""
    x = vectors(dtype)
    x[0] = 0.0
    x[1, 2] = -0.0
    x[:, 3] = 0.0
    x[..., 4] = 0.0
    x[2, 1] *= 1e-30 if dtype == torch.float32 else 1e-200
    return x


@pytest.mark.parametrize("dim", [0, 1, 2, -1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_values_are_the_formulas_to_the_last_bit(dtype: torch.dtype, dim: int) -> None:
    x = with_zeros(dtype)
    expected = literal(x, dim).view(torch.uint8)
    assert torch.equal(l2norm(x, dim).view(torch.uint8), expected)
    trained = l2norm(x.clone().requires_grad_(), dim)
    assert torch.equal(trained.detach().view(torch.uint8), expected)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_gradients_are_the_formulas(dim: int, scale: float) -> None:
    x, incoming = vectors(torch.float64, scale), vectors(torch.float64).flip(0)
    found, expected = (x.clone().requires_grad_() for _ in range(2))
    l2norm(found, dim).backward(incoming)  # type: ignore[no-untyped-call]
    literal(expected, dim).backward(incoming)  # type: ignore[no-untyped-call]
    assert found.grad is not None
    assert expected.grad is not None
    largest = float(expected.grad.abs().max())
    # Sums of seven at most, in another order: a few roundings of 1e-16.
    torch.testing.assert_close(found.grad, expected.grad, rtol=0, atol=1e-14 * largest)


@pytest.mark.parametrize("norm", [l1norm, l2norm])
@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_gradient_is_finite_at_zero(norm: object, dim: int, dtype: torch.dtype) -> None:
    x = with_zeros(dtype).requires_grad_()
    norm(x, dim).backward(torch.ones(SHAPE, dtype=dtype))  # type: ignore[operator]
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_zeros_pass_no_gradient_on_and_leave_the_others_theirs() -> None:
    x = vectors(torch.float64)
    padded = torch.cat([x, torch.zeros(1, 5, 7, dtype=torch.float64)]).requires_grad_()
    alone = x.clone().requires_grad_()
    l2norm(padded).square().mul(padded.detach() + 1).sum().backward()  # type: ignore[no-untyped-call]
    l2norm(alone).square().mul(x + 1).sum().backward()  # type: ignore[no-untyped-call]
    assert padded.grad is not None
    assert alone.grad is not None
    assert torch.equal(padded.grad[:3], alone.grad)
    assert not padded.grad[3].any()
