"""The forms in which detectors say their boxes."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import naming, refused

from sgraf_deploy.errors import InputError
from sgraf_deploy.features.detections import read_detections
from sgraf_deploy.features.recipe import Detections

SIZE = (200, 100)
BOXES = [[20, 10, 60, 50], [100, 40, 200, 100]]
SCORES = [0.75, 0.25]
PIXELS = Detections("xyxy", "pixels", 0.7)


def array(values: Any) -> NDArray[np.float32]:
    return np.array(values, np.float32)


FORMS = {
    "two outputs": [array([BOXES]), array([SCORES])],
    "no axis of pictures": [array(BOXES), array(SCORES)],
    "a score for each class": [array([BOXES]), array([[[0.1, 0.75], [0.25, 0.2]]])],
    "classes, and no axis of pictures": [array(BOXES), array([[0.1, 0.75], [0.25, 0.2]])],
    "one output": [array([[[*BOXES[0], 0.75, 3], [*BOXES[1], 0.25, 7]]])],
    "one output without classes": [array([[*BOXES[0], 0.75], [*BOXES[1], 0.25]])],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(form: str) -> None:
    boxes, scores = read_detections(FORMS[form], PIXELS, SIZE, "detector.onnx")
    assert boxes.tolist() == BOXES
    assert scores.tolist() == SCORES


@pytest.mark.parametrize(
    ("order", "rows"),
    [
        ("xyxy", [[0.1, 0.1, 0.3, 0.5], [0.5, 0.4, 1.0, 1.0]]),
        ("yxyx", [[0.1, 0.1, 0.5, 0.3], [0.4, 0.5, 1.0, 1.0]]),
        ("cxcywh", [[0.2, 0.3, 0.2, 0.4], [0.75, 0.7, 0.5, 0.6]]),
    ],
)
@pytest.mark.parametrize("unit", ["pixels", "fraction"])
def test_every_order_and_unit_is_read(
    order: Literal["xyxy", "yxyx", "cxcywh"],
    unit: Literal["pixels", "fraction"],
    rows: list[list[float]],
) -> None:
    sizes = [SIZE[::-1] * 2 if order == "yxyx" else SIZE * 2]
    given = array(rows) * (array(sizes) if unit == "pixels" else 1)
    boxes, _ = read_detections(
        [given[None], array([SCORES])], Detections(order, unit, 0.7), SIZE, "detector.onnx"
    )
    np.testing.assert_allclose(boxes, BOXES, rtol=1e-6)


def test_a_detector_may_find_nothing() -> None:
    empty = [np.zeros((0, 4), np.float32), np.zeros(0, np.float32)]
    boxes, scores = read_detections(empty, PIXELS, SIZE, "detector.onnx")
    assert (boxes.shape, scores.shape) == ((0, 4), (0,))


@pytest.mark.parametrize(
    "shapes",
    [
        [(1, 5, 4)],
        [(1, 84, 8400), (1, 3)],
        [(1, 5, 4), (1, 6)],
        [(1, 5, 4), (1, 5, 0)],
        [(1, 5, 4), (1, 5, 3, 2)],
        [(2, 5, 4), (2, 5)],
        [(4,), (1,)],
        [(1, 5, 4), ()],
        [()],
        [(1, 5, 4), (1, 5), (1, 5)],
    ],
    ids=str,
)
def test_other_shapes_are_refused(shapes: list[tuple[int, ...]]) -> None:
    outputs = [np.zeros(shape, np.float32) for shape in shapes]
    with refused(InputError, "detector.onnx", got=naming(*shapes)):
        read_detections(outputs, PIXELS, SIZE, "detector.onnx")


@pytest.mark.parametrize("score", [-0.5, 1.5])
def test_scores_that_are_no_confidence_are_refused(score: float) -> None:
    outputs = [array([BOXES]), array([[score, 0.5]])]
    with refused(InputError, "detector.onnx"):
        read_detections(outputs, PIXELS, SIZE, "detector.onnx")
