"""One query against candidates: which way it asks, and the ranked answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import Direction
from sgraf_deploy.engines.ensemble import Logits, similarities
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages

Ids = Sequence[Any] | NDArray[Any]
"""The caller's names of the candidates, one for each, in their order."""

_WORDS: dict[Direction, tuple[str, str]] = {
    "image_to_text": ("caption", "an image"),
    "text_to_image": ("image", "a caption"),
}
"""What is ranked, and for what."""


@dataclass(frozen=True)
class RankedItem:
    """One candidate of a `RerankResult`: its row among the candidates as they were given.

    `id` is the caller's name of it, None if no ids were given.

    Example:
        >>> first = scorer.rerank("two dogs play in the snow", images, ids=names)[0]
        >>> first.id == names[first.index], 0 < first.similarity < 1
        (True, True)
    """

    index: int
    similarity: float
    logit: float
    id: Any = None


@dataclass(frozen=True, eq=False, repr=False)
class RerankResult:
    """The best candidates, the best first; equal candidates keep the order that they were given in.

    It is a sequence of `RankedItem`, and holds the same as arrays: `indices` (k,) int64 are rows of
    the candidates as they were given, `similarities` and `logits` (k,) float32, and `ids` the
    caller's names in the same order, None if no ids were given. The order is that of the logits,
    which differ even where similarities are rounded to 1.

    Example:
        >>> best = scorer.rerank("two dogs play in the snow", images, top_k=2, ids=names)
        >>> len(best), best.indices.shape, best.similarities.dtype
        (2, (2,), dtype('float32'))
        >>> [item.id for item in best] == [names[row] for row in best.indices]
        True
        >>> best[0].similarity >= best[1].similarity
        True
    """

    direction: Direction
    indices: NDArray[np.int64]
    similarities: NDArray[np.float32]
    logits: NDArray[np.float32]
    ids: tuple[Any, ...] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[RankedItem]:
        return map(self._item, range(len(self)))

    @overload
    def __getitem__(self, place: int) -> RankedItem: ...

    @overload
    def __getitem__(self, place: slice) -> RerankResult: ...

    def __getitem__(self, place: int | slice) -> RankedItem | RerankResult:
        if not isinstance(place, slice):
            return self._item(place)
        return RerankResult(
            self.direction,
            self.indices[place],
            self.similarities[place],
            self.logits[place],
            None if self.ids is None else self.ids[place],
        )

    def __repr__(self) -> str:
        what, query = _WORDS[self.direction]
        plural = "" if len(self) == 1 else "s"
        best = f", the best row {self[0].index} with {self[0].similarity:.4f}" if len(self) else ""
        return f"RerankResult({len(self):,} {what}{plural} for {query}{best})"

    def _item(self, place: int) -> RankedItem:
        return RankedItem(
            int(self.indices[place]),
            float(self.similarities[place]),
            float(self.logits[place]),
            None if self.ids is None else self.ids[place],
        )


def query_direction(query: object) -> Direction:
    """Return which way a query asks, by its type; InputError for anything else.

    An image is one EncodedImages or regions (regions, img_dim); a caption is one EncodedCaptions,
    a string, or token ids (words,).
    """
    if isinstance(query, EncodedImages | EncodedCaptions):
        if len(query) != 1:
            raise InputError("query", expected="one image or caption", got=f"{len(query)} of them")
        return "image_to_text" if isinstance(query, EncodedImages) else "text_to_image"
    if isinstance(query, str):
        return "text_to_image"
    if isinstance(query, np.ndarray):
        if query.ndim == 2 and query.dtype.kind == "f":
            return "image_to_text"
        if query.ndim == 1 and query.dtype.kind in "iu":
            return "text_to_image"
    elif isinstance(query, Sequence) and all(isinstance(x, int | np.integer) for x in query):
        return "text_to_image"
    raise InputError(
        "query",
        expected="one string, one caption's token ids, one image's regions (regions, img_dim), "
        "or one encoded image or caption",
        got=_describe(query),
    )


def rank(
    direction: Direction, logits: Logits, top_k: int | None, ids: Sequence[Any] | None = None
) -> RerankResult:
    """Rank candidates by logits (candidates,); `top_k` of them, all of them if it is None."""
    order = np.argsort(-logits, kind="stable")[:top_k]
    best = logits[order]
    chosen = None if ids is None else tuple(ids[row] for row in order.tolist())
    return RerankResult(direction, order, similarities(best), best, chosen)


def check_top_k(top_k: object) -> None:
    """Raise InputError unless `top_k` is None or a positive integer."""
    if top_k is None:
        return
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise InputError("top_k", expected="a positive integer, or None for all", got=top_k)


def check_ids(ids: object, candidates: int) -> list[Any] | None:
    """Return the caller's ids as a list; InputError unless there is one for each candidate."""
    if ids is None:
        return None
    if hasattr(ids, "__array__") and not isinstance(ids, type):  # A column of a table, too.
        array = np.asarray(ids)
        ids = array.tolist() if array.ndim == 1 else array
    if isinstance(ids, str | bytes) or not isinstance(ids, Sequence):
        expected = "a sequence with an id for each candidate, in their order"
        raise InputError("ids", expected=expected, got=_describe(ids))
    if len(ids) != candidates:
        raise InputError("ids", expected=f"{candidates}, one for each candidate", got=len(ids))
    return list(ids)


def _describe(query: Any) -> str:
    if isinstance(query, np.ndarray):
        return f"{query.dtype} of shape {query.shape}"
    return type(query).__name__
