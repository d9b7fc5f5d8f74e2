"""What changed between two runs: an estimate, a bootstrap interval, and the verdict on it.

Every change is expressed as harm, so that positive is worse: points of R@K lost, percent of time
added. A small sample or a noisy machine leaves a change undecided, and says how much more would
decide it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, isfinite, sqrt
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["worse", "undecided", "same", "no worse", "better"]

SAMPLES = 20_000
"""Bootstrap samples: more than 5 of them lie beyond each end of every interval that is asked for,
of ten rounds and of one of seven figures."""

ALPHA = 0.01
"""The intervals hold 99 % of the samples, and of seven figures together at least that much."""

SEED = 0

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Change:
    """How much worse a figure became: the estimate, its interval, and the most that is accepted.

    `size` is what the sample has, images or rounds.
    """

    harm: float
    low: float
    high: float
    limit: float
    size: int

    @property
    def verdict(self) -> Verdict:
        """Worse, or better, only beyond the limit and with zero outside the interval.

        It is the same where the whole interval lies within the limit, and no worse where only the
        harmful end of it does. All else is undecided.
        """
        if self.harm > self.limit and self.low > 0:
            return "worse"
        if self.harm < -self.limit and self.high < 0:
            return "better"
        if self.high <= self.limit:
            return "same" if self.low >= -self.limit else "no worse"
        return "undecided"

    @property
    def needed(self) -> int | None:
        """About how large a sample decides the change, if it is what it seems to be.

        An interval is taken to shrink with the square root of the sample. None for a change that is
        decided, or so near its limit that no sample would.
        """
        if self.verdict != "undecided" or not isfinite(self.high - self.low):
            return None
        if self.harm > self.limit:
            times = max(self.harm - self.low, self.high - self.harm) / self.harm
        elif self.harm < self.limit:
            times = (self.high - self.harm) / (self.limit - self.harm)
        else:
            return None
        found = ceil(self.size * max(times, 1.0) ** 2)
        return max(found, self.size + 1) if found < 1000 * self.size else None

    def to_json(self) -> dict[str, Any]:
        """All fields and derived values as a JSON object."""
        interval = {
            name: end if isfinite(end) else None
            for name, end in (("low", self.low), ("high", self.high))
        }
        return {**vars(self), **interval, "verdict": self.verdict, "needed": self.needed}


def paired_changes(effects: Floats, limits: Sequence[float], seed: int = SEED) -> list[Change]:
    """The changes of figures that are means over the same images, from each image's own harm.

    `effects` are (images, figures). One bootstrap draws images for all figures alike; their
    intervals are Holm's: what is seen in one of many figures needs more evidence.
    """
    means = _drawn_means(effects, seed)
    return [
        Change(float(harm), *_interval(samples, alpha), limit, len(effects))
        for harm, samples, alpha, limit in zip(
            effects.mean(axis=0), means.T, _holm(means), limits, strict=True
        )
    ]


def mean_intervals(
    values: Floats, alpha: float = 0.05, seed: int = SEED
) -> list[tuple[float, float]]:
    """The bootstrap interval of each column's mean, from values (images, columns)."""
    return [_interval(samples, alpha) for samples in _drawn_means(values, seed).T]


def slowdown(before: Floats, after: Floats, limit: float, seed: int = SEED) -> Change:
    """By how many percent the median of `after` (rounds,) is above that of `before` (rounds,).

    The rounds of either run are drawn by themselves: those of two runs do not belong together. The
    interval of a single round is infinite.
    """
    harm = float(100 * (np.median(after) / np.median(before) - 1))
    size = min(len(before), len(after))
    if size == 1:
        return Change(harm, -inf, inf, limit, size)
    rng = np.random.default_rng(seed)
    medians = [
        np.median(rounds[rng.integers(len(rounds), size=(SAMPLES, len(rounds)))], axis=1)
        for rounds in (before, after)
    ]
    alpha = _for_few(ALPHA, size, len(before) + len(after) - 2)
    interval = _interval(100 * (medians[1] / medians[0] - 1), alpha)
    return Change(harm, *interval, limit, size)


def _drawn_means(values: Floats, seed: int) -> Floats:
    """Means (samples, columns) over as many images as there are, drawn for all columns alike."""
    images = len(values)
    # Images with the same values are interchangeable: there are few kinds of them.
    kinds, counts = np.unique(values, axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(images, counts / images, size=SAMPLES)
    means: Floats = drawn @ kinds / images
    return means


def _interval(samples: Floats, alpha: float) -> tuple[float, float]:
    low, high = np.quantile(samples, (alpha / 2, 1 - alpha / 2))
    return float(low), float(high)


def _for_few(alpha: float, size: int, freedom: int) -> float:
    """The alpha that a percentile interval of few values needs, to hold as often as it says.

    It is too narrow by what Student's t is wider than the normal distribution, and by the factor
    n / (n - 1) of the variance ("expanded percentile interval", Hesterberg, The American
    Statistician 69, 2015). The quantile of t is that of its expansion in 1 / freedom.
    """
    normal = NormalDist()
    z = normal.inv_cdf(1 - alpha / 2)
    t = z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
    return 2 * normal.cdf(-t * sqrt(size / (size - 1)))


def _holm(means: Floats) -> list[float]:
    """Holm's alpha for the interval of each figure, from samples (samples, figures) of its change.

    The clearest change is judged by the strictest; the first that is not clear holds up the rest.
    """
    figures = means.shape[1]
    sides = np.minimum((means <= 0).sum(axis=0), (means >= 0).sum(axis=0))
    chances = 2 * (sides + 1) / (SAMPLES + 1)
    alphas, held = [0.0] * figures, False
    alpha = 0.0
    for place, figure in enumerate(np.argsort(chances, kind="stable").tolist()):
        if not held:
            alpha = ALPHA / (figures - place)
            held = chances[figure] > alpha
        alphas[figure] = alpha
    return alphas
