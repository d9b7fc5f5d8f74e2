"""Counts candidates against thresholds whose last bits are known only later.

A ground truth's logit may be rounded differently alone and in its tile. Candidates that differ from
it by more than that are counted at once. The few that are closer are kept until the tile's own
value is known, so that the counts are exactly those of the whole matrix: equal logits tie there,
too.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.ensemble import Logits
from sgraf_deploy.engines.tallies import Counts, Queries, Tally, add_keys, pack

SLACK = 1e-5
"""How far a pair's logit may be from its logit in a tile, in fp32, as a share of the largest logit.
Measured: 2e-6 in ONNX Runtime and PyTorch, 0 in engine native."""

ROUNDED_SLACK = 5e-4
"""The same in lower precisions. Measured: 1e-4 in PyTorch's fp16-rounded."""

SMALLEST_LOGIT = 1e-2
"""The least that the largest logit counts as: terms that cancel were rounded as larger ones."""

MOST_KEPT = 1 << 20
"""Candidates that are kept one by one; beyond, those of one query and logit are merged."""


@dataclass(frozen=True, eq=False)
class Look:
    """What a tile holds for some queries.

    `better` (queries,) counts the candidates that are certainly better; `close_queries` and
    `close_logits` (close,) are the candidates that are close to the threshold.
    """

    queries: Queries
    better: Counts
    close_queries: Queries
    close_logits: Logits


class NearCounts:
    """The counts of one direction; `look` may be called by any thread, `keep` by one at a time."""

    def __init__(self, thresholds: Logits, slack: float) -> None:
        """Take the pairs' logits (queries,) float32, which are within `slack` of the tiles'."""
        self._low, self._high = thresholds - np.float32(slack), thresholds + np.float32(slack)
        self._better = np.zeros(len(thresholds), np.int64)
        self._keys = np.zeros(0, np.uint64)
        self._counts = np.zeros(0, np.int64)
        self._coming: list[NDArray[np.uint64]] = []
        self._number = 0

    def look(self, queries: Queries, candidates: Logits) -> Look:
        """Compare candidates' logits (queries, any) float32; -inf stands for no candidate."""
        low, high = self._low[queries, None], self._high[queries, None]
        better = np.count_nonzero(candidates > high, axis=1)
        some = np.flatnonzero(np.count_nonzero(candidates >= low, axis=1) > better)
        part = candidates[some]
        close = (part >= low[some]) & (part <= high[some])
        return Look(queries, better, queries[some[np.nonzero(close)[0]]], part[close])

    def open(self, queries: Queries, lower: Logits, upper: Logits) -> NDArray[np.bool_]:
        """Where candidates between two bounds (queries, any) may be better, close or worse."""
        return (upper >= self._low[queries, None]) & (lower <= self._high[queries, None])

    def keep(self, look: Look) -> None:
        """Add what `look` found in a tile; every candidate is added once."""
        self._better[look.queries] += look.better
        if look.close_queries.size:
            self._coming.append(pack(look.close_queries, look.close_logits))
            self._number += look.close_queries.size
            if self._number > max(MOST_KEPT, len(self._keys)):
                self._merge()

    def tally(self, queries: Queries) -> Tally:
        """What was found for some queries, which are all that were looked at."""
        self._merge()
        return Tally(self._better[queries], self._keys, self._counts)

    def _merge(self) -> None:
        """Merge what was kept into one entry for each query and logit, with its number."""
        ones = [np.ones(len(each), np.int64) for each in self._coming]
        self._keys, self._counts = add_keys([self._keys, *self._coming], [self._counts, *ones])
        self._coming, self._number = [], 0


def within(truths: Logits, thresholds: Logits, slack: float) -> Logits:
    """The tiles' own logits of ground truths, which decide where candidates are close.

    One that is farther from its threshold than the slack is moved to that distance: what lies
    beyond was counted already.
    """
    margin = np.float32(slack)
    return np.clip(truths, thresholds - margin, thresholds + margin)
