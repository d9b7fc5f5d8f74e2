"""Single pairs of images and captions, batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.buffers import Buffer
from sgraf_deploy.engines.ensemble import Logits, not_a_number
from sgraf_deploy.engines.native.workspace import workspace_bytes
from sgraf_deploy.errors import DataError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.matrix import text_inputs
from sgraf_deploy.runtime.retry import Batch
from sgraf_deploy.runtime.rows import check_index
from sgraf_deploy.runtime.tiling import similar_end

_FLOAT = 4


def pair_rows(
    image_index: Any, caption_index: Any, images: int, captions: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """The rows, each (pairs,), of the pairs that two indices name; row by row without indices.

    Raises DataError for an index that is not integer or out of range, one alone, two of unequal
    length, and without indices for other numbers of images and captions.
    """
    if image_index is None and caption_index is None:
        if images != captions:
            raise DataError(
                "images and captions, paired row by row",
                expected="as many of one as of the other",
                got=f"{images} and {captions}",
                hint="say which belong together: image_index and caption_index",
            )
        rows = np.arange(images, dtype=np.int32)
        return rows, rows
    if image_index is None or caption_index is None:
        got = "caption_index" if image_index is None else "image_index"
        raise DataError("image_index and caption_index", expected="both or neither", got=got)
    image_rows = check_index(image_index, images, "image_index")
    caption_rows = check_index(caption_index, captions, "caption_index")
    if len(image_rows) != len(caption_rows):
        raise DataError(
            "image_index and caption_index",
            expected="the same length",
            got=f"{len(image_rows)} and {len(caption_rows)}",
        )
    return image_rows, caption_rows


def pair_logits(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    image_rows: NDArray[np.int32],
    caption_rows: NDArray[np.int32],
    progress: Progress | None = None,
) -> dict[str, Logits]:
    """Every member's logits (pairs,) float32 of the images and captions at rows of `pair_rows`."""
    lengths = captions.lengths[caption_rows]
    order = np.lexsort((image_rows, lengths))
    result = {name: np.empty(len(order), dtype=np.float32) for name in context.configs}

    def run(batch: Batch) -> None:
        pairs = order[batch.start : batch.stop]
        inputs = _inputs(context, images, captions, (image_rows[pairs], caption_rows[pairs]))
        for name, buffers in inputs.items():
            logits = context.run(name, "pair_scorer", buffers)["logits"]
            result[name][pairs] = context.engine.fetch(logits)

    batches = _batches(context, lengths[order])
    context.retries["pair_scorer"].run(
        batches, run, total=len(order), progress=progress, workers=context.engine.workers
    )
    for logits in result.values():
        wrong = np.isnan(logits)
        if wrong.any():
            pair = int(np.argmax(wrong))
            raise not_a_number(int(image_rows[pair]), int(caption_rows[pair]))
    return result


def _inputs(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    pairs: tuple[NDArray[np.int32], NDArray[np.int32]],
) -> dict[str, dict[str, Buffer]]:
    """The pair scorer's inputs by member: only the rows that these pairs need, each once."""
    engine = context.engine
    rows, image_index = np.unique(pairs[0], return_inverse=True)
    columns, caption_index = np.unique(pairs[1], return_inverse=True)
    words = int(captions.lengths[columns].max())
    inputs = text_inputs(context, captions, columns, words)
    index = {
        "image_index": engine.put(image_index.astype(np.int32)),
        "caption_index": engine.put(caption_index.astype(np.int32)),
    }
    for name, buffers in images.members.items():
        graph = engine.open(name, "pair_scorer")
        inputs[name] |= index | buffers.inputs(graph, lambda each: engine.gather(each, rows))
    return inputs


def _batches(context: Context, lengths: NDArray[np.int32]) -> Iterator[Batch]:
    """Batches of pairs sorted by the length of their caption."""
    start = 0
    while start < len(lengths):
        similar = similar_end(lengths, start)
        fitting = start + _fitting_pairs(context, int(lengths[similar - 1]))
        stop = min(similar, fitting)
        yield Batch(start, stop, int(lengths[stop - 1]))
        start = stop


def _fitting_pairs(context: Context, words: int) -> int:
    """How many pairs fit: each takes its regions twice and its words six times, as gathered.

    That has room for what a second member gathers; each further one gathers its own.
    """
    limits = context.limits
    largest = min(limits.tile_bytes, 4 * (limits.advice.intermediate_bytes or limits.tile_bytes))
    configs = sorted(context.configs.values(), key=lambda config: config.embed, reverse=True)
    if limits.advice.words is not None:  # Engine native.
        largest -= sum(workspace_bytes(config, words) for config in configs)
    regions = configs[0].regions
    floats = configs[0].embed * (2 * (regions + 1) + 6 * words) + 2 * regions**2
    floats += sum(config.embed * (regions + 1 + words) + regions**2 for config in configs[2:])
    fitting = max(1, largest // (_FLOAT * floats))
    for axis in ("pairs", "images", "captions"):  # A batch may hold as many images as pairs.
        fitting = context.at_most("pair_scorer", axis, fitting)
    return fitting
