"""The full matrix of images x captions, tile by tile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.buffers import Buffer
from sgraf_deploy.engines.ensemble import Logits, ensemble_logits, not_a_number, similarities
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.tiles import Tile

Sink = Callable[[slice, NDArray[np.int64], Mapping[str, Logits]], None]
"""Takes a tile: its rows, its columns in the caller's order, every member's logits."""

MatrixOut = NDArray[np.float32]


def similarity_matrix(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    out: MatrixOut | None,
    progress: Progress | None = None,
) -> MatrixOut:
    """Similarities (images, captions) float32, the members combined tile by tile.

    `out` is fit for them: see `outputs.check_outputs`.
    """
    result = np.empty((len(images), len(captions)), np.float32) if out is None else out

    def sink(rows: slice, columns: NDArray[np.int64], logits: Mapping[str, Logits]) -> None:
        result[rows, columns] = similarities(ensemble_logits(logits))

    score_tiles(context, images, captions, sink, progress)
    return result


def ensemble_matrix(
    context: Context, images: EncodedImages, captions: EncodedCaptions
) -> MatrixOut:
    """The logits to rank by, (images, captions) float32, the members combined tile by tile."""
    result = np.empty((len(images), len(captions)), dtype=np.float32)

    def sink(rows: slice, columns: NDArray[np.int64], logits: Mapping[str, Logits]) -> None:
        result[rows, columns] = ensemble_logits(logits)

    score_tiles(context, images, captions, sink)
    return result


def member_matrices(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    out: Mapping[str, MatrixOut] | None,
    progress: Progress | None = None,
) -> dict[str, MatrixOut]:
    """Every member's logits (images, captions) float32; `out`, by member, is fit for them."""
    shape = (len(images), len(captions))
    result = {
        name: np.empty(shape, np.float32) if out is None else out[name] for name in context.configs
    }

    def sink(rows: slice, columns: NDArray[np.int64], logits: Mapping[str, Logits]) -> None:
        for name, tile in logits.items():
            result[name][rows, columns] = tile

    score_tiles(context, images, captions, sink, progress)
    return result


def score_tiles(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    sink: Sink,
    progress: Progress | None = None,
) -> None:
    """Hand every tile's logits to `sink`; nothing of a tile is kept beyond its turn.

    Raises EngineMemoryError when not even one pair fits, and DataError for a logit that is NaN.
    """

    def fetched(rows: slice, columns: NDArray[np.int64], buffers: Mapping[str, Buffer]) -> None:
        logits = {name: context.engine.fetch(buffer) for name, buffer in buffers.items()}
        for tile_logits in logits.values():
            check_numbers(tile_logits, rows.start, columns)
        sink(rows, columns, logits)

    run_tiles(context, images, captions, fetched, progress)


def run_tiles(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    use: Callable[[slice, NDArray[np.int64], Mapping[str, Buffer]], None],
    progress: Progress | None = None,
) -> None:
    """Hand every tile's logits to `use` where they lie, by member.

    As `score_tiles`: rows, columns in the caller's order. What does not fit is halved; `use` is
    called once for what was scored.
    """
    tiling = context.tiling(len(images), captions.lengths)
    own = threading.local()

    def run(tile: Tile) -> None:
        if not hasattr(own, "block"):
            own.block = _CaptionBlock(context, captions, tiling.order)
        texts = own.block.inputs(tile)
        logits = {
            name: context.run(
                name, "scorer", {**_image_inputs(context, images, name, tile), **text}
            )["logits"]
            for name, text in texts.items()
        }
        use(tile.images, tiling.order[tile.captions], logits)

    context.retries["scorer"].run(
        tiling, run, total=tiling.pairs, progress=progress, workers=tiling.workers
    )


class _CaptionBlock:
    """The captions of one thread's tiles, gathered and padded; the next block replaces them."""

    def __init__(
        self, context: Context, captions: EncodedCaptions, order: NDArray[np.int64]
    ) -> None:
        self._context = context
        self._captions = captions
        self._order = order
        self._place: tuple[slice, int] | None = None
        self._inputs: dict[str, dict[str, Buffer]] = {}

    def inputs(self, tile: Tile) -> dict[str, dict[str, Buffer]]:
        """The scorer's text inputs by member."""
        place = (tile.captions, tile.words)
        if place != self._place:
            self._place, self._inputs = None, {}  # Freed before the next are gathered.
            self._inputs = text_inputs(
                self._context, self._captions, self._order[tile.captions], tile.words
            )
            self._place = place
        return self._inputs


def text_inputs(
    context: Context, captions: EncodedCaptions, rows: NDArray[np.integer[Any]], words: int
) -> dict[str, dict[str, Buffer]]:
    """A scorer's inputs of some captions, padded to `words`, by member."""
    engine = context.engine
    index = rows.astype(np.int32)
    word_rows = captions.word_rows(rows, words)
    lengths = engine.put(captions.lengths[rows])
    return {
        name: {
            "word_embeddings": engine.gather(buffers.word_embeddings, word_rows),
            "text_global": engine.gather(buffers.text_global, index),
            "lengths": lengths,
        }
        for name, buffers in captions.members.items()
    }


def _image_inputs(
    context: Context, images: EncodedImages, member: str, tile: Tile
) -> dict[str, Buffer]:
    engine = context.engine
    graph = engine.open(member, "scorer")
    return images.members[member].inputs(graph, lambda each: engine.gather(each, tile.images))


def check_numbers(logits: Logits, first_image: int, columns: NDArray[np.integer[Any]]) -> None:
    """DataError, which names the pair, for a tile with a logit that is NaN."""
    wrong = np.isnan(logits)
    if wrong.any():
        row, column = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        raise not_a_number(first_image + int(row), int(columns[column]))
