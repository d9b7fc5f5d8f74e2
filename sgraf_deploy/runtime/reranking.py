"""The part of a scorer that answers queries: one, or many at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgraf_deploy.engines.ensemble import Logits
from sgraf_deploy.runtime import matrix, requests
from sgraf_deploy.runtime.best import PairList, best_logits, best_of_all
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages, name_of
from sgraf_deploy.runtime.exchange import Exchange
from sgraf_deploy.runtime.opened import Captions, Images
from sgraf_deploy.runtime.pairs import Index, pair_rows
from sgraf_deploy.runtime.requests import Query, RerankCall
from sgraf_deploy.runtime.rerank import (
    Ids,
    RerankResult,
    check_ids,
    check_top_k,
    query_direction,
    rank,
)


class Reranking(Exchange):
    """The part of a `Scorer` that answers queries."""

    def rerank(
        self,
        query: Query,
        candidates: Images | Captions,
        top_k: int | None = None,
        *,
        ids: Ids | None = None,
    ) -> RerankResult:
        """Rank candidates for a query and return the best `top_k`, or all, the best first.

        A caption (a string, its token ids or one EncodedCaptions) is answered with images, an
        image (its regions (regions, img_dim) or one EncodedImages) with captions. `ids` are your
        names of the candidates, one for each: the result then carries them.

        Raises:
            InputError: what is no query, a `top_k` below 1, or another number of ids.
            DataError: a query or candidates that do not fit the bundle.

        Example:
            >>> best = scorer.rerank("two dogs play in the snow", images, top_k=3, ids=names)
            >>> len(best), best.direction, best[0].id == names[best.indices[0]]
            (3, 'text_to_image', True)
            >>> texts = scorer.rerank(regions[0], ["a dog", "a man climbs a rock"])
            >>> sorted(item.index for item in texts)
            [0, 1]
        """
        self._check_usable()
        check_top_k(top_k)
        direction = query_direction(query)
        wanted: Any
        if direction == "text_to_image":
            wanted = query if isinstance(query, EncodedCaptions) else [query]
            sides = self._checked(candidates, wanted)
            names = check_ids(ids, len(sides[0]))
        else:
            wanted = query if isinstance(query, EncodedImages) else np.asarray(query)[None]
            sides = self._checked(wanted, candidates)
            names = check_ids(ids, len(sides[1]))
        encoded = self._encoded(*sides, queries=direction == "text_to_image")
        if top_k is not None:
            logits = best_of_all(self._context, *encoded, int(top_k))
        else:
            logits = matrix.ensemble_matrix(self._context, *encoded)
        return rank(direction, logits.reshape(-1), top_k, names)

    def rank(
        self,
        query: Query,
        documents: Images | Captions,
        top_k: int | None = None,
        *,
        ids: Ids | None = None,
    ) -> RerankResult:
        """Do what `rerank` does, under the name that cross-encoders have for it.

        Example:
            >>> for item in scorer.rank("two dogs play in the snow", images, top_k=1, ids=names):
            ...     print(item.id == names[item.index], 0 < item.similarity < 1)
            True True
        """
        return self.rerank(query, documents, top_k, ids=ids)

    def rerank_many(
        self, calls: Sequence[RerankCall], gallery: EncodedImages | EncodedCaptions
    ) -> list[RerankResult]:
        """Answer many queries, each with candidates of its own, in few calls of the engine.

        Captions are asked of a gallery of images, images of one of captions. Each result is what
        `rerank` gives for that query and those candidates: its `indices` are places among the
        call's candidates, and of equal candidates the earlier one comes first. All captions that
        are not in the cache are encoded together, and all pairs scored together.

        Raises:
            InputError: a gallery that is not encoded, and as `rerank`; it names the call.
            DataError: a candidate that is no row of the gallery, and as `rerank`.

        Example:
            >>> calls = [
            ...     sgraf_deploy.RerankCall("two dogs play in the snow", [0, 2, 5], top_k=1),
            ...     sgraf_deploy.RerankCall("a man climbs a rock", [3, 2], ids=["c", "b"]),
            ... ]
            >>> first, second = scorer.rerank_many(calls, images)
            >>> len(first), sorted(item.id for item in second)
            (1, ['b', 'c'])
        """
        self._check_usable()
        requests.check_gallery(gallery)
        self._context.origin.check(gallery.origin, name_of(gallery))
        return requests.rerank_many(self._context, self._reader, calls, gallery)

    def best_pairs(
        self,
        images: EncodedImages,
        captions: EncodedCaptions,
        image_index: Index,
        caption_index: Index,
        lists: Sequence[PairList],
    ) -> Logits:
        """Compute the logits to rank by of single pairs, (pairs,) float32, for lists of the best.

        The indices are those of `logits_pairs`, and every pair is in a list. What is not among the
        best of any list may be -inf, as its own logit then decides nothing. Members are left out
        where that cannot change which the best are, nor their logits: see `load`.

        Raises:
            DataError: as `logits_pairs`.

        Example:
            >>> best_two = [sgraf_deploy.PairList(np.arange(6), 2)]
            >>> logits = scorer.best_pairs(images, captions, np.arange(6), [0] * 6, best_two)
            >>> order = np.argsort(-logits, kind="stable")[:2]
            >>> order.tolist() == scorer.rerank(captions[0], images, 2).indices.tolist()
            True
        """
        one, other = self._checked(images, captions)
        rows = pair_rows(image_index, caption_index, len(one), len(other))
        return best_logits(self._context, images, captions, *rows, lists=lists)
