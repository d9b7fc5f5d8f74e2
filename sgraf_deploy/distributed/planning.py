"""Cuts a job into pieces, by its data and its bundle alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.distributed.parts import Identity, Job, Plan
from sgraf_deploy.evaluation.evaluate import check_for
from sgraf_deploy.runtime.scorer import Scorer

SHARD_BYTES = 128 * 2**20
"""The most bytes of encoded images, or captions, in a file."""
PART_PAIRS = 250_000
"""The pairs of a part: about ten seconds of one core, at 20,000 pairs a second."""
LEAST, MOST = 16, 4096
"""A small job is cut into so many pieces of a kind, for every worker to have some; a large one's
parts are not more than that, to be merged."""


def make_plan(job: Job, identity: Identity, scorer: Scorer, split: PrecompSplit) -> None:
    """Check the data, plan the work on them, and write the plan; raises as `check_for`."""
    checked = check_for(scorer.bundle, split, scorer.max_words)
    lengths = np.array([len(ids) for ids in checked.token_ids], np.int32)
    tiling = scorer.tiling_of(split.images, lengths)
    batches = scorer.encoding_batches(lengths)
    estimate = scorer.estimate(split.images, lengths)
    image_bytes = scorer.estimate(1, lengths[:1]).encoded
    word_bytes = estimate.encoded // (int(lengths.sum()) + 1)
    plan = Plan(
        format=1,
        identity=identity,
        execution=scorer.execution,
        device=scorer.device,
        tiling=tiling.digest,
        images=image_shards(split.images, batches.images, image_bytes),
        batches=batches.captions,
        captions=caption_shards(lengths[tiling.order], batches.captions, word_bytes),
        tiles=tuple(part.stop for part in tiling.split(count_parts(tiling.pairs))),
        words=checked.words,
        findings=checked.findings,
        encoded_bytes=estimate.encoded,
        tile_bytes=estimate.tiles,
    )
    job.write_plan(plan, tiling)


def count_parts(pairs: int) -> int:
    """How many parts the tiles of so many pairs are cut into, at most."""
    return min(MOST, max(LEAST, math.ceil(pairs / PART_PAIRS)))


def image_shards(images: int, batch: int, image_bytes: int) -> tuple[int, ...]:
    """Where each shard of images ends; it holds whole batches."""
    rows = min(SHARD_BYTES // image_bytes, math.ceil(images / LEAST))
    step = max(1, rows // batch) * batch
    return tuple(min(images, start + step) for start in range(0, images, step))


def caption_shards(
    ordered: NDArray[np.int32], batches: Sequence[int], word_bytes: int
) -> tuple[int, ...]:
    """Where each shard of captions ends, in batches, for lengths (captions,) in rising order."""
    ends = np.cumsum(ordered, dtype=np.int64)[np.array(batches) - 1]
    step = max(1, min(SHARD_BYTES // word_bytes, int(ends[-1]) // LEAST))
    shards = np.flatnonzero(np.diff(ends // step)) + 1
    return tuple(dict.fromkeys([*shards.tolist(), len(batches)]))
