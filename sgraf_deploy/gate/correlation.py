"""Spearman's rank correlation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError


def spearman(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Spearman's rank correlation of two flat arrays; equal values share their mean rank.

    NaN if all values of one array are equal: no bound is met by that.

    Raises DataError if the arrays are not flat, differ in size, are empty or hold NaN.
    """
    if a.ndim != 1 or a.shape != b.shape or a.size == 0:
        got = f"shapes {a.shape} and {b.shape}"
        raise DataError("rank correlation", expected="two flat arrays of one size", got=got)
    if np.isnan(a).any() or np.isnan(b).any():
        raise DataError("rank correlation", expected="numbers", got="NaN")
    x, y = _mean_ranks(a), _mean_ranks(b)
    x -= x.mean()
    y -= y.mean()
    scale = float(np.sqrt(np.dot(x, x) * np.dot(y, y)))
    return float(np.dot(x, y)) / scale if scale > 0 else float("nan")


def _mean_ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    means: NDArray[np.float64] = ends - (counts + 1) / 2
    return means[inverse]
