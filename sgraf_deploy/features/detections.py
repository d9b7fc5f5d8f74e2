"""What detectors say, in the forms that exporters write: boxes and confidence."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import InputError
from sgraf_deploy.features.recipe import Detections

Floats = NDArray[np.float32]

CORNERS = 4
"""The numbers of a box; where a detector has one output, the next one is the score."""

HINT = "export the detector with its last steps: boxes, and scores after the sigmoid or softmax"


def read_detections(
    outputs: Sequence[Floats], said: Detections, size: tuple[int, int], name: str
) -> tuple[Floats, Floats]:
    """Read one picture's boxes.

    Args:
        outputs: One array (1, boxes, 5 or more), a box, its score, and whatever follows; or two,
            boxes (1, boxes, 4) and scores (1, boxes) or (1, boxes, classes), of which the best one
            counts. The first axis may be missing.
        said: The order and the unit of a box's four numbers.
        size: The width and height of the detector's input, in pixels.
        name: What to call the detector in errors.

    Returns:
        Boxes (boxes, 4), x1, y1, x2, y2 in pixels of the input, and confidence (boxes).

    Raises:
        InputError: For arrays of other shapes, and for scores outside 0 … 1.
    """
    boxes, scores = _parts(outputs, name)
    if scores.size and not (scores.min() >= 0 and scores.max() <= 1):
        got = f"{scores.min():.4g} … {scores.max():.4g}"
        raise InputError(f"scores of {name}", expected="0 … 1", got=got, hint=HINT)
    corners = _corners(boxes, said)
    if said.unit == "fraction":
        corners = corners * np.array([*size, *size], dtype=np.float32)
    return corners, scores


def _parts(outputs: Sequence[Floats], name: str) -> tuple[Floats, Floats]:
    """Boxes (boxes, 4) and the best scores (boxes)."""
    arrays = list(outputs)
    if arrays[0].ndim == 3 and all(array.shape[:1] == (1,) for array in arrays):
        arrays = [array[0] for array in arrays]
    boxes, shape = arrays[0], arrays[0].shape
    if len(arrays) == 1 and boxes.ndim == 2 and shape[1] > CORNERS:
        return boxes[:, :CORNERS], boxes[:, CORNERS]
    if len(arrays) == 2 and boxes.ndim == 2 and shape[1] == CORNERS:
        scores = arrays[1]
        if scores.ndim in {1, 2} and len(scores) == len(boxes) and scores.shape[1:] != (0,):
            return boxes, scores if scores.ndim == 1 else scores.max(axis=1)
    raise InputError(
        f"outputs of {name}",
        expected="(1, boxes, 5 or more), or (1, boxes, 4) and (1, boxes) or (1, boxes, classes)",
        got=" and ".join(str(array.shape) for array in outputs),
        hint=HINT,
    )


def _corners(boxes: Floats, said: Detections) -> Floats:
    if said.order == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    if said.order == "cxcywh":
        half = boxes[:, 2:] / 2
        return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
    return boxes
