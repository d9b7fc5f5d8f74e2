"""How evenly weights are spread."""

from __future__ import annotations

import numpy as np
import pytest

from sgraf_deploy.explanation.values import is_uniform, normalised_entropy


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0.25] * 4, 1.0),
        ([1.0, 0.0, 0.0], 0.0),
        ([0.5, 0.5, 0.0, 0.0], 0.5),
        ([3.0, 3.0], 1.0),  # Weights need not sum to 1.
        ([1.0], 1.0),
        ([0.0, 0.0], np.nan),
        ([0.0], np.nan),
    ],
)
def test_entropy_is_a_share_of_the_largest(weights: list[float], expected: float) -> None:
    assert normalised_entropy(np.array(weights)) == pytest.approx(expected, nan_ok=True)


def test_entropy_is_that_of_the_last_axis() -> None:
    weights = np.random.default_rng(0).random((2, 3, 5)).astype(np.float32)

    found = normalised_entropy(weights)

    assert found.shape == (2, 3)
    shares = weights[1, 2].astype(float) / weights[1, 2].sum(dtype=float)
    assert found[1, 2] == pytest.approx(-(shares * np.log(shares)).sum() / np.log(5))
    assert np.all((found > 0) & (found < 1))


def test_an_average_is_told_from_a_choice() -> None:
    assert is_uniform(0.99)
    assert not is_uniform(0.9899)
    assert not is_uniform(float("nan"))
