"""Estimates what an evaluation will take: memory, and time from a small sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.regions import spread
from sgraf_deploy.runtime.scorer import Scorer

SIDES = (32, 96, 384)
"""Images, and as many captions, of the samples; larger ones follow until one is long enough."""

LONG_ENOUGH = 0.2
"""Seconds of scoring after which the rate is known; on a GPU small tiles say little of large."""

_SHARE_OF_IMAGES, _SHARE_OF_PAIRS = 8, 50
"""A sample has at most 1/8 of the images, and 1/50 of the pairs."""


@dataclass(frozen=True)
class Memory:
    """Bytes that an evaluation holds: encoded inputs, scratch of the running tiles, result."""

    encoded: int
    tiles: int
    result: int


@dataclass(frozen=True)
class Cost:
    """About what an evaluation takes; `seconds` is None if it is too short to estimate."""

    memory: Memory
    seconds: float | None


def plan_memory(
    scorer: Scorer, token_ids: Sequence[NDArray[np.int32]], images: int, matrices: int
) -> Memory:
    """The memory of encoding and scoring, and of as many matrices of logits as `matrices`."""
    plan = scorer.estimate(images, [len(ids) for ids in token_ids])
    return Memory(plan.encoded, plan.tiles, matrices * plan.matrix)


def estimate_seconds(
    scorer: Scorer,
    regions: NDArray[Any],
    token_ids: Sequence[NDArray[np.int32]],
    clock: Callable[[], float],
) -> float | None:
    """About how many seconds everything takes, from the rates of a sample; None for little work.

    Smaller samples before it warm the engine up.
    """
    images, captions = len(regions), len(token_ids)
    found = None
    for side in SIDES:
        if side * _SHARE_OF_IMAGES > images or side**2 * _SHARE_OF_PAIRS > images * captions:
            break
        texts = [token_ids[row] for row in spread(captions, side).tolist()]
        rows = spread(images, side)
        times = [clock()]
        one = scorer.encode_images(np.asarray(regions[rows]))
        times.append(clock())
        other = scorer.encode_captions(texts)
        times.append(clock())
        scorer.logits(one, other)
        times.append(clock())
        encode_images, encode_captions, score = np.diff(times).tolist()
        found = encode_images * images / len(rows) + encode_captions * captions / len(texts)
        found += score * images * captions / (len(rows) * len(texts))
        if score >= LONG_ENOUGH:
            break
    return found
