"""Runs the encoders over any number of images or captions, in bounded batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import ModelConfig
from sgraf_deploy.errors import DataError
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import (
    EncodedCaptions,
    EncodedImages,
    TextBuffers,
    empty_images,
    make_captions,
)
from sgraf_deploy.runtime.halving import Batch, Progress
from sgraf_deploy.runtime.tiles import similar_end
from sgraf_deploy.runtime.tokens import TokenIds

ENCODER_BYTES = 16 * 2**20
"""What one batch of an encoder may take, by the estimates below."""

SMALLEST_TEXT_BATCH = 512
"""Fewer words than this read a GRU's weights too often; they may take more memory."""

_FLOAT = 4


def check_regions_layout(regions: object, config: ModelConfig) -> NDArray[Any]:
    """Region features as they came, if their axes and dtype fit the model; else DataError."""
    expected = (
        f"(images, {config.regions}, {config.img_dim}) of float32 or float16 as "
        "(images, regions, img_dim)"
    )
    if not isinstance(regions, np.ndarray):
        raise DataError("regions", expected=f"an array {expected}", got=type(regions).__name__)
    fits = regions.ndim == 3 and regions.shape[1:] == (config.regions, config.img_dim)
    if not fits or regions.dtype.type not in (np.float32, np.float16):
        raise DataError("regions", expected=expected, got=f"{regions.shape} of {regions.dtype}")
    return regions


def encode_images(
    context: Context, regions: object, progress: Progress | None = None
) -> EncodedImages:
    """Encode regions (images, regions, img_dim) float32 or float16, which may be a memory map.

    Raises DataError for another shape or dtype and for a value that is not finite.
    """
    config = next(iter(context.configs.values()))
    checked = check_regions_layout(regions, config)
    engine, count = context.engine, len(checked)
    members = {name: empty_images(context.origin, name, count) for name in context.configs}

    def run(batch: Batch) -> None:
        rows = slice(batch.start, batch.stop)
        chunk = np.ascontiguousarray(checked[rows], dtype=np.float32)
        _check_finite(chunk, batch.start)
        buffer = engine.put(chunk)
        for name, buffers in members.items():
            outputs = {part: engine.gather(each, rows) for part, each in buffers.named.items()}
            context.run(name, "image_encoder", {"regions": buffer}, outputs)

    per_image = max(_image_bytes(each) for each in context.configs.values())
    step = context.at_most("image_encoder", "images", max(1, ENCODER_BYTES // per_image))
    batches = (Batch(start, min(count, start + step)) for start in range(0, count, step))
    context.halving["image_encoder"].run(batches, run, total=count, progress=progress)
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
    context.halving["text_encoder"].run(batches, run, total=len(captions), progress=progress)
    members = {
        name: TextBuffers(engine.put(words[name]), engine.put(overall[name]))
        for name in context.configs
    }
    return make_captions(context.origin, members, lengths)


def _check_finite(chunk: NDArray[np.float32], first: int) -> None:
    finite = np.isfinite(chunk).all(axis=(1, 2))
    if not finite.all():
        row = int(np.argmin(finite))
        region = int(np.argmin(np.isfinite(chunk[row]).all(axis=1)))
        raise DataError(
            f"regions: image {first + row} (counted from 0), region {region}",
            expected="finite values",
            got="a NaN or an infinity",
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
