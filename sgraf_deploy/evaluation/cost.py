"""What an evaluation will take, said before it begins: memory, and time by a small sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.regions import spread
from sgraf_deploy.runtime.scorer import Scorer

SIDES = (32, 96, 384)
"""Images, and captions, of a sample; the largest that is few of all, or that takes long enough."""

LONG_ENOUGH = 0.2
"""Seconds of scoring that tell the rate; on a GPU small tiles say little of large ones."""

_SHARE_OF_IMAGES, _SHARE_OF_PAIRS = 8, 50
"""A sample holds at most so small a part of the images, and of the pairs."""


@dataclass(frozen=True)
class Memory:
    """Bytes that an evaluation holds: encoded inputs, scratch of the tiles under way, result."""

    encoded: int
    tiles: int
    result: int


@dataclass(frozen=True)
class Cost:
    """About what an evaluation takes; `seconds` is None for one that is too short to tell."""

    memory: Memory
    seconds: float | None


def plan_memory(
    scorer: Scorer, token_ids: Sequence[NDArray[np.int32]], images: int, matrices: int
) -> Memory:
    """What encoding and scoring hold beside `matrices` of the logits."""
    plan = scorer.estimate(images, [len(ids) for ids in token_ids])
    return Memory(plan.encoded, plan.tiles, matrices * plan.matrix)


def estimate_seconds(
    scorer: Scorer,
    regions: NDArray[Any],
    token_ids: Sequence[NDArray[np.int32]],
    clock: Callable[[], float],
) -> float | None:
    """About how long everything takes, by the rates of a sample; None where that is soon done.

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
