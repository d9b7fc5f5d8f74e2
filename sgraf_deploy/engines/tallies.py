"""Counts of candidates in a form that adds up: from any tiles, in any order, to the same result.

A candidate is better than its query's threshold, worse, or close to it. The close ones are kept
with their logits, as the threshold's last bits are those of the tile that holds the ground truth,
which may be counted elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.ensemble import Logits

Counts = NDArray[np.int64]
Queries = NDArray[np.integer[Any]]

_LOGIT_BITS = np.uint64(32)


@dataclass(frozen=True, eq=False)
class Touched:
    """The images and captions that tiles hold, and the captions whose own image is in the tile.

    Each an array of rising rows, int64.
    """

    images: Counts
    captions: Counts
    truths: Counts


@dataclass(frozen=True, eq=False)
class Tally:
    """What some queries' candidates were found to be, for one model in one direction.

    `better` (queries,) int64 counts those that are certainly better. Those that are close are
    `keys` (close,) uint64, rising, each once: the query above, the bits of the float32 logit below.
    `counts` (close,) int64 says how many there are of each.
    """

    better: Counts
    keys: NDArray[np.uint64]
    counts: Counts

    @classmethod
    def exact(cls, queries: Queries, thresholds: Logits, reach: Counts, level: Counts) -> Tally:
        """The tally of counts of candidates that reach, and that equal, thresholds (queries,)."""
        tied = np.flatnonzero(level)
        return cls(reach - level, pack(queries[tied], thresholds[tied]), level[tied])

    def against(self, thresholds: Logits) -> tuple[Counts, Counts]:
        """How many candidates are no worse than the thresholds of all queries, how many equal them.

        The queries are 0, 1, … and all of them are in this tally.
        """
        queries, logits = unpack(self.keys)
        reach, level = self.better.copy(), np.zeros_like(self.better)
        for result, fits in (
            (reach, logits >= thresholds[queries]),
            (level, logits == thresholds[queries]),
        ):
            np.add.at(result, queries[fits], self.counts[fits])
        return reach, level


@dataclass(frozen=True, eq=False)
class ModelTally:
    """One model's tallies of the touched images and captions, and the ground truths' logits.

    `truths` (touched truths,) float32 are those that were found in the tiles.
    """

    images: Tally
    captions: Tally
    truths: Logits


def pack(queries: Queries, logits: Logits) -> NDArray[np.uint64]:
    """Make one key of each query and its candidate's logit."""
    bits = np.ascontiguousarray(logits).view(np.uint32).astype(np.uint64)
    return queries.astype(np.uint64) << _LOGIT_BITS | bits


def unpack(keys: NDArray[np.uint64]) -> tuple[Counts, Logits]:
    """The queries and logits of keys."""
    return (keys >> _LOGIT_BITS).astype(np.int64), keys.astype(np.uint32).view(np.float32)


def add_keys(
    keys: Sequence[NDArray[np.uint64]], counts: Sequence[Counts]
) -> tuple[NDArray[np.uint64], Counts]:
    """Join keys and their numbers: every key once, in rising order, with the sum of its numbers."""
    found, places = np.unique(np.concatenate(keys), return_inverse=True)
    sums = np.zeros(len(found), np.int64)
    np.add.at(sums, places, np.concatenate(counts))
    return found, sums


def union(parts: Sequence[Counts]) -> Counts:
    """The rows that are in any of the parts, rising."""
    return np.unique(np.concatenate(parts))


def add_tallies(queries: Counts, parts: Sequence[tuple[Counts, Tally]]) -> Tally:
    """Add up tallies, each given with its queries, for `queries`, which hold all of these."""
    better = np.zeros(len(queries), np.int64)
    for own, tally in parts:
        better[np.searchsorted(queries, own)] += tally.better
    tallies = [tally for _, tally in parts]
    keys, counts = add_keys([each.keys for each in tallies], [each.counts for each in tallies])
    return Tally(better, keys, counts)


def add_models(
    touched: Touched, parts: Sequence[tuple[Touched, dict[str, ModelTally]]]
) -> dict[str, ModelTally]:
    """Add up the tallies of all models, of parts that have no pair in common."""
    added = {}
    for name in parts[0][1]:
        truths = np.empty(len(touched.truths), np.float32)
        for own, models in parts:
            truths[np.searchsorted(touched.truths, own.truths)] = models[name].truths
        images = [(own.images, models[name].images) for own, models in parts]
        captions = [(own.captions, models[name].captions) for own, models in parts]
        added[name] = ModelTally(
            add_tallies(touched.images, images), add_tallies(touched.captions, captions), truths
        )
    return added
