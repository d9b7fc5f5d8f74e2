"""Runs the encoders over any number of images or captions, in batches of bounded memory."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.data.regions import (
    StoredRegions,
    check_layout,
    conversion_name,
    is_converted,
    not_finite,
    readable,
)
from sgraf_deploy.engines.base import Engine, Graph
from sgraf_deploy.engines.buffers import Array
from sgraf_deploy.errors import DataError, EngineMemoryError, RegionsWarning
from sgraf_deploy.features.paths import looks_like_photo
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.caption_cache import CaptionCache
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import (
    EncodedCaptions,
    EncodedImages,
    ImageBuffers,
    TextBuffers,
    empty_images,
    make_captions,
)
from sgraf_deploy.runtime.retry import Batch
from sgraf_deploy.runtime.tiling import similar_end
from sgraf_deploy.runtime.tokens import TokenIds, callers_level

SMALLEST_TEXT_BATCH = 512
"""A batch of captions has so many words even if they take more memory: a smaller one would read the
GRU's weights too often."""

_FLOAT = 4


def check_regions_layout(regions: object, config: ModelConfig) -> NDArray[Any]:
    """Return region features as they came; DataError unless axes and dtype fit the model."""
    if not isinstance(regions, np.ndarray):
        several = isinstance(regions, list | tuple)
        hint = "give numpy.stack(regions)" if several else "give numpy.asarray(regions)"
        given = regions[:1] if isinstance(regions, list | tuple) else [regions]
        if any(map(looks_like_photo, given)):
            hint = "Scorer.encode_photos takes photographs, of a bundle with an extractor"
        raise DataError(
            "regions",
            expected=f"an array (images, {config.regions}, {config.img_dim})",
            got=type(regions).__name__,
            hint=hint,
        )
    check_layout(regions, (config.regions, config.img_dim), "regions")
    return regions


def encode_images(
    context: Context, regions: object, progress: Progress | None = None
) -> EncodedImages:
    """Encode regions (images, regions, img_dim) of floats, which may be a memory map.

    What is no native float16 or float32 is converted batch by batch, with one RegionsWarning a
    scorer. Raises DataError for another shape or dtype and for a value that is not finite.
    """
    config = next(iter(context.configs.values()))
    checked = check_regions_layout(regions, config)
    _warn_of_conversion(context, checked)
    return encode_batches(context, len(checked), lambda rows: checked[rows], progress)


def encode_batches(
    context: Context,
    count: int,
    read: Callable[[slice], NDArray[Any]],
    progress: Progress | None = None,
) -> EncodedImages:
    """Encode so many images, of which `read` gives the regions of some rows at a time.

    The batches do not depend on where the regions come from. Raises DataError for a value that is
    not finite.
    """
    members = {name: empty_images(context.origin, name, count) for name in context.configs}
    step = _image_step(context)
    starts = range(0, count, step)
    pieces = (Batch(start, min(count, start + step)) for start in starts)
    batches = context.share("image_encoder", pieces, count, progress).turns()
    graphs = context.graphs("image_encoder")
    for batch in batches:
        try:
            _encode_image_batch(context.engine, graphs, read(batch.rows), batch, members)
        except EngineMemoryError as error:
            batches.halve(batch, error)
    return EncodedImages(context.origin, members, count)


@dataclass(frozen=True)
class EncodingBatches:
    """What is encoded together, on which an embedding's last bits may depend.

    Whoever encodes whole batches alone makes the same embeddings as who encodes everything.
    """

    images: int
    """The images of a batch; the last one may have fewer."""
    captions: tuple[int, ...]
    """Where each batch of captions ends in the tiling's order, which is that of their lengths."""


def encoding_batches(context: Context, lengths: NDArray[np.int32]) -> EncodingBatches:
    """Say in which batches captions of these lengths (captions,), and images, are encoded."""
    ordered = np.sort(lengths, kind="stable")
    ends = (int(batch.rows.stop) for batch in _text_batches(context, ordered))
    return EncodingBatches(_image_step(context), tuple(ends))


def _image_step(context: Context) -> int:
    """The images of a batch."""
    per_image = max(_image_bytes(each) for each in context.configs.values())
    budget = context.limits.advice.encoder_bytes
    return context.at_most("image_encoder", "images", max(1, budget // per_image))


def _encode_image_batch(
    engine: Engine,
    graphs: Mapping[str, Graph],
    stored: NDArray[Any],
    batch: Batch,
    members: Mapping[str, ImageBuffers],
) -> None:
    """Encode the regions of one batch of images into their rows of every member's buffers."""
    chunk = np.ascontiguousarray(readable(stored), dtype=np.float32)
    if not np.isfinite(chunk).all():
        raise not_finite(stored, batch.start, "regions")
    inputs = {"regions": engine.put(chunk)}
    for name, graph in graphs.items():
        buffers = members[name].named
        graph.run(inputs, {part: engine.gather(each, batch.rows) for part, each in buffers.items()})


def encode_captions(
    context: Context,
    captions: Sequence[TokenIds],
    progress: Progress | None = None,
    *,
    queries: bool = False,
) -> EncodedCaptions:
    """Encode captions, each checked token ids (words,) int32; results in the given order.

    Those of `queries` are taken from the scorer's cache, or encoded and kept there. Raises
    DataError for one that is longer than the engine was built for.
    """
    lengths = np.array([len(caption) for caption in captions], dtype=np.int32)
    context.check_words(lengths)
    encoding = _CaptionEncoding.prepare(context, captions, lengths)
    missing = encoding.recall(context.cache) if queries else np.arange(len(captions))
    order = missing[np.argsort(lengths[missing], kind="stable")]
    pieces = _text_batches(context, lengths[order])
    batches = context.share("text_encoder", pieces, len(order), progress).turns()
    graphs = context.graphs("text_encoder")
    for batch in batches:
        try:
            encoding.encode(context.engine, graphs, order[batch.rows], batch.row_cost)
        except EngineMemoryError as error:
            batches.halve(batch, error)
    if queries:
        encoding.keep(context.cache, missing)
    put = context.engine.put
    members = {
        name: TextBuffers(put(encoding.words[name]), put(encoding.overall[name]))
        for name in context.configs
    }
    return make_captions(context.origin, members, lengths)


@dataclass(frozen=True, eq=False)
class _CaptionEncoding:
    """Captions that are being encoded, and the host's arrays that take what the encoders make."""

    captions: Sequence[TokenIds]
    lengths: NDArray[np.int32]
    """(captions,)"""
    offsets: NDArray[np.int64]
    """The row of each caption's first word, (captions,)."""
    words: Mapping[str, Array]
    """By member, (all words + 1, embed) as stored; the last row is zeros, for padding."""
    overall: Mapping[str, Array]
    """By member, the captions' global vectors (captions, embed) as stored."""

    @classmethod
    def prepare(
        cls, context: Context, captions: Sequence[TokenIds], lengths: NDArray[np.int32]
    ) -> _CaptionEncoding:
        """Make room for captions of these lengths (captions,)."""
        ends = np.cumsum(lengths, dtype=np.int64)
        total, dtype = int(lengths.sum(dtype=np.int64)), context.origin.dtype
        embeds = {name: config.embed for name, config in context.configs.items()}
        words = {name: np.zeros((total + 1, embed), dtype) for name, embed in embeds.items()}
        overall = {name: np.empty((len(captions), embed), dtype) for name, embed in embeds.items()}
        return cls(captions, lengths, ends - lengths, words, overall)

    def encode(
        self, engine: Engine, graphs: Mapping[str, Graph], rows: NDArray[np.int64], words: int
    ) -> None:
        """Encode the captions of these rows, padded to so many words, and store what is real."""
        steps = np.arange(words)
        real = steps < self.lengths[rows, None]  # (captions, words)
        token_ids = np.zeros(real.shape, dtype=np.int32)
        token_ids[real] = np.concatenate([self.captions[row] for row in rows])
        inputs = {"token_ids": engine.put(token_ids), "lengths": engine.put(self.lengths[rows])}
        places = (self.offsets[rows, None] + steps)[real]
        for name, graph in graphs.items():
            outputs = graph.run(inputs)
            self.words[name][places] = engine.fetch(outputs["word_embeddings"])[real]
            self.overall[name][rows] = engine.fetch(outputs["text_global"])

    def recall(self, cache: CaptionCache) -> NDArray[np.int64]:
        """Store what the cache has of the captions; returns the rows of the others."""
        missing = []
        for row, found in enumerate(cache.find(self.captions)):
            if found is None:
                missing.append(row)
                continue
            for name, (words, overall) in found.items():
                self.words[name][self._place(row)] = words
                self.overall[name][row] = overall
        return np.array(missing, np.int64)

    def keep(self, cache: CaptionCache, rows: NDArray[np.int64]) -> None:
        """Put the captions of these rows into the cache, copied out of the arrays here."""
        if not cache.max_bytes:
            return
        for row in rows.tolist():
            place = self._place(row)
            found = {
                name: (self.words[name][place].copy(), self.overall[name][row].copy())
                for name in self.words
            }
            cache.keep(self.captions[row], found)

    def _place(self, row: int) -> slice:
        start = int(self.offsets[row])
        return slice(start, start + int(self.lengths[row]))


def _warn_of_conversion(context: Context, regions: NDArray[Any]) -> None:
    """Warn once a scorer that regions are converted; not of a file, whose reader has warned."""
    told = context.warned_of_regions
    if isinstance(regions, StoredRegions) or not is_converted(regions.dtype) or told.is_set():
        return
    told.set()
    warnings.warn(
        f"regions are {conversion_name(regions.dtype)}; they are converted to float32, which costs "
        "time: give regions.astype(numpy.float32)",
        RegionsWarning,
        stacklevel=callers_level(),
    )


def _image_bytes(config: ModelConfig) -> int:
    """Estimate the image encoder's bytes per image: features, embeddings and three like them."""
    return _FLOAT * config.regions * (config.img_dim + 4 * config.embed)


def _word_bytes(config: ModelConfig) -> int:
    """Estimate the text encoder's bytes per word: input, and gates and states per direction."""
    directions = 2 if config.bidirectional else 1
    return _FLOAT * (config.word_dim + config.embed * (4 * directions + 3))


def _text_batches(context: Context, lengths: NDArray[np.int32]) -> Iterator[Batch]:
    """Yield batches of captions of similar length; `lengths` (captions,) are in rising order."""
    per_word = max(_word_bytes(config) for config in context.configs.values())
    budget = context.limits.advice.encoder_bytes
    words = max(SMALLEST_TEXT_BATCH, budget // per_word)
    start = 0
    while start < len(lengths):
        similar = similar_end(lengths, start)
        most = max(1, words // int(lengths[similar - 1]))
        fitting = start + context.at_most("text_encoder", "captions", most)
        stop = min(similar, fitting)
        yield Batch(start, stop, int(lengths[stop - 1]))
        start = stop
