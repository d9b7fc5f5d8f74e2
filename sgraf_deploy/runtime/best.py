"""The best candidates by the ensemble's logit, found exactly without every member's every pair.

The cheapest member scores all pairs. From its logits follows the most that the ensemble's can be
(`engines.bounds`); in that order the next members score the pairs, in batches of growing size,
until no other pair can reach the k-th best of its list. Batches follow from logits and numbers of
pairs alone, never from time. Lists like those that have gained nothing are mostly scored whole at
once; see `trials`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.ensemble import Logits, combine_logits, ensemble_logits
from sgraf_deploy.runtime import pairs
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.matrix import ensemble_matrix, member_matrix
from sgraf_deploy.runtime.pruning import WHOLE
from sgraf_deploy.runtime.share import Share

LEAST = 16
"""The fewest pairs of a list that are scored at a time: as many as fill the compiled kernels."""

Places = NDArray[np.int64] | slice
"""Pairs by their places, or all of them."""

GROWTH = 4
"""How many times as many pairs each batch of a list holds as the one before."""


@dataclass(frozen=True, eq=False)
class PairList:
    """Pairs of which the best are wanted: `pairs` (any,) int64 are places in an index, each once.

    `top_k` is how many, None for all.

    Example:
        >>> both = sgraf_deploy.PairList(np.arange(6), 2), sgraf_deploy.PairList(np.arange(6, 12))
        >>> logits = scorer.best_pairs(images, captions, [*range(6)] * 2, [0] * 6 + [1] * 6, both)
        >>> logits.shape, int((logits[:6] > -np.inf).sum()) >= 2
        ((12,), True)
    """

    pairs: NDArray[np.int64]
    top_k: int | None = None

    @property
    def is_cut(self) -> bool:
        """Whether some pairs are not wanted."""
        return self.top_k is not None and self.top_k < len(self.pairs)

    @property
    def share(self) -> float:
        """The share of the pairs that is wanted; 1 if asking one member first cannot gain."""
        if self.top_k is None or len(self.pairs) <= max(LEAST, self.top_k):
            return 1.0
        return self.top_k / len(self.pairs)


def cut_lists(places: NDArray[np.int64], sizes: Sequence[tuple[int, int | None]]) -> list[PairList]:
    """Cut places of pairs into lists that follow each other, by their lengths and `top_k`.

    A place may be in a list several times.

    Example:
        >>> [each.pairs.tolist() for each in cut_lists(np.array([4, 1, 4, 2]), [(3, 1), (1, None)])]
        [[1, 4], [2]]
    """
    ends = np.cumsum([size for size, _ in sizes])
    parts = np.split(places, ends[:-1])
    return [PairList(np.unique(part), k) for part, (_, k) in zip(parts, sizes, strict=True)]


def best_of_all(
    context: Context, images: EncodedImages, captions: EncodedCaptions, top_k: int
) -> Logits:
    """The logits (images · captions,) of all pairs, as far as one list needs; see `best_logits`."""
    rows = np.arange(len(images) * len(captions))
    lists = [PairList(rows, top_k)]
    if not _is_tried(context, lists):
        return ensemble_matrix(context, images, captions).reshape(-1)
    image_rows, caption_rows = np.divmod(rows.astype(np.int32), max(1, len(captions)))
    index = image_rows, caption_rows
    return _Search(context, images, captions, index, lists, is_matrix=True).run()


def best_logits(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    image_rows: NDArray[np.int32],
    caption_rows: NDArray[np.int32],
    *,
    lists: Sequence[PairList],
) -> Logits:
    """The logits to rank by of pairs, (pairs,) float32, as far as lists of the best need them.

    Every pair is in a list. Where a pair is among the best of none it may be -inf; all others have
    the ensemble's own bits, those that tie with the last of a list's best included. Raises as
    `pairs.pair_logits`, for the logits that are computed.
    """
    if not _is_tried(context, lists):
        found = pairs.pair_logits(context, images, captions, image_rows, caption_rows)
        return ensemble_logits(found)
    return _Search(context, images, captions, (image_rows, caption_rows), lists).run()


def _is_tried(context: Context, lists: Sequence[PairList]) -> bool:
    """Whether to ask one member first."""
    share = _least_share(lists)
    return context.prunes and share < 1 and context.trials.is_due(share)


def _least_share(lists: Sequence[PairList]) -> float:
    return min((each.share for each in lists), default=1.0)


class _Search:
    """What is known of the pairs so far."""

    def __init__(
        self,
        context: Context,
        images: EncodedImages,
        captions: EncodedCaptions,
        rows: tuple[NDArray[np.int32], NDArray[np.int32]],
        lists: Sequence[PairList],
        *,
        is_matrix: bool = False,
    ) -> None:
        self._is_matrix = is_matrix
        self._share: Share | None = None
        self._context, self._images, self._captions = context, images, captions
        self._rows, self._lists = rows, lists
        count = len(rows[0])
        self._members, self._rests = context.by_cost, context.rests()
        self._found = {name: np.empty(count, np.float32) for name in self._members}
        self._level = np.zeros(count, np.int64)
        """How many members, in the order of their cost, have scored each pair."""
        self._upper = np.full(count, np.inf, np.float32)
        self._logits = np.full(count, -np.inf, np.float32)

    def run(self) -> Logits:
        """Score what the lists need; returns the logits."""
        everything = slice(None)
        self._score(everything, 0)
        if all(self._stays_whole(each) for each in self._lists):
            self._score(everything, 1)
        else:
            self._bound(everything, 0)
        size = 1
        while len(places := self._wanted(size)):
            levels = self._level[places]
            for level in range(1, len(self._members)):
                chosen = places[levels == level]
                if len(chosen):
                    self._score(chosen, level)
            size *= GROWTH
        whole = np.count_nonzero(self._level == len(self._members)) >= WHOLE * len(self._level)
        self._context.trials.add(_least_share(self._lists), gained=not whole)
        return self._logits

    def _stays_whole(self, wanted: PairList) -> bool:
        """Whether `_next` would have all of a list scored, told by the first member's logits.

        The bound rises with its logit, so that of one pair tells how many can reach the best.
        """
        places, k = wanted.pairs, wanted.top_k
        if k is None or wanted.share == 1:
            return True
        ranks = int((1 - WHOLE) * len(places)), len(places) - k
        low, high = np.partition(self._found[self._members[0]][places], ranks)[list(ranks)]
        return bool(self._rests[0].upper([low[None]])[0] >= high)

    def _wanted(self, size: int) -> NDArray[np.int64]:
        """The pairs that are scored next, rising; none if the lists are complete."""
        unknown = np.flatnonzero(self._level < len(self._members))
        if not len(unknown):
            return unknown
        found = [self._next(each, size) for each in self._lists]
        places = np.unique(np.concatenate(found)) if len(found) > 1 else np.sort(found[0])
        if not len(places):
            places = self._damaged(unknown)
        return places

    def _score(self, places: Places, level: int) -> None:
        """Have the next member score pairs, of which so many members are known."""
        name = self._members[level]
        self._found[name][places] = self._logits_of(places, name)
        self._level[places] = level + 1
        if level + 1 == len(self._members):
            # In the bundle's order, in which sums of several members are rounded.
            members = (self._found[each][places] for each in self._context.configs)
            self._logits[places] = combine_logits(*members)
        elif level:
            self._bound(places, level)

    def _bound(self, places: Places, level: int) -> None:
        """Note the most that the ensemble's logits can be, known the members up to a level."""
        known = [self._found[each][places] for each in self._members[: level + 1]]
        self._upper[places] = self._rests[level].upper(known)

    def _logits_of(self, places: Places, name: str) -> Logits:
        """A member's logits of pairs; of nearly all of a matrix by tiles, which take less time."""
        sides = self._context, self._images, self._captions
        number = len(self._level[places])
        if self._is_matrix and number >= WHOLE * len(self._level):
            if self._share is None:
                lengths = self._captions.lengths
                self._share = Share.whole(self._context.tiling(len(self._images), lengths))
            return member_matrix(*sides, name, self._share).reshape(-1)[places]
        image_rows, caption_rows = (side[places] for side in self._rows)
        return pairs.pair_logits(*sides, image_rows, caption_rows, members=(name,))[name]

    def _next(self, wanted: PairList, size: int) -> NDArray[np.int64]:
        """The pairs of a list that are scored next, those with the highest bounds."""
        places = wanted.pairs
        unknown = places[self._level[places] < len(self._members)]
        if not wanted.is_cut or wanted.top_k is None:
            return unknown
        first = size == 1
        # As long as nothing is known, as if the first member's list were the ensemble's.
        known = self._found[self._members[0]] if first else self._logits
        is_open = self._upper[unknown] >= _highest(known[places], wanted.top_k)
        left = unknown if first else unknown[is_open]
        most = size * max(LEAST, wanted.top_k)
        if len(left) <= most or np.count_nonzero(is_open) >= WHOLE * len(unknown):
            return left
        return left[np.argsort(-self._upper[left], kind="stable")[:most]]

    def _damaged(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those pairs whose image or caption has a vector that is not finite, in any member.

        All members score them, which finds what no bound tells of.
        """
        engine, found = self._context.engine, [np.zeros(0, np.int64)]
        for name in self._members[1:] if len(places) else ():
            vectors = (
                self._images.members[name].image_global,
                self._captions.members[name].text_global,
            )
            for vector, rows in zip(vectors, self._rows, strict=True):
                chosen, back = np.unique(rows[places], return_inverse=True)
                finite = np.isfinite(engine.fetch(engine.gather(vector, chosen.astype(np.int32))))
                found.append(places[~np.asarray(finite.all(axis=1))[back]])
        return np.unique(np.concatenate(found))


def _highest(logits: Logits, k: int) -> float:
    """The k-th highest of at least k logits; the lowest number of all if it is not finite."""
    found = -np.partition(-logits, k - 1)[k - 1]
    return float(found) if np.isfinite(found) else -np.inf
