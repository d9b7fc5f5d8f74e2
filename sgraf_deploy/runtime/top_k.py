"""The best candidates of every query, found tile by tile, in parts that merge in any order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import Direction
from sgraf_deploy.engines.bounds import Rest
from sgraf_deploy.engines.ensemble import Logits, similarities
from sgraf_deploy.engines.tallies import Touched, union
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.runtime.part import Part, Whole, add_scored, join_tiles
from sgraf_deploy.runtime.part_file import Filed, contents_of, read_arrays, write_arrays

Keys = NDArray[np.uint64]
"""A candidate each: above, bits that fall as the logit rises; below, its row. The smallest key is
the best candidate: the highest logit, among equal ones the lowest row."""

_WHAT = "partial best candidates"
_NONE = np.uint64(2**64 - 1)
"""The key of no candidate, which comes after all others."""
_ROW_BITS, _SIGN = np.uint64(32), np.uint32(2**31)


@dataclass(frozen=True)
class ListedWhole(Whole):
    """What partial lists of the best candidates are parts of."""

    k: int
    """How many candidates each query has at most."""


@dataclass(frozen=True)
class _Header:
    """Describes a file of partial lists."""

    format: Literal[1]
    kind: Literal["partial top k"]
    whole: ListedWhole
    scored: dict[str, int]
    contents: str


@dataclass(frozen=True, eq=False)
class TopK:
    """The best candidates of every query, the best first; equal ones in the order of their rows.

    `indices` (queries, k) int64 are rows of the candidates, `logits` and `similarities` (queries,
    k) float32. `k` is at most the number of candidates.

    Example:
        >>> best = scorer.top_k_tiles(images, captions, k=3).result()["text_to_image"]
        >>> best.indices.shape, best.similarities.dtype
        ((2, 3), dtype('float32'))
        >>> bool((best.logits[:, 0] >= best.logits[:, 1]).all())
        True
    """

    indices: NDArray[np.int64]
    logits: NDArray[np.float32]
    similarities: NDArray[np.float32]


@dataclass(frozen=True, eq=False, repr=False)
class PartialTopK(Part):
    """The best candidates that some tiles hold of the queries that they touched.

    `Scorer.top_k_tiles` makes one. Parts of the same `whole` merge, in any order, and those of all
    tiles give the best candidates of the whole matrix. Others are refused as by `PartialRanks`.

    Example:
        >>> part = scorer.top_k_tiles(images, captions, 2, [0])
        >>> part
        PartialTopK(1 of 1 tiles, native, fp32)
        >>> part.scored
        {'sgr': 12, 'saf': 12}
        >>> part.save("part.npz")
        >>> again = sgraf_deploy.PartialTopK.load("part.npz")
        >>> sgraf_deploy.PartialTopK.merge([again]).digest == part.digest
        True
        >>> part.result()["image_to_text"].indices.shape
        (6, 2)
    """

    whole: ListedWhole
    images: NDArray[np.int64]
    captions: NDArray[np.int64]
    image_keys: Keys
    """(images, k), each row rising: captions."""
    caption_keys: Keys
    """(captions, k), each row rising: images."""

    def __add__(self, other: PartialTopK) -> PartialTopK:
        if not isinstance(other, PartialTopK):
            return NotImplemented
        return PartialTopK.merge([self, other])

    @staticmethod
    def merge(parts: Sequence[PartialTopK]) -> PartialTopK:
        """Merge parts, in any order; raises as `PartialRanks.merge`."""
        tiles, first = join_tiles(parts), parts[0]
        images, captions = (
            union([getattr(part, side) for part in parts]) for side in ("images", "captions")
        )
        by_image = _merge(images, [(part.images, part.image_keys) for part in parts])
        by_caption = _merge(captions, [(part.captions, part.caption_keys) for part in parts])
        scored = add_scored(parts)
        return PartialTopK(first.whole, tiles, scored, images, captions, by_image, by_caption)

    def result(self) -> dict[Direction, TopK]:
        """The best candidates by direction; InputError if tiles are missing, it says how many."""
        self._check_complete()
        return {"image_to_text": _list(self.image_keys), "text_to_image": _list(self.caption_keys)}

    @cached_property
    def digest(self) -> str:
        """What identifies what was found: a sha256 in hexadecimal digits."""
        return contents_of(dict(self._arrays()))

    def save(self, path: PathLike, *, step: Callable[[str], None] | None = None) -> None:
        """Write the part to one file, whole or not at all; as `PartialRanks.save`."""
        header = _Header(1, "partial top k", self.whole, self.scored, self.digest)
        write_arrays(path, _WHAT, header, dict(self._arrays()), step)

    @classmethod
    def load(cls, path: PathLike) -> PartialTopK:
        """Read what `save` wrote; DataError for a file that is missing, damaged or another."""
        header, filed = read_arrays(path, _WHAT, _Header)
        whole = header.whole
        tiles = filed.rising("tiles", whole.tiles)
        images = filed.rising("images", whole.images)
        captions = filed.rising("captions", whole.captions)
        by_image = _keys(filed, "image_keys", len(images), whole.captions, whole.k)
        by_caption = _keys(filed, "caption_keys", len(captions), whole.images, whole.k)
        filed.end()
        filed.check_scored(header.scored, len(images) * len(captions))
        return cls(whole, tiles, header.scored, images, captions, by_image, by_caption)

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        yield "tiles", self.tiles
        for name in ("images", "captions", "image_keys", "caption_keys"):
            yield name, getattr(self, name)


@dataclass(frozen=True, eq=False)
class LastBest:
    """The last best candidate's logit of some queries: what others have to reach.

    `by_image` (images,) and `by_caption` (captions,) float32 are those of the rising rows `images`
    and `captions`; -inf where there are fewer than k candidates yet, or where it is not finite.
    """

    images: NDArray[np.int64]
    captions: NDArray[np.int64]
    by_image: Logits
    by_caption: Logits

    def reached(
        self, first_image: int, columns: NDArray[np.int64], logits: Logits
    ) -> NDArray[np.bool_]:
        """Which logits (images, captions) reach their image's last best, or their caption's."""
        rows = np.searchsorted(self.images, first_image + np.arange(len(logits)))
        places = np.searchsorted(self.captions, columns)
        return logits >= np.minimum(self.by_image[rows, None], self.by_caption[places])

    def upper(self, rest: Rest) -> LastBest:
        """The most that the ensemble's logits can be, if these are of the member that is known."""
        return self._of(lambda logits: np.where(logits > -np.inf, rest.upper([logits]), logits))

    def halfway(self, other: LastBest) -> LastBest:
        """Halfway between these and others."""
        return self._of(lambda one, two: one / 2 + two / 2, other)

    def _of(self, function: Callable[..., Logits], *others: LastBest) -> LastBest:
        sides = ("by_image", "by_caption")
        found = (function(*(getattr(each, side) for each in (self, *others))) for side in sides)
        return LastBest(self.images, self.captions, *found)


class BestFinder:
    """Keeps the best candidates of the queries of some tiles; several threads may add tiles."""

    def __init__(self, touched: Touched, images: int, captions: int, k: int) -> None:
        """Begin with no candidate of any query that the tiles touch, of so many in all."""
        self.rows, self.columns = touched.images, touched.captions
        self._by_image = np.full((len(self.rows), min(k, captions)), _NONE)
        self._by_caption = np.full((len(self.columns), min(k, images)), _NONE)
        self._lock = threading.Lock()

    def begin(self) -> BestFinder:
        """Begin again, for the same queries."""
        other = copy(self)
        kept = self._by_image, self._by_caption
        other._by_image, other._by_caption = (np.full_like(each, _NONE) for each in kept)
        other._lock = threading.Lock()
        return other

    def add(
        self,
        first_image: int,
        columns: NDArray[np.int64],
        logits: Logits,
        known: NDArray[np.bool_] | None = None,
    ) -> None:
        """Take a tile's logits (images, captions): its rows are images from `first_image` on.

        Only those that are `known` (images, captions) are candidates; by default all of them. A
        pair is taken once.
        """
        rows = first_image + np.arange(len(logits))
        image_keys, caption_keys = _pack(logits, columns), _pack(logits.T, rows)
        if known is not None:
            image_keys[~known], caption_keys[~known.T] = _NONE, _NONE
        by_image = _best(image_keys, self._by_image.shape[1])
        by_caption = _best(caption_keys, self._by_caption.shape[1])
        row_places = np.searchsorted(self.rows, rows)
        column_places = np.searchsorted(self.columns, columns)
        with self._lock:
            _improve(self._by_image, row_places, by_image)
            _improve(self._by_caption, column_places, by_caption)

    def last(self) -> LastBest:
        """What others have to reach by now; no thread may add tiles meanwhile."""
        kept = self._by_image, self._by_caption
        return LastBest(self.rows, self.columns, *map(_last, kept))

    def found(self) -> tuple[Keys, Keys]:
        """The best of every image (images, k) and of every caption (captions, k), rising."""
        return np.sort(self._by_image, axis=1), np.sort(self._by_caption, axis=1)


def _pack(logits: Logits, rows: NDArray[np.int64]) -> Keys:
    """The keys of candidates of these rows, from logits (queries, candidates)."""
    bits = (logits + np.float32(0)).view(np.uint32)  # -0.0 becomes 0.0.
    rising = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (~rising).astype(np.uint64) << _ROW_BITS | rows.astype(np.uint64)


def _logits(keys: Keys) -> Logits:
    """The logits of candidates; NaN for none."""
    rising = ~(keys >> _ROW_BITS).astype(np.uint32)
    return np.where(rising & _SIGN, rising ^ _SIGN, ~rising).view(np.float32)


def _last(keys: Keys) -> Logits:
    """The lowest logit of each row of keys (queries, k), -inf if it is not finite or missing."""
    logits = _logits(keys.max(axis=1))
    return np.where(np.isfinite(logits), logits, np.float32(-np.inf))


def _list(keys: Keys) -> TopK:
    logits = _logits(keys)
    indices = (keys & np.uint64(2**32 - 1)).astype(np.int64)
    return TopK(indices, logits, similarities(logits))


def _best(keys: Keys, k: int) -> Keys:
    """The smallest `k` of keys (queries, any), in no order; all if there are fewer."""
    return np.partition(keys, k - 1, axis=1)[:, :k] if keys.shape[1] > k else keys


def _improve(kept: Keys, places: NDArray[np.int64], keys: Keys) -> None:
    """Put the best of what is kept at some places and of new keys there."""
    kept[places] = _best(np.concatenate([kept[places], keys], axis=1), kept.shape[1])


def _merge(queries: NDArray[np.int64], parts: Sequence[tuple[NDArray[np.int64], Keys]]) -> Keys:
    merged = np.full((len(queries), parts[0][1].shape[1]), _NONE)
    for own, keys in parts:
        _improve(merged, np.searchsorted(queries, own), keys)
    return np.sort(merged, axis=1)


def _keys(filed: Filed, name: str, queries: int, candidates: int, k: int) -> Keys:
    keys: Keys = filed.take(name, np.uint64, (queries, min(k, candidates)))
    rows = keys & np.uint64(2**32 - 1)
    here = keys != _NONE
    twice = (keys[:, 1:] <= keys[:, :-1]) & here[:, 1:]
    if twice.any() or (rows[here] >= candidates).any():
        raise filed.wrong(name, f"rising keys of candidates 0 … {candidates - 1}", "others")
    return keys
