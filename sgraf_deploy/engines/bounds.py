"""How far an ensemble's logit may still be from some members' logits: bounds that always hold.

The ensemble's logit is logit(mean of sigmoid(xᵢ)), which rises with every member's xᵢ. With some xᵢ
known and each other one in a range lⱼ … uⱼ, it therefore lies between its values at all lⱼ and at
all uⱼ. A range without end adds a similarity of 0 or 1: of two members it leaves s/2 … (1 + s)/2.

**The margin.** Let E be the exact value, e the float32 that `ensemble.combine_logits` gives, and L
the exact lower bound, so that L ≤ E. `combine_logits` rounds a float64 whose error is below
2⁻⁴⁴ (1 + |E|), as its terms are sums of a few logarithms and exponentials, each good to some
units in the last place of 2⁻⁵³, of numbers no larger than 1 + |E|; float32 then rounds by 2⁻²⁴ |E|.
So e ≥ f(E) with f(t) = t - 2⁻²⁴ |t| - 2⁻⁴⁴ (1 + |t|), which rises with t: e ≥ f(L). What is
computed here is L with an error below 2⁻⁴⁴ (1 + |L|) again, rounded to float32 once. The sum of all
that is below 3 · 2⁻²⁴ |L| + 2⁻⁴² ≤ RELATIVE |L| + ABSOLUTE: lowered by it, the computed bound is no
higher than e itself, and a comparison of it with any float32 decides as a comparison of e would.
Likewise above.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.ensemble import Logits

Range = tuple[float, float]
"""The lowest and the highest logit that a member can give."""

ANY: Range = (-np.inf, np.inf)

RELATIVE, ABSOLUTE = 2.0**-22, 2.0**-40
"""The margin: a share of a bound, plus a constant, that rounding cannot exceed; see above."""

Odds = tuple[Any, Any]
"""The logarithms of the sums of sigmoid(xᵢ) and of sigmoid(-xᵢ) of some members, float64."""

_LARGEST = np.finfo(np.float32).max


class Rest:
    """The members that are not known yet, by their ranges.

    Example:
        >>> lower, upper = Rest([ANY]).bounds([np.zeros(1, np.float32)])
        >>> [round(float(1 / (1 + np.exp(-each[0]))), 3) for each in (lower, upper)]
        [0.25, 0.75]
    """

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._low, self._high = zip(*ranges, strict=True)

    def bounds(self, known: Sequence[NDArray[Any]]) -> tuple[Logits, Logits]:
        """What no logit of the ensemble lies below, and none above, each of the shape of `known`.

        `known` are the other members' logits, of one shape; at least one member. NaN and infinite
        ones give the widest bounds. Finite float32.
        """
        odds, wild = self._known(known)
        lower, upper = (_together(odds, _odds(side)) for side in (self._low, self._high))
        lower[wild] = -_LARGEST
        return _float32(lower - _margin(lower)), self._raised(upper, wild)

    def upper(self, known: Sequence[NDArray[Any]]) -> Logits:
        """The upper bound alone."""
        odds, wild = self._known(known)
        return self._raised(_together(odds, _odds(self._high)), wild)

    @staticmethod
    def _known(known: Sequence[NDArray[Any]]) -> tuple[Odds, NDArray[np.bool_]]:
        """The odds of what is known, and where that is not finite."""
        exact = [np.asarray(each, np.float64) for each in known]
        wild = ~np.logical_and.reduce([np.isfinite(each) for each in exact])
        if wild.any():
            exact = [np.where(wild, 0.0, each) for each in exact]
        return _odds(exact), wild

    @staticmethod
    def _raised(upper: NDArray[np.float64], wild: NDArray[np.bool_]) -> Logits:
        upper[wild] = _LARGEST
        return _float32(upper + _margin(upper))


def filtration_range(weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Range:
    """The logits that SAF can give: its last vector has norm 1, so they are bias ± ‖weight‖.

    `weight` (sim_dim, 1) and `bias` (1,) float32 are those of its last layer. In float32, with
    u = 2⁻²⁴, the vector's norm is below 1 + (sim_dim / 2 + 4) u, as its sum of squares, square root
    and quotient are rounded; the product adds at most sim_dim · u · ‖weight‖ in any order of sums,
    and the bias one rounding more. The range is wider than all of that.
    """
    norm, centre = float(np.linalg.norm(weight.astype(np.float64))), float(bias.reshape(()))
    slack = 2 * (weight.size + 8) * 2.0**-24 * (norm + abs(centre))
    return centre - norm - slack, centre + norm + slack


def _together(one: Odds, other: Odds) -> NDArray[np.float64]:
    """The logit of all members' mean similarity, from the odds of some and of the others."""
    together: NDArray[np.float64] = np.logaddexp(one[0], other[0]) - np.logaddexp(one[1], other[1])
    return together


def _odds(members: Sequence[Any]) -> Odds:
    """The logarithms of the sums of sigmoid(xᵢ) and of sigmoid(-xᵢ), float64."""
    yes: Any = -np.inf
    no: Any = -np.inf
    for given in members:
        logits = np.asarray(given, np.float64)
        rest = np.log1p(np.exp(-np.abs(logits)))
        yes = np.logaddexp(yes, np.minimum(logits, 0.0) - rest)
        no = np.logaddexp(no, np.minimum(-logits, 0.0) - rest)
    return yes, no


def _margin(bound: NDArray[np.float64]) -> NDArray[np.float64]:
    return RELATIVE * np.abs(bound) + ABSOLUTE


def _float32(bound: NDArray[np.float64]) -> Logits:
    return np.clip(bound, -_LARGEST, _LARGEST).astype(np.float32)
