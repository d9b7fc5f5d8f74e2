"""Many queries, each with candidates of its own out of one gallery, in few calls of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import Direction
from sgraf_deploy.data.regions import not_finite, readable
from sgraf_deploy.engines.ensemble import Logits
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import pairs
from sgraf_deploy.runtime.best import best_logits, cut_lists
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encode import check_regions_layout, encode_captions, encode_images
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages, name_of
from sgraf_deploy.runtime.origin import Origin
from sgraf_deploy.runtime.rerank import (
    Ids,
    RerankResult,
    check_ids,
    check_top_k,
    query_direction,
    rank,
)
from sgraf_deploy.runtime.rows import check_index
from sgraf_deploy.runtime.tokens import CaptionReader, TokenIds

Query = str | Sequence[int] | NDArray[Any] | EncodedImages | EncodedCaptions
"""One caption (a string, its token ids or one EncodedCaptions), or one image (its regions
(regions, img_dim) float32 or float16, or one EncodedImages)."""


@dataclass(frozen=True, eq=False)
class RerankCall:
    """One query and its candidates, which are rows of the gallery that `rerank_many` is given.

    `query` is what `Scorer.rerank` takes; `candidates` (candidates,) are integers from 0, in any
    order. `top_k` is how many to return, None for all; `ids` are your names of the candidates, one
    for each, in their order.

    Example:
        >>> call = sgraf_deploy.RerankCall("two dogs play in the snow", [5, 0, 3], top_k=2)
        >>> (best,) = scorer.rerank_many([call], images)
        >>> len(best), all(0 <= row < 3 for row in best.indices)
        (2, True)
    """

    query: Query
    candidates: Sequence[int] | NDArray[np.integer[Any]]
    top_k: int | None = None
    ids: Ids | None = None


def check_gallery(gallery: object) -> None:
    """Raise InputError for what is not encoded."""
    if not isinstance(gallery, EncodedImages | EncodedCaptions):
        kind = type(gallery).__name__
        raise InputError("gallery", expected="encoded images or captions", got=kind)


def rerank_many(
    context: Context,
    reader: CaptionReader,
    calls: Sequence[RerankCall],
    gallery: EncodedImages | EncodedCaptions,
) -> list[RerankResult]:
    """Answer calls on one gallery, in their order: encode the queries, then score all pairs."""
    images = isinstance(gallery, EncodedImages)
    direction: Direction = "text_to_image" if images else "image_to_text"
    origin, size = context.origin, len(gallery)
    chosen = [_checked(at, call, origin, direction, size) for at, call in enumerate(calls)]
    if not calls:
        return []
    ends = np.cumsum([len(rows) for rows, _ in chosen])
    gallery_rows = np.concatenate([rows for rows, _ in chosen])
    queries: Any
    if images:
        queries, query_rows = _encoded_captions(context, reader, calls)
    else:
        queries, query_rows = _encoded_images(context, calls)
    query_rows = np.repeat(query_rows, np.diff(ends, prepend=0))
    sizes = [(len(rows), call.top_k) for call, (rows, _) in zip(calls, chosen, strict=True)]
    logits = _distinct_logits(context, queries, gallery, query_rows, gallery_rows, sizes)
    return [
        rank(direction, part, call.top_k, ids)
        for call, (_, ids), part in zip(calls, chosen, np.split(logits, ends[:-1]), strict=True)
    ]


def _distinct_logits(
    context: Context,
    queries: EncodedImages | EncodedCaptions,
    gallery: EncodedImages | EncodedCaptions,
    query_rows: NDArray[np.int32],
    gallery_rows: NDArray[np.int32],
    sizes: Sequence[tuple[int, int | None]],
) -> Logits:
    """Compute the logits to rank by of pairs, (pairs,) float32; equal pairs are scored once.

    `sizes` say how many pairs each call has, and how many of the best it wants: the others may be
    -inf.
    """
    *distinct, places = pairs.distinct_pairs(query_rows, gallery_rows)
    rows = [each.astype(np.int32) for each in distinct]
    if isinstance(gallery, EncodedImages):
        sides: Any = gallery, queries, *reversed(rows)
    else:
        sides = queries, gallery, *rows
    return best_logits(context, *sides, lists=cut_lists(places, sizes))[places]


def _checked(
    place: int, call: RerankCall, origin: Origin, direction: Direction, rows: int
) -> tuple[NDArray[np.int32], list[Any] | None]:
    """Return a call's candidates (candidates,) and its ids; an error names the call."""
    try:
        check_top_k(call.top_k)
        if query_direction(call.query) != direction:
            expected = "a caption" if direction == "text_to_image" else "an image"
            raise InputError("query", expected=expected, got=type(call.query).__name__)
        if isinstance(call.query, EncodedImages | EncodedCaptions):
            origin.check(call.query.origin, name_of(call.query))
        candidates = check_index(call.candidates, rows, "candidates")
        return candidates, check_ids(call.ids, len(candidates))
    except InputError as error:
        raise error.at(f"call {place}") from error


def _encoded_captions(
    context: Context, reader: CaptionReader, calls: Sequence[RerankCall]
) -> tuple[EncodedCaptions, NDArray[np.int32]]:
    """Return the queries, equal token ids once, and the row of each call's query."""
    parts: list[EncodedCaptions] = []
    places: dict[bytes, int] = {}
    token_ids: list[TokenIds] = []
    rows = np.empty(len(calls), np.int32)
    for place, call in enumerate(calls):
        query: Any = call.query
        if isinstance(query, EncodedCaptions):
            continue
        try:
            (ids,) = reader.token_ids([query])
        except InputError as error:
            raise error.at(f"call {place}") from error
        rows[place] = places.setdefault(ids.tobytes(), len(places))
        if len(places) > len(token_ids):
            token_ids.append(ids)
    for place, call in enumerate(calls):
        if isinstance(call.query, EncodedCaptions):
            rows[place] = len(token_ids) + len(parts)
            parts.append(call.query)
    encoded = encode_captions(context, token_ids, queries=True)
    return EncodedCaptions.concatenate([encoded, *parts]) if parts else encoded, rows


def _encoded_images(
    context: Context, calls: Sequence[RerankCall]
) -> tuple[EncodedImages, NDArray[np.int32]]:
    """Return the queries, and the row of each call's query."""
    parts: list[EncodedImages] = []
    regions: list[NDArray[Any]] = []
    rows = np.empty(len(calls), np.int32)
    config = next(iter(context.configs.values()))
    raw = sum(not isinstance(call.query, EncodedImages) for call in calls)
    for place, call in enumerate(calls):
        query: Any = call.query
        if isinstance(query, EncodedImages):
            rows[place] = raw + len(parts)
            parts.append(query)
            continue
        try:
            stored = check_regions_layout(query[None], config)
            if not np.isfinite(readable(stored)).all():
                raise not_finite(stored, 0, "regions")
        except InputError as error:
            raise error.at(f"call {place}") from error
        rows[place] = len(regions)
        regions.append(query)
    if regions:
        parts.insert(0, encode_images(context, np.stack(regions)))
    return EncodedImages.concatenate(parts), rows
