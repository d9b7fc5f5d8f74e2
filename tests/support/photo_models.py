"""Small backbones in ONNX, of every kind that is exported, and of kinds that cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PATCH = 4
"""The side of a cell in pixels of the input."""

Axes = Sequence[int | str]


@dataclass(frozen=True)
class Backbone:
    """A convolution whose patches are cells: of `size` pixels, to `channels` per cell.

    `gives` is a map, the same with the channels last, tokens, tokens behind one for the class, or
    one vector; `axes` are those that the file says of the input, its own by default.
    """

    size: int = 16
    height: int | None = None
    channels: int = 5
    gives: Literal["map", "map, channels last", "tokens", "class token", "vector"] = "map"
    last: bool = False
    """Whether the input has the channels last."""
    axes: Axes | None = None
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The input's shape."""
        height = self.height or self.size
        return (1, height, self.size, 3) if self.last else (1, 3, height, self.size)

    def build(self) -> onnx.ModelProto:
        """The model, all of it in one file."""
        weights = np.random.default_rng(self.seed).standard_normal((self.channels, 3, PATCH, PATCH))
        constants = [numpy_helper.from_array(weights.astype(np.float32) / 100, "weights")]
        nodes, x = [], "image"
        if self.last:
            nodes.append(helper.make_node("Transpose", [x], ["first"], perm=[0, 3, 1, 2]))
            x = "first"
        nodes.append(helper.make_node("Conv", [x, "weights"], ["cells"], strides=[PATCH, PATCH]))
        nodes += self._after(constants)
        declared = [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, self.axes or self.shape),
            helper.make_tensor_value_info("out", TensorProto.FLOAT, None),
        ]
        graph = helper.make_graph(nodes, "small", declared[:1], declared[1:], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)

    def save(self, path: Path, outside: str | None = None) -> Path:
        """Write the model, with its tensors in the file `outside` beside it where that is named."""
        model = self.build()
        if outside is not None:
            (path.parent / outside).unlink(missing_ok=True)  # onnx would append to it
            onnx.external_data_helper.convert_model_to_external_data(
                model, location=outside, size_threshold=0
            )
        onnx.save(model, path)
        return path

    def _after(self, constants: list[TensorProto]) -> list[onnx.NodeProto]:
        if self.gives == "map":
            return [helper.make_node("Identity", ["cells"], ["out"])]
        if self.gives == "map, channels last":
            return [helper.make_node("Transpose", ["cells"], ["out"], perm=[0, 2, 3, 1])]
        if self.gives == "vector":
            return [
                helper.make_node("GlobalAveragePool", ["cells"], ["one"]),
                helper.make_node("Flatten", ["one"], ["out"]),
            ]
        constants.append(numpy_helper.from_array(np.array([1, self.channels, -1]), "flat"))
        last = "patches" if self.gives == "class token" else "out"
        nodes = [
            helper.make_node("Reshape", ["cells", "flat"], ["rows"]),
            helper.make_node("Transpose", ["rows"], [last], perm=[0, 2, 1]),
        ]
        if self.gives == "class token":
            token = np.full((1, 1, self.channels), 9, np.float32)
            constants.append(numpy_helper.from_array(token, "class"))
            nodes.append(helper.make_node("Concat", ["class", last], ["out"], axis=1))
        return nodes
