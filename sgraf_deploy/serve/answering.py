"""Answers calls with a scorer and a gallery: many at once, in few calls of the engine."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.ensemble import Logits
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.gallery.chunks import CHUNK_BYTES, gather_chunks, records_in
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.best import PairList, cut_lists
from sgraf_deploy.runtime.encoded import EncodedImages
from sgraf_deploy.runtime.pairs import distinct_pairs
from sgraf_deploy.runtime.rerank import rank
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.serve.calls import (
    Answer,
    Call,
    CaptionText,
    Item,
    Part,
    RegionsArray,
    RequestError,
    StoredId,
    missing_warnings,
    unknown_image,
)
from sgraf_deploy.serve.captions import CaptionTexts


class Timings(Protocol):
    """What is told how long the parts of a batch took, in seconds."""

    def encoded(self, seconds: float) -> None:
        """Captions were read and encoded, and images encoded or gathered."""

    def scored(self, seconds: float) -> None:
        """The pairs were scored."""


class Answerer:
    """Answers calls with the images of a gallery; its scores are those of `Scorer.rerank`.

    Of a call with `top_n` only the best are scored by every member, where the scorer can do that.

    Captions of all calls are read and encoded together, each once; so are regions; images of the
    gallery are gathered once each, `chunk_bytes` of them at a time; then all pairs are scored,
    equal ones once: equal documents of a call have equal scores on every engine.

    Raises:
        InputError: a gallery that does not hold images, or that another scorer's encoder made.

    Example:
        >>> call = Call(CaptionText("two dogs play"), (StoredId("photo0.jpg"),))
        >>> (answer,) = Answerer(scorer, gallery).answer_many([call])
        >>> answer.items[0].index
        0
    """

    def __init__(
        self,
        scorer: Scorer,
        gallery: Gallery,
        *,
        timings: Timings | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        if gallery.kind != "images":
            raise InputError("gallery", expected="one of images", got=f"one of {gallery.kind}")
        scorer.image_encoding.check(gallery.encoding, f"gallery {gallery.path}", error=DataError)
        self._scorer, self._gallery = scorer, gallery
        self._bundles = (scorer.bundle.sha256,)
        self._texts = CaptionTexts(scorer)
        self._step = records_in(gallery, chunk_bytes)
        self._timings, self._clock = timings, clock

    def answer_many(self, calls: Sequence[Call]) -> list[Answer | RequestError]:
        """Answer calls, in their order; one that cannot be answered has its error in its place.

        Raises:
            SgrafDeployError: the engine failed, or a record of the gallery is damaged.
        """
        started = self._clock()
        batch = _Batch(self._bundles)
        read = [self._read(call, batch) for call in calls]
        score_s = self._score(batch) if batch.images else 0.0
        answers = [each if isinstance(each, RequestError) else each.answer(batch) for each in read]
        if self._timings is not None:
            self._timings.encoded(self._clock() - started - score_s)
            self._timings.scored(score_s)
        return answers

    def _read(self, call: Call, batch: _Batch) -> _Read | RequestError:
        """Read a call's captions, and append its pairs; or why that cannot be done."""
        try:
            if call.direction == "image_to_text":
                texts = [
                    (f"documents[{call.first + row}]", part.text)
                    for row, part in enumerate(call.documents)
                    if isinstance(part, CaptionText)
                ]
                images: Sequence[Part] = [call.query]
            else:
                query = call.query
                texts = [("query", query.text)] if isinstance(query, CaptionText) else []
                images = call.documents
            captions = self._texts.read(texts, truncate=call.truncate)
        except RequestError as error:
            return error
        start = len(batch.images)
        captioned = [batch.caption_row(ids) for ids in captions.token_ids]
        imaged = [batch.image_row(part) for part in images]
        batch.captions += captioned * (call.pairs // len(captioned))  # one query, or every document
        batch.images += imaged * (call.pairs // len(imaged))
        batch.sizes.append((call.pairs, call.top_n))
        tokens = sum(len(ids) for ids in captions.token_ids)
        return _Read(call, slice(start, len(batch.images)), captions.warnings, tokens)

    def _score(self, batch: _Batch) -> float:
        """Compute the logits of all pairs whose image there is; returns the seconds of scoring."""
        scorer, score_s = self._scorer, 0.0
        captions = scorer.encode_captions(batch.token_ids, queries=True)
        wanted, caption_rows, places = distinct_pairs(batch.images, batch.captions)
        logits = np.full(len(wanted), np.nan, np.float32)
        for images, row_of in self._images(batch):
            image_rows = row_of[np.where(wanted < 0, len(batch.stored) - 1 - wanted, wanted)]
            pairs = np.flatnonzero(image_rows >= 0)
            before = self._clock()
            index = image_rows[pairs], caption_rows[pairs]
            lists = batch.lists(places, pairs)
            logits[pairs] = scorer.best_pairs(images, captions, *index, lists)
            score_s += self._clock() - before
        batch.logits = logits[places]
        return score_s

    def _images(self, batch: _Batch) -> Iterator[tuple[EncodedImages, NDArray[np.int64]]]:
        """Encoded images, a chunk at a time, and the row in it of each, stored ones first."""
        ids, count = list(batch.stored), len(batch.regions)
        absent = np.full(count, -1, np.int64)
        for found, row_of in gather_chunks(
            self._gallery, self._scorer, ids, self._step, batch.stored.keys()
        ):
            if isinstance(found.encoded, EncodedImages) and found.ids:
                yield found.encoded, np.concatenate([row_of, absent])
        if batch.regions:
            encoded = self._scorer.encode_images(np.stack(batch.regions))
            yield encoded, np.concatenate([np.full(len(ids), -1, np.int64), np.arange(count)])


@dataclass(eq=False)
class _Batch:
    """The captions and images of calls, each once, and the pairs of them that are asked for.

    `images` holds for each pair the place of its image in `stored`, or −1 − its place in `regions`;
    `captions` the row of its caption. `sizes` are the number of pairs of each call, and how many of
    the best it wants. `logits` (pairs,) float32 are NaN where the gallery has no image, and may be
    -inf where the pair is not among the best. `bundles` are those of an `Answer`.
    """

    bundles: tuple[str, ...]
    token_ids: list[NDArray[np.int32]] = field(default_factory=list)
    stored: dict[str, int] = field(default_factory=dict)
    regions: list[NDArray[Any]] = field(default_factory=list)
    captions: list[int] = field(default_factory=list)
    images: list[int] = field(default_factory=list)
    sizes: list[tuple[int, int | None]] = field(default_factory=list)
    logits: Logits = field(default_factory=lambda: np.empty(0, np.float32))
    _caption_rows: dict[bytes, int] = field(default_factory=dict)
    _region_rows: dict[bytes, int] = field(default_factory=dict)

    def lists(self, places: NDArray[np.int64], here: NDArray[np.int64]) -> list[PairList]:
        """The calls' lists of the distinct pairs that are `here`, as places among these.

        `places` are those of all pairs among the distinct ones.
        """
        row_of = np.full(int(places.max()) + 1, -1, np.int64)
        row_of[here] = np.arange(len(here))
        found = (replace(each, pairs=row_of[each.pairs]) for each in cut_lists(places, self.sizes))
        return [replace(each, pairs=each.pairs[each.pairs >= 0]) for each in found]

    def caption_row(self, ids: NDArray[np.int32]) -> int:
        """The row of a caption, which equal ones share."""
        row = self._caption_rows.setdefault(ids.tobytes(), len(self.token_ids))
        if row == len(self.token_ids):
            self.token_ids.append(ids)
        return row

    def image_row(self, part: Part) -> int:
        """The place of an image, which equal ones share."""
        if isinstance(part, StoredId):
            return self.stored.setdefault(part.id, len(self.stored))
        if not isinstance(part, RegionsArray):
            raise TypeError(type(part).__name__)
        array = np.ascontiguousarray(part.array, np.float32)  # (regions, img_dim)
        row = self._region_rows.setdefault(hashlib.sha256(array.data).digest(), len(self.regions))
        if row == len(self.regions):
            self.regions.append(array)
        return -1 - row


@dataclass(frozen=True, eq=False)
class _Read:
    """A call whose captions were read, and where its pairs are."""

    call: Call
    pairs: slice
    warnings: tuple[str, ...]
    tokens: int

    def answer(self, batch: _Batch) -> Answer | RequestError:
        """Rank the call's documents by their logits."""
        call, logits = self.call, batch.logits[self.pairs]
        absent = np.isnan(logits)
        warnings, missing = self.warnings, tuple((call.first + np.flatnonzero(absent)).tolist())
        if missing and call.direction == "image_to_text":
            return unknown_image("query", call.query)
        try:
            warnings += missing_warnings(call, missing)
        except RequestError as error:
            return error
        known = np.flatnonzero(~absent)
        best = rank(call.direction, logits[known], call.top_n)
        places = (call.first + known[best.indices]).tolist()
        numbers = zip(places, best.similarities.tolist(), best.logits.tolist(), strict=True)
        return Answer(
            tuple(Item(*each) for each in numbers), warnings, missing, self.tokens, batch.bundles
        )
