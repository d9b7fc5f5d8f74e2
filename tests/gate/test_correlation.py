"""Spearman's rank correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import naming, refused

from sgraf_deploy.errors import DataError
from sgraf_deploy.gate.correlation import spearman


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [10, 20, 30, 1000], 1.0),
        ([1, 2, 3, 4], [4, 3, 2, 1], -1.0),
        ([1, 2, 3, 4, 5], [2, 1, 4, 3, 5], 0.8),
        ([1, 2, 2, 4], [1, 2, 3, 4], 4.5 / (4.5 * 5) ** 0.5),
        ([1, 1, 2, 2], [1, 1, 2, 2], 1.0),
    ],
    ids=["monotone", "reversed", "two-swaps", "a-tie", "only-ties"],
)
def test_spearman(a: list[float], b: list[float], expected: float) -> None:
    assert spearman(np.array(a), np.array(b)) == pytest.approx(expected)


def test_spearman_of_a_constant_meets_no_bound() -> None:
    assert not spearman(np.ones(4), np.arange(4.0)) >= -1


@pytest.mark.parametrize(
    ("a", "b", "got"),
    [
        (np.zeros(3), np.zeros(4), ["(3,)", "(4,)"]),
        (np.zeros((2, 2)), np.zeros((2, 2)), ["(2, 2)"]),
        (np.zeros(0), np.zeros(0), ["(0,)"]),
        (np.array([0.0, np.nan]), np.zeros(2), ["NaN"]),
    ],
    ids=["sizes", "matrix", "empty", "nan"],
)
def test_spearman_refuses(a: NDArray[Any], b: NDArray[Any], got: list[str]) -> None:
    with refused(DataError, got=naming(*got)):
        spearman(a, b)
