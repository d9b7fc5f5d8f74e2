"""RoiAlign (He et al., 2017, Mask R-CNN), averaged over a box: from a map to one vector each."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def roi_align(cells: Floats, boxes: Floats, pool: int) -> Floats:
    """The mean of the `pool` × `pool` pooled cells of each box.

    The pooled cells are those of ONNX's RoiAlign with `mode` "avg", `sampling_ratio` 0 and
    `coordinate_transformation_mode` "half_pixel". The mean of all samples of a box is separable,
    so nothing is gathered: a box is one weight per row times one per column. It is a sum in a fixed
    order, which no threads share: equal boxes on an equal map give equal bytes.

    Args:
        cells: (rows, columns, channels), a backbone's map.
        boxes: (boxes, 4), x1, y1, x2, y2 in units of the map's cells, inside the map.
        pool: How many cells a box is divided into in each direction.

    Returns:
        (boxes, channels).

    Example:
        >>> cells = np.arange(4, dtype=np.float32).reshape(2, 2, 1)
        >>> roi_align(cells, np.array([[0, 0, 1, 1], [0, 0, 2, 2]], np.float32), pool=1)
        array([[0. ],
               [1.5]], dtype=float32)
    """
    rows, columns, _ = cells.shape
    across = np.stack([_axis_weights(x1, x2, columns, pool) for x1, _, x2, _ in boxes])
    down = np.stack([_axis_weights(y1, y2, rows, pool) for _, y1, _, y2 in boxes])
    narrowed = np.einsum("bw,hwc->bhc", across, cells)  # (boxes, rows, channels)
    found: Floats = np.einsum("bh,bhc->bc", down, narrowed)
    return found


def _axis_weights(start: float, end: float, length: int, pool: int) -> Floats:
    """How much each of the cells counts along one axis: the mean of all samples' weights."""
    begin, size = float(start) - 0.5, float(end) - float(start)
    per_cell = max(int(np.ceil(size / pool)), 1)
    samples = begin + (np.arange(pool * per_cell) + 0.5) * (size / (pool * per_cell))
    samples = np.clip(samples, 0, length - 1)  # A cell's outer half has the cell's own value.
    low = np.minimum(samples.astype(np.intp), max(length - 2, 0))
    high = np.minimum(low + 1, length - 1)
    weights = np.zeros(length)
    np.add.at(weights, low, 1 - (samples - low))
    np.add.at(weights, high, samples - low)
    return (weights / len(samples)).astype(np.float32)
