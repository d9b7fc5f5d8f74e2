"""Runs the encoders over any number of images or captions, in bounded batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
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
from sgraf_deploy.errors import DataError, RegionsWarning
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import (
    EncodedCaptions,
    EncodedImages,
    TextBuffers,
    empty_images,
    make_captions,
)
from sgraf_deploy.runtime.retry import Batch
from sgraf_deploy.runtime.tiling import similar_end
from sgraf_deploy.runtime.tokens import TokenIds, callers_level

ENCODER_BYTES = 16 * 2**20
"""What one batch of an encoder may take, by the estimates below."""

SMALLEST_TEXT_BATCH = 512
"""Fewer words than this read a GRU's weights too often; they may take more memory."""

_FLOAT = 4


def check_regions_layout(regions: object, config: ModelConfig) -> NDArray[Any]:
    """Region features as they came, if their axes and dtype fit the model; else DataError."""
    if not isinstance(regions, np.ndarray):
        several = isinstance(regions, list | tuple)
        raise DataError(
            "regions",
            expected=f"an array (images, {config.regions}, {config.img_dim})",
            got=type(regions).__name__,
            hint="give numpy.stack(regions)" if several else "give numpy.asarray(regions)",
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
    engine, count = context.engine, len(checked)
    members = {name: empty_images(context.origin, name, count) for name in context.configs}

    def run(batch: Batch) -> None:
        rows = slice(batch.start, batch.stop)
        stored = checked[rows]
        chunk = np.ascontiguousarray(readable(stored), dtype=np.float32)
        if not np.isfinite(chunk).all():
            raise not_finite(stored, batch.start, "regions")
        buffer = engine.put(chunk)
        for name, buffers in members.items():
            outputs = {part: engine.gather(each, rows) for part, each in buffers.named.items()}
            context.run(name, "image_encoder", {"regions": buffer}, outputs)

    per_image = max(_image_bytes(each) for each in context.configs.values())
    step = context.at_most("image_encoder", "images", max(1, ENCODER_BYTES // per_image))
    batches = (Batch(start, min(count, start + step)) for start in range(0, count, step))
    context.retries["image_encoder"].run(batches, run, total=count, progress=progress)
    return EncodedImages(context.origin, members, count)


def encode_captions(
    context: Context, captions: Sequence[TokenIds], progress: Progress | None = None
) -> EncodedCaptions:
    """Encode captions, each checked token ids (words,) int32; results in the given order.

    Raises DataError for one that is longer than the engine was built for.
    """
    lengths = np.array([len(caption) for caption in captions], dtype=np.int32)
    context.check_words(lengths)
    order = np.argsort(lengths, kind="stable")
    total = int(lengths.sum(dtype=np.int64))
    offsets = np.cumsum(lengths, dtype=np.int64) - lengths
    dtype = context.origin.dtype
    words = {name: np.zeros((total + 1, c.embed), dtype) for name, c in context.configs.items()}
    overall = {
        name: np.empty((len(captions), c.embed), dtype) for name, c in context.configs.items()
    }
    engine = context.engine

    def run(batch: Batch) -> None:
        rows = order[batch.start : batch.stop]
        steps = np.arange(batch.row_cost)
        real = steps < lengths[rows, None]  # (captions, words)
        token_ids = np.zeros(real.shape, dtype=np.int32)
        token_ids[real] = np.concatenate([captions[row] for row in rows])
        inputs = {"token_ids": engine.put(token_ids), "lengths": engine.put(lengths[rows])}
        places = (offsets[rows, None] + steps)[real]
        for name in context.configs:
            outputs = context.run(name, "text_encoder", inputs)
            words[name][places] = engine.fetch(outputs["word_embeddings"])[real]
            overall[name][rows] = engine.fetch(outputs["text_global"])

    batches = _text_batches(context, lengths[order])
    context.retries["text_encoder"].run(batches, run, total=len(captions), progress=progress)
    members = {
        name: TextBuffers(engine.put(words[name]), engine.put(overall[name]))
        for name in context.configs
    }
    return make_captions(context.origin, members, lengths)


def _warn_of_conversion(context: Context, regions: NDArray[Any]) -> None:
    """RegionsWarning, once a scorer; of a file's regions whoever opened it has told already."""
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
    """About what the image encoder takes per image: features, embeddings and three like them."""
    return _FLOAT * config.regions * (config.img_dim + 4 * config.embed)


def _word_bytes(config: ModelConfig) -> int:
    """About what the text encoder takes per word: its input, gates and states per direction."""
    directions = 2 if config.bidirectional else 1
    return _FLOAT * (config.word_dim + config.embed * (4 * directions + 3))


def _text_batches(context: Context, lengths: NDArray[np.int32]) -> Iterator[Batch]:
    """Batches of captions sorted by rising length, each at the cost of its longest."""
    per_word = max(_word_bytes(config) for config in context.configs.values())
    words = max(SMALLEST_TEXT_BATCH, ENCODER_BYTES // per_word)
    start = 0
    while start < len(lengths):
        similar = similar_end(lengths, start)
        most = max(1, words // int(lengths[similar - 1]))
        fitting = start + context.at_most("text_encoder", "captions", most)
        stop = min(similar, fitting)
        yield Batch(start, stop, int(lengths[stop - 1]))
        start = stop
