"""What a reranker is asked, and its answer: records of a gallery by the caller's ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import Direction
from sgraf_deploy.runtime.requests import Query


@dataclass(frozen=True, eq=False)
class RerankRequest:
    """A query, and the ids of the records that it asks for.

    `query` is one caption (a string, its token ids or one EncodedCaptions) where the gallery holds
    images. Where it holds captions it is one image: its regions (regions, img_dim), one
    EncodedImages, or a string, the image's id in the reranker's gallery of images. `ids` are the
    candidates' ids in the order of the first stage, None for all of the gallery; `top_k` how many
    of the best to return, None for all.

    Example:
        >>> sgraf_deploy.RerankRequest("two dogs play in the snow", ids=names, top_k=3).top_k
        3
    """

    query: Query
    ids: Sequence[str] | None = field(default=None, repr=False)
    top_k: int | None = None


@dataclass(frozen=True, eq=False)
class RankedRecord:
    """One record of a `Reranked`: the caller's id and what the gallery keeps beside the rows.

    `index` is its place among the ids of the request. `metadata` is what it was stored with.
    `boxes` (regions, 4) float32 are x1, y1, x2, y2 in pixels of a picture of `size` (width,
    height); each is None where there is none.

    Example:
        >>> first = reranker.rerank("two dogs play in the snow", names)[0]
        >>> first.id == names[first.index], 0 < first.similarity < 1
        (True, True)
    """

    id: str
    index: int
    similarity: float
    logit: float
    metadata: Mapping[str, Any] | None = None
    boxes: NDArray[np.float32] | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Reranked(Sequence[RankedRecord]):
    """The best records of a request, the best first; equal ones keep the order of its ids.

    It is a sequence of `RankedRecord`. The order is that of the logits, which differ even where
    similarities are rounded to 1. `missing` are ids of the request that the gallery does not have,
    in the order they were given; they are an error unless the reranker skips them.

    Example:
        >>> best = reranker.rerank("two dogs play in the snow", names, top_k=2)
        >>> len(best), best.missing, best.direction
        (2, (), 'text_to_image')
        >>> best.ids == tuple(record.id for record in best)
        True
        >>> best.similarities.dtype, best.indices.shape
        (dtype('float32'), (2,))
    """

    direction: Direction
    records: tuple[RankedRecord, ...]
    missing: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """The caller's ids, the best first."""
        return tuple(record.id for record in self.records)

    @property
    def indices(self) -> NDArray[np.int64]:
        """The places (k,) int64 among the ids of the request."""
        return np.array([record.index for record in self.records], np.int64)

    @property
    def similarities(self) -> NDArray[np.float32]:
        """The similarities (k,) float32."""
        return np.array([record.similarity for record in self.records], np.float32)

    @property
    def logits(self) -> NDArray[np.float32]:
        """The logits (k,) float32."""
        return np.array([record.logit for record in self.records], np.float32)

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[RankedRecord]:
        return iter(self.records)

    @overload
    def __getitem__(self, place: int) -> RankedRecord: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[RankedRecord, ...]: ...

    def __getitem__(self, place: int | slice) -> RankedRecord | tuple[RankedRecord, ...]:
        return self.records[place]

    def __repr__(self) -> str:
        what = "image" if self.direction == "text_to_image" else "caption"
        count = f"{len(self):,} {what}{'' if len(self) == 1 else 's'}"
        best = f", the best {self[0].id!r} with {self[0].similarity:.4f}" if len(self) else ""
        lost = f", {len(self.missing):,} missing" if self.missing else ""
        return f"{type(self).__name__}({count}{best}{lost})"
