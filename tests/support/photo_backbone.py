"""A small model of real arithmetic that makes a map of a picture: one convolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save


def write_backbone(
    path: Path, channels: int, cells: tuple[int, int], side: int = 8, seed: int = 0
) -> Path:
    """Write a backbone with `cells` (rows, columns) of `side` pixels each, as an ONNX file."""
    rows, columns = cells
    values = np.random.default_rng(seed).standard_normal((channels, 3, side, side))
    weight = numpy_helper.from_array((values / side**2).astype(np.float32), "weight")
    shapes = {
        "pixels": [1, 3, rows * side, columns * side],
        "map": [1, channels, rows, columns],
    }
    read, made = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    )
    node = helper.make_node("Conv", ["pixels", "weight"], ["map"], strides=[side, side])
    graph = helper.make_graph([node], "backbone", [read], [made], [weight])
    opsets = [helper.make_opsetid("", 18)]
    save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path
