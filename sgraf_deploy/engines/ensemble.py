"""From logits to similarities, and from the members' logits to the ensemble's.

Ranks come from logits: float32 similarities near 0 and 1 tie where their logits still differ.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ensemble_name
from sgraf_deploy.errors import DataError

Logits = NDArray[np.float32]

BLOCK = 1 << 16
"""Elements that are processed at a time, so that temporaries stay small and in cache."""


def similarities(logits: NDArray[Any]) -> NDArray[np.float32]:
    """The float32 sigmoid of logits of any shape, without overflow on either side."""
    flat = np.ascontiguousarray(logits, dtype=np.float32).reshape(-1)
    result = np.empty_like(flat)
    for start in range(0, flat.size, BLOCK):
        block = flat[start : start + BLOCK]
        small = np.exp(-np.abs(block))
        result[start : start + BLOCK] = np.where(block >= 0, np.float32(1), small) / (1 + small)
    return result.reshape(np.shape(logits))


def combine_logits(*members: NDArray[Any]) -> NDArray[np.float32]:
    """The logit of the mean of the members' similarities, from logits of one shape; float32.

    With s = log-sigmoid it is logsumexp(s(xᵢ)) - logsumexp(s(-xᵢ)), in float64 and in a form where
    nothing overflows or cancels. One member's logits are returned as they are. Raises ValueError
    for different shapes.
    """
    if len({np.shape(each) for each in members}) != 1:
        shapes = " and ".join(str(np.shape(each)) for each in members)
        raise ValueError(f"logits of shapes {shapes}")
    if len(members) == 1:
        return np.asarray(members[0], dtype=np.float32)
    combine = _combine_two if len(members) == 2 else _combine
    flat = [np.asarray(each).reshape(-1) for each in members]
    result = np.empty(flat[0].size, dtype=np.float32)
    for start in range(0, result.size, BLOCK):
        part = slice(start, start + BLOCK)
        result[part] = combine([each[part].astype(np.float64) for each in flat])
    return result.reshape(np.shape(members[0]))


def ensemble_logits(members: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
    """The logits to rank by: the only member's own, or those of all members combined."""
    return combine_logits(*members.values())


def with_ensemble(members: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
    """Logits by model: the members', and of several the ensemble's by its `ensemble_name`."""
    if len(members) == 1:
        return dict(members)
    return {**members, ensemble_name(members): ensemble_logits(members)}


def not_a_number(image: int, caption: int) -> DataError:
    """The error for a logit that is NaN, which no rank could be read from."""
    return DataError(
        f"the logit of image {image} and caption {caption}",
        expected="a number",
        got="NaN",
        hint="look at that image's features, and check the bundle with `sgraf-deploy verify`",
    )


def _combine(members: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The formula for any number of members; `torch.ranks` and `cuda.kernels` repeat it.

    The odds that the mean similarity gives are 1 + Σ tanh(xᵢ/2) / Σ sigmoid(-xᵢ). Where an |xᵢ| is
    large, its tanh is summed as a whole ±1 and what it lacks of that, so that two members of large
    opposite logits do not cancel what the others add.
    """
    yes: Any = -np.inf
    no: Any = -np.inf
    whole: Any = 0.0
    part: Any = 0.0
    with np.errstate(divide="ignore", invalid="ignore"):  # log(0) is intended; NaN stays NaN.
        for logits in members:
            sign, size = np.copysign(1.0, logits), np.abs(logits)
            small = np.exp(-size)
            rest = np.log1p(small)
            yes = np.logaddexp(yes, np.minimum(logits, 0.0) - rest)
            no = np.logaddexp(no, np.minimum(-logits, 0.0) - rest)
            whole = whole + np.where(size < 1.0, 0.0, sign)
            lacking = -2.0 * sign * small / (1.0 + small)
            part = part + np.where(size < 1.0, np.tanh(logits / 2.0), lacking)
        more = whole + part
        odds = np.log(np.abs(more)) - np.where(more < 0.0, yes, no)
        combined: NDArray[np.float64] = np.copysign(np.logaddexp(0.0, odds), more)
    return combined


def _combine_two(members: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The same for two members, factored; kept so that SGRAF's figures do not change by a bit.

    With m = |a + b| / 2, d = |a - b| / 2 and both signs turned if a + b < 0, it is
    log1p(2 exp(m - d) (1 - exp(-2m)) / (1 + exp(-2d) + 2 exp(-d - m))).
    """
    a, b = members
    sign = np.where(a + b < 0, -1.0, 1.0)
    low, high = np.minimum(a * sign, b * sign), np.maximum(a * sign, b * sign)
    far = np.exp(low - high)  # exp(-2d)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Where a = -b this is log(0), which logaddexp turns into 0. NaN stays NaN.
        odds = low + np.log(-2.0 * np.expm1(-(low + high)) / (1.0 + far + 2.0 * np.exp(-high)))
        combined: NDArray[np.float64] = sign * np.logaddexp(0.0, odds)
    return combined
