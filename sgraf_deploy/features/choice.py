"""Which boxes become the regions of a photograph: the most confident ones, then cells of a grid."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Number = TypeVar("Number", np.float32, np.float64)


def choose(
    boxes: Floats, confidence: Floats, area: Floats, regions: int, overlap: float
) -> tuple[Floats, Floats]:
    """Choose exactly `regions` boxes, none of them twice.

    The most confident boxes come first, of equally confident ones the earlier. A box is a duplicate
    if its intersection over union with one that was chosen exceeds `overlap`, of whatever class.
    Where boxes are too few, cells of a square grid over `area` follow, row by row: those that
    overlap the boxes least. They have a confidence of 0. Repeating a region or adding zeros instead
    costs a third of the recall that the grid keeps.

    Args:
        boxes: (boxes, 4), x1, y1, x2, y2.
        confidence: (boxes), above 0.
        area: (4), the part of the photograph that cells divide up.
        regions: How many boxes to choose.
        overlap: In 0 … 1.

    Returns:
        The boxes (regions, 4) and their confidence (regions).
    """
    kept: list[int] = []
    for index in np.argsort(-confidence, kind="stable"):
        if len(kept) == regions:
            break
        if not kept or overlaps(boxes[[index]], boxes[kept]).max() <= overlap:
            kept.append(int(index))
    chosen, missing = boxes[kept], regions - len(kept)
    if missing:
        cells = grid(area, int(np.ceil(np.sqrt(regions))))
        covered = overlaps(cells, chosen).max(axis=1, initial=0)
        # A box can be more than half the union with one cell only, and there are as many cells as
        # regions: those that are left for the missing ones are no box again.
        free = np.sort(np.argsort(covered, kind="stable")[:missing])
        chosen = np.concatenate([chosen, cells[free]])
    return chosen, np.concatenate([confidence[kept], np.zeros(missing, np.float32)])


def grid(area: Floats, side: int) -> Floats:
    """The `side` × `side` cells of an area, row by row: (cells, 4)."""
    x = np.linspace(area[0], area[2], side + 1, dtype=np.float32)
    y = np.linspace(area[1], area[3], side + 1, dtype=np.float32)
    top, left = np.divmod(np.arange(side * side), side)
    return np.stack([x[left], y[top], x[left + 1], y[top + 1]], axis=1)


def overlaps(first: NDArray[Number], second: NDArray[Number]) -> NDArray[Number]:
    """The intersection over union of each of (a, 4) with each of (b, 4): (a, b); 0 for empty."""
    one, other = first[:, None], second[None]  # (a, 1, 4), (1, b, 4)
    low, high = np.maximum(one[..., :2], other[..., :2]), np.minimum(one[..., 2:], other[..., 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    sides = [np.clip(boxes[..., 2:] - boxes[..., :2], 0, None) for boxes in (one, other)]
    union = sides[0].prod(axis=-1) + sides[1].prod(axis=-1) - shared
    found: NDArray[Number] = shared / np.where(union > 0, union, 1)
    return found
