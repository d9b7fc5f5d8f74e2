"""A detector and a backbone of a few nodes, whose answers can be told by looking at a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

SIDE, CELLS = 64, 4
"""The detector's input, and how many boxes it knows in each direction."""

BACKBONE_SIDE, MAP = 48, 8


def corners() -> NDArray[np.float32]:
    """The detector's boxes in fractions of its input: (16, 4), row by row."""
    y, x = np.divmod(np.arange(CELLS**2), CELLS)
    return (np.stack([x, y, x + 1, y + 1], axis=1) / CELLS).astype(np.float32)


def write_detector(
    path: Path, order: str = "xyxy", unit: str = "pixels", form: str = "two", gain: float = 1.0
) -> Path:
    """Write a detector whose boxes are 16 cells, and whose confidence is how red they are.

    A cell's score is the mean of red less green, in 0 … 1. `form` is `two` outputs, `classes` with
    a second class that never wins, or `one` output with a class behind the score; `gain` multiplies
    the scores.
    """
    boxes = corners() * (SIDE if unit == "pixels" else 1)
    if order == "yxyx":
        boxes = boxes[:, [1, 0, 3, 2]]
    if order == "cxcywh":
        boxes = np.hstack([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]])
    step = SIDE // CELLS
    nodes = [
        helper.make_node("Split", ["image"], ["red", "green", "blue"], axis=1, num_outputs=3),
        helper.make_node("Sub", ["red", "green"], ["redder"]),
        helper.make_node("Relu", ["redder"], ["only"]),
        helper.make_node(
            "AveragePool", ["only"], ["pooled"], kernel_shape=[step, step], strides=[step, step]
        ),
        helper.make_node("Mul", ["pooled", "gain"], ["gained"]),
        helper.make_node("Reshape", ["gained", "column"], ["score"]),  # (1, 16, 1)
        helper.make_node("Mul", ["score", "none"], ["zero"]),
    ]
    if form == "one":
        nodes.append(helper.make_node("Concat", ["stored", "score", "zero"], ["boxes"], axis=2))
        outputs = {"boxes": [1, CELLS**2, 6]}
    else:
        last = ["zero", "score"] if form == "classes" else ["score"]
        nodes += [
            helper.make_node("Identity", ["stored"], ["boxes"]),
            helper.make_node("Concat", last, ["scores"], axis=2),
        ]
        outputs = {"boxes": [1, CELLS**2, 4], "scores": [1, CELLS**2, len(last)]}
    stored = {
        "stored": boxes[None].astype(np.float32),
        "gain": np.float32(gain),
        "column": np.array([1, -1, 1]),
        "none": np.float32(0),
    }
    return _write(path, nodes, [1, 3, SIDE, SIDE], outputs, stored)


def write_backbone(path: Path) -> Path:
    """Write a backbone whose map, (1, 3, 8, 8), is the mean colour of each cell."""
    step = BACKBONE_SIDE // MAP
    node = helper.make_node(
        "AveragePool", ["image"], ["map"], kernel_shape=[step, step], strides=[step, step]
    )
    size = [1, 3, BACKBONE_SIDE, BACKBONE_SIDE]
    return _write(path, [node], size, {"map": [1, 3, MAP, MAP]}, {})


def _write(
    path: Path,
    nodes: list[NodeProto],
    size: list[int],
    outputs: dict[str, list[int]],
    stored: dict[str, Any],
) -> Path:
    graph = helper.make_graph(
        nodes,
        path.stem,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, size)],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in outputs.items()
        ],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path
