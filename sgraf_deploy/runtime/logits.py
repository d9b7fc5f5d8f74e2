"""From logits to similarities, and from two members' logits to the ensemble's.

Ranks come from logits: float32 similarities near 0 and 1 tie where their logits still differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError

Logits = NDArray[np.float32]

BLOCK = 1 << 16
"""Elements that are worked on at a time, so that temporaries stay small and in cache."""


def similarities(logits: NDArray[Any]) -> NDArray[np.float32]:
    """The float32 sigmoid of logits of any shape, without overflow on either side."""
    flat = np.ascontiguousarray(logits, dtype=np.float32).reshape(-1)
    result = np.empty_like(flat)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        small = np.exp(-np.abs(block))
        result[start : start + BLOCK] = np.where(block >= 0, np.float32(1), small) / (1 + small)
    return result.reshape(np.shape(logits))


def combine_logits(first: NDArray[Any], second: NDArray[Any]) -> NDArray[np.float32]:
    """The logit of the mean of two similarities, from their logits of one shape; float32.

    With s = log-sigmoid it is logaddexp(s(a), s(b)) - logaddexp(s(-a), s(-b)), in float64 and in
    a form where nothing cancels: with m = |a + b| / 2, d = |a - b| / 2 and both signs turned if
    a + b < 0, it is log1p(2 exp(m - d) (1 - exp(-2m)) / (1 + exp(-2d) + 2 exp(-d - m))).
    """
    if np.shape(first) != np.shape(second):
        raise ValueError(f"logits of shapes {np.shape(first)} and {np.shape(second)}")
    one, two = np.asarray(first).reshape(-1), np.asarray(second).reshape(-1)
    result = np.empty(one.size, dtype=np.float32)
    for start in range(0, one.size, BLOCK):
        part = slice(start, start + BLOCK)
        result[part] = _combine(one[part].astype(np.float64), two[part].astype(np.float64))
    return result.reshape(np.shape(first))


def ensemble_logits(members: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The logits to rank by: the only member's own, or two members' combined."""
    values = list(members.values())
    return values[0] if len(values) == 1 else combine_logits(*values)


def not_a_number(image: int, caption: int) -> DataError:
    """The error for a logit that is NaN, which no rank could be read from."""
    return DataError(
        f"the logit of image {image} and caption {caption}",
        expected="a number",
        got="NaN",
        mend="look at that image's features, and check the bundle with `sgraf-deploy verify`",
    )


def _combine(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    sign = np.where(a + b < 0, -1.0, 1.0)
    low, high = np.minimum(a * sign, b * sign), np.maximum(a * sign, b * sign)
    far = np.exp(low - high)  # exp(-2d)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where a = -b the logarithm is that of 0, which logaddexp turns into 0. NaN stays NaN.
        odds = low + np.log(-2.0 * np.expm1(-(low + high)) / (1.0 + far + 2.0 * np.exp(-high)))
        combined: NDArray[np.float64] = sign * np.logaddexp(0.0, odds)
    return combined
