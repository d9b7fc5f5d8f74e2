"""Reranks records of a gallery by the caller's ids, for one query or many."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import Direction
from sgraf_deploy.engines.ensemble import Logits
from sgraf_deploy.errors import InputError
from sgraf_deploy.gallery.chunks import CHUNK_BYTES, gather_chunks, records_in
from sgraf_deploy.gallery.ranked import RankedRecord, Reranked, RerankRequest
from sgraf_deploy.gallery.record import Details
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.encoding import Kind
from sgraf_deploy.runtime.requests import Query, RerankCall
from sgraf_deploy.runtime.rerank import check_top_k, query_direction, rank
from sgraf_deploy.runtime.scorer import Scorer

Missing = Literal["error", "skip"]

_CAPTION = "one caption: a text, its token ids, or one encoded caption"
_IMAGE = "one image: its regions (regions, img_dim), one encoded image, or its id"
_DIRECTIONS: dict[str, Direction] = {"images": "text_to_image", "captions": "image_to_text"}


class Reranker:
    """Reranks the records of a gallery for queries, by the ids that the caller gave them.

    A gallery of images answers captions, a gallery of captions answers images; `images` is a
    gallery whose images a query may name by id. An id that the gallery lacks is an error, unless
    `missing` is `skip`: a first stage's index is often ahead of the gallery, and the result then
    says what was missing. An id that a request holds twice is two candidates of equal score.

    The records that the requests of one call ask for are gathered once each, `chunk_bytes` of them
    at a time, so that memory does not grow with the candidates. Threads may share a reranker.

    Raises:
        InputError: galleries of the wrong kind, or that a scorer of other encoders made.

    Example:
        >>> gallery = sgraf_deploy.Gallery.open("photos.gallery")
        >>> reranker = sgraf_deploy.Reranker(scorer, gallery)
        >>> best = reranker.rerank("two dogs play in the snow", names, top_k=3)
        >>> len(best), best[0].id in names
        (3, True)
    """

    def __init__(
        self,
        scorer: Scorer,
        gallery: Gallery,
        *,
        images: Gallery | None = None,
        missing: Missing = "error",
        chunk_bytes: int = CHUNK_BYTES,
    ) -> None:
        if missing not in get_args(Missing):
            raise InputError("missing", expected="'error' or 'skip'", got=repr(missing))
        if images is not None and images.kind != "images":
            raise InputError("images", expected="a gallery of images", got=f"one of {images.kind}")
        self.scorer, self.gallery, self.images, self.missing = scorer, gallery, images, missing
        self.kind: Kind = gallery.kind
        self._direction = _DIRECTIONS[self.kind]
        self._step = records_in(gallery, chunk_bytes)

    def rerank(
        self, query: Query, ids: Sequence[str] | None = None, top_k: int | None = None
    ) -> Reranked:
        """Rank records for one query and return the best `top_k`, or all, the best first.

        `query`, `ids` and `top_k` are those of `RerankRequest`; without ids the whole gallery is
        ranked.

        Raises:
            InputError: what is no query for this gallery, or a `top_k` below 1.
            DataError: ids that the gallery does not have, which it names; a query that does not
                fit the bundle; a record that is damaged.

        Example:
            >>> reranker.rerank("two dogs play in the snow", top_k=1)
            Reranked(1 image, the best 'photo...' with 0...)
        """
        return self.rerank_many([RerankRequest(query, ids, top_k)])[0]

    def rerank_many(self, requests: Sequence[RerankRequest]) -> list[Reranked]:
        """Answer many requests in few engine calls: a result for each, in their order.

        It costs far less than a `rerank` for each: captions are encoded together, records that
        several ask for are read once, and all pairs are scored together.

        Raises:
            InputError, DataError: as `rerank`, for any of the requests.

        Example:
            >>> queries = ["two dogs play in the snow", "a man climbs a rock"]
            >>> requests = [sgraf_deploy.RerankRequest(query, names, 2) for query in queries]
            >>> tuple(len(best) for best in reranker.rerank_many(requests))
            (2, 2)
        """
        asked = [self._asked(place, request) for place, request in enumerate(requests)]
        queries = self._queries([request.query for request in requests])
        union = list(dict.fromkeys(chain.from_iterable(each.distinct for each in asked)))
        place_of = {id_: place for place, id_ in enumerate(union)}
        places = [np.array([place_of[id_] for id_ in each.distinct], np.int64) for each in asked]
        details: dict[str, Callable[[], Details]] = {}
        optional = {*union} if self.missing == "skip" else _whole_only(asked)
        for found, row_of in gather_chunks(self.gallery, self.scorer, union, self._step, optional):
            self._score(queries, [row_of[each] for each in places], asked, found.encoded)
            tails = zip(found.ids, found.tails, strict=True)
            details |= {id_: partial(found.layout.details, tail) for id_, tail in tails}
        return [each.result(self._direction, details) for each in asked]

    def _asked(self, place: int, request: RerankRequest) -> _Asked:
        """Check a request, as far as no record is needed for that; an error names it."""
        try:
            check_top_k(request.top_k)
            self._check_query(request.query)
            if request.ids is None:
                return _Asked(self.gallery.ids(), request.top_k, whole=True)
            return _Asked(_texts(request.ids), request.top_k)
        except InputError as error:
            raise error.at(f"request {place}") from error

    def _check_query(self, query: Query) -> None:
        expected = _CAPTION if self.kind == "images" else _IMAGE
        if self._is_id(query):
            if self.images is None:
                hint = "a text names an image of Reranker(…, images=Gallery.open(PATH))"
                raise InputError("query", expected=expected, got=f"the text {query!r}", hint=hint)
        elif query_direction(query) != self._direction:
            raise InputError("query", expected=expected, got=type(query).__name__)

    def _is_id(self, query: Query) -> bool:
        """Whether a query names an image: a text does, where captions are ranked."""
        return isinstance(query, str) and self.kind == "captions"

    def _queries(self, queries: Sequence[Query]) -> list[Query]:
        """The queries, with images in place of their ids."""
        names = list(dict.fromkeys(str(query) for query in queries if self._is_id(query)))
        if not names or self.images is None:
            return list(queries)
        found = dict(zip(names, self.images.images(self.scorer, names), strict=True))
        return [found[str(query)] if self._is_id(query) else query for query in queries]

    def _score(
        self,
        queries: Sequence[Query],
        wanted: Sequence[NDArray[np.int64]],
        asked: Sequence[_Asked],
        records: EncodedImages | EncodedCaptions,
    ) -> None:
        """Score the rows of records that requests want, (distinct ids,) each, −1 for none here."""
        calls, taken = [], []
        for query, candidates, each in zip(queries, wanted, asked, strict=True):
            places = np.flatnonzero(candidates >= 0)
            if len(places):
                calls.append(RerankCall(query, candidates[places], each.top_k))
                taken.append((each, places))
        if not calls:
            return
        results = self.scorer.rerank_many(calls, records)
        for (each, places), result in zip(taken, results, strict=True):
            each.logits[places] = -np.inf  # Those that are not among the best are there, too.
            each.logits[places[result.indices]] = result.logits


def _texts(ids: object) -> list[str]:
    """The ids of a request as a list; InputError for what is no sequence of texts."""
    expected = "a sequence of texts"
    if isinstance(ids, str | bytes) or not isinstance(ids, Iterable):
        raise InputError("ids", expected=expected, got=type(ids).__name__)
    found = list(ids)
    for id_ in found:
        if not isinstance(id_, str):
            raise InputError("ids", expected=expected, got=f"one {type(id_).__name__}, {id_!r}")
    return found


def _whole_only(asked: Sequence[_Asked]) -> set[str]:
    """The ids that are candidates because of the whole gallery alone: they may be deleted."""
    whole = {id_ for each in asked if each.whole for id_ in each.ids}
    return whole - {id_ for each in asked if not each.whole for id_ in each.ids}


class _Asked:
    """One request on its way: its ids, each once, and their logits as far as they are known.

    `logits` (distinct ids,) float32 are NaN where there is no record, and -inf where it is not
    among the best `top_k`. Of the whole gallery nothing is missed, as it may be deleted from
    meanwhile.
    """

    def __init__(self, ids: list[str], top_k: int | None, *, whole: bool = False) -> None:
        self.ids, self.whole = ids, whole
        self.distinct = list(dict.fromkeys(ids))
        self.logits: Logits = np.full(len(self.distinct), np.nan, np.float32)
        self.top_k = top_k

    def result(
        self, direction: Direction, details: Mapping[str, Callable[[], Details]]
    ) -> Reranked:
        """Rank what was scored, with the details of the best alone."""
        logit_of = dict(zip(self.distinct, self.logits, strict=True))
        logits = np.array([logit_of[id_] for id_ in self.ids], np.float32)
        unknown = np.isnan(logits)
        known = np.flatnonzero(~unknown)
        best = rank(direction, logits[known], self.top_k)
        records = tuple(
            self._record(index, similarity, logit, details)
            for index, similarity, logit in zip(
                known[best.indices].tolist(),
                best.similarities.tolist(),
                best.logits.tolist(),
                strict=True,
            )
        )
        missing = () if self.whole else tuple(self.ids[row] for row in np.flatnonzero(unknown))
        return Reranked(direction, records, missing)

    def _record(
        self,
        index: int,
        similarity: float,
        logit: float,
        details: Mapping[str, Callable[[], Details]],
    ) -> RankedRecord:
        id_ = self.ids[index]
        more = details[id_]()
        return RankedRecord(id_, index, similarity, logit, more.metadata, more.boxes, more.size)
