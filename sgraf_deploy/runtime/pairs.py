"""Single pairs of images and captions, batch by batch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sgraf_deploy.engines.base import Graph
from sgraf_deploy.engines.ensemble import Logits, not_a_number
from sgraf_deploy.engines.native.workspace import workspace_bytes
from sgraf_deploy.errors import DataError, EngineMemoryError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.retry import Batch
from sgraf_deploy.runtime.rows import check_index
from sgraf_deploy.runtime.tiling import count_batches, similar_end
from sgraf_deploy.runtime.workers import Turns

Index = Sequence[int] | NDArray[Any]
"""Rows, (pairs,) integers from 0."""

_FLOAT = 4


def pair_rows(
    image_index: Any, caption_index: Any, images: int, captions: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return the image and the caption row of each pair, (pairs,), that two indices name.

    Without indices image `i` is paired with caption `i`.

    Raises DataError for an index that is not integer or out of range, for one without the other,
    for two of unequal length, and, without indices, unless there are as many images as captions.
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


def distinct_pairs(
    one: ArrayLike, other: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The pairs of two indices (pairs,), each once, and the place of every pair among them.

    Equal pairs that are scored once have equal logits on any engine, also on one that rounds by the
    place in a batch. `other` is not negative.

    Example:
        >>> distinct_pairs([3, 0, 3], [1, 1, 1])
        (array([0, 3]), array([1, 1]), array([1, 0, 1]))
    """
    first, second = np.asarray(one, np.int64), np.asarray(other, np.int64)
    size = int(second.max(initial=0)) + 1
    keys, places = np.unique(first * size + second, return_inverse=True)
    return *np.divmod(keys, size), places


def pair_logits(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    image_rows: NDArray[np.int32],
    caption_rows: NDArray[np.int32],
    progress: Progress | None = None,
    *,
    members: Collection[str] | None = None,
) -> dict[str, Logits]:
    """Compute every member's logits (pairs,) float32, by as many threads as the engine wants.

    `members` are those that score, None for all.

    `image_rows` and `caption_rows` (pairs,) are those of `pair_rows`. Raises EngineMemoryError if
    not even one pair fits the engine's memory, and DataError for a logit that is NaN.
    """
    graphs = context.graphs("pair_scorer")
    if members is not None:
        graphs = {name: graph for name, graph in graphs.items() if name in members}
    lengths = captions.lengths[caption_rows]
    ragged = all(graph.ragged is not None for graph in graphs.values())
    order = (
        _order_of_rows(image_rows, caption_rows) if ragged else np.lexsort((image_rows, lengths))
    )
    result = {name: np.empty(len(order), dtype=np.float32) for name in graphs}
    rows = image_rows, caption_rows
    scoring = _PairScoring(context, images, captions, rows, order, graphs, result, ragged)
    batches = _even_batches(context, lengths) if ragged else _batches(context, lengths[order])
    work = context.share("pair_scorer", batches, len(order), progress)
    context.pool.run(work, scoring.score_turns, context.engine.workers)
    for logits in result.values():
        wrong = np.isnan(logits)
        if wrong.any():
            pair = int(np.argmax(wrong))
            raise not_a_number(int(image_rows[pair]), int(caption_rows[pair]))
    return result


@dataclass(frozen=True, eq=False)
class _PairScoring:
    """What every thread that scores pairs needs: inputs, the members' graphs and the results."""

    context: Context
    images: EncodedImages
    captions: EncodedCaptions
    rows: tuple[NDArray[np.int32], NDArray[np.int32]]
    """The row of each pair's image and that of its caption, each (pairs,)."""
    order: NDArray[np.int64]
    """The pairs in the order in which they are scored, (pairs,)."""
    graphs: Mapping[str, Graph]
    result: Mapping[str, Logits]
    """By member, (pairs,)."""
    ragged: bool
    """Whether the graphs take images and words where they lie: nothing of them is gathered."""

    def score_turns(self, batches: Turns[Batch]) -> None:
        """Score batches of pairs until none is left; every thread does this with its turns."""
        for batch in batches:
            try:
                self.score_batch(batch)
            except EngineMemoryError as error:
                batches.halve(batch, error)

    def score_batch(self, batch: Batch) -> None:
        """Gather the rows that a batch needs, each once, and run every member's pair scorer."""
        engine, pairs = self.context.engine, self.order[batch.rows]
        rows, image_index = self._images_of(pairs)
        columns, caption_index = np.unique(self.rows[1][pairs], return_inverse=True)
        words = int(self.captions.lengths[columns].max())
        texts = self.captions.inputs(self.graphs, columns, words)
        index = {
            "image_index": engine.put(image_index.astype(np.int32)),
            "caption_index": engine.put(caption_index.astype(np.int32)),
        }
        for name, graph in self.graphs.items():
            inputs = self.images.members[name].inputs(graph, engine, rows)
            logits = graph.run(inputs | texts[name] | index)["logits"]
            self.result[name][pairs] = engine.fetch(logits)
        self.context.scored.add(dict.fromkeys(self.graphs, len(pairs)))

    def _images_of(
        self, pairs: NDArray[np.int64]
    ) -> tuple[slice | NDArray[np.int32], NDArray[np.integer[Any]]]:
        """Return the images that are given to the graphs, and each pair's place among them."""
        chosen = self.rows[0][pairs]
        if self.ragged:
            return slice(0, len(self.images)), chosen
        return np.unique(chosen, return_inverse=True)


def _order_of_rows(
    image_rows: NDArray[np.int32], caption_rows: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Return an order (pairs,) in which an engine that takes pairs one by one finds its rows again.

    Pairs of a row follow each other: of the captions, or of the images if these are fewer.
    """
    images, captions = (len(np.unique(rows)) for rows in (image_rows, caption_rows))
    inner, outer = (image_rows, caption_rows) if captions <= images else (caption_rows, image_rows)
    return np.lexsort((inner, outer))


def _even_batches(context: Context, lengths: NDArray[np.int32]) -> Iterator[Batch]:
    """Yield batches of as many pairs, whose captions have these lengths (pairs,), without padding.

    Only the captions' global vectors are gathered, which take the place of a word each.
    """
    pairs = len(lengths)
    if not pairs:
        return
    configs, limits = list(context.configs.values()), context.limits
    words, longest = round(float(lengths.mean())), int(lengths.max())
    count = count_batches(pairs, words, configs, limits)
    fitting = limits.tile_bytes - sum(workspace_bytes(config, longest) for config in configs)
    per_pair = _FLOAT * sum(config.embed + 8 for config in configs)
    count = min(pairs, max(count, -(-pairs * per_pair // max(1, fitting))))
    for part in range(count):
        yield Batch(pairs * part // count, pairs * (part + 1) // count)


def _batches(context: Context, lengths: NDArray[np.int32]) -> Iterator[Batch]:
    """Yield batches of pairs of similar length; `lengths` (pairs,) are in rising order."""
    start = 0
    while start < len(lengths):
        similar = similar_end(lengths, start)
        fitting = start + _fitting_pairs(context, int(lengths[similar - 1]))
        stop = min(similar, fitting)
        yield Batch(start, stop, int(lengths[stop - 1]))
        start = stop


def _fitting_pairs(context: Context, words: int) -> int:
    """Return how many pairs of so many words fit the memory budget.

    Each takes its regions twice and its words six times, as gathered. That has room for a second
    member; each further member gathers regions and words again.
    """
    limits = context.limits
    largest = min(limits.tile_bytes, 4 * (limits.advice.intermediate_bytes or limits.tile_bytes))
    configs = sorted(context.configs.values(), key=lambda config: config.embed, reverse=True)
    regions = configs[0].regions
    floats = configs[0].embed * (2 * (regions + 1) + 6 * words) + 2 * regions**2
    floats += sum(config.embed * (regions + 1 + words) + regions**2 for config in configs[2:])
    fitting = max(1, largest // (_FLOAT * floats))
    for axis in ("pairs", "images", "captions"):  # A batch may hold as many images as pairs.
        fitting = context.at_most("pair_scorer", axis, fitting)
    return fitting
