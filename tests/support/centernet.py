"""CenterNet of npm's @vladmandic/human as ONNX: a real detector, from TensorFlow.js's format.

Only the operators that this graph has are known. Values stay NHWC as they are there, with a
transposition around each of ONNX's operators that want NCHW; runtimes cancel them out.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

INPUT, OUTPUT, SIZE, BOXES = "tower_0/images", "tower_0/detections", 512, 100
NCHW, NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
PLAIN = {
    "Add": "Add",
    "Equal": "Equal",
    "FloorDiv": "Div",  # of integers that are not negative
    "FloorMod": "Mod",
    "Identity": "Identity",
    "Mul": "Mul",
    "Relu": "Relu",
    "Sigmoid": "Sigmoid",
    "Sub": "Sub",
}

Node = dict[str, Any]


def read_weights(description: Node, blob: bytes) -> dict[str, NDArray[Any]]:
    """The constants by name: float16 as float32, int32 as int64, which ONNX wants for shapes."""
    arrays, offset = {}, 0
    for (weights,) in [[group["weights"]] for group in description["weightsManifest"]]:
        for weight in weights:
            stored = np.dtype(weight.get("quantization", weight)["dtype"]).newbyteorder("<")
            count = int(np.prod(weight["shape"], dtype=np.int64))
            array = np.frombuffer(blob, stored, count, offset).reshape(weight["shape"])
            arrays[weight["name"]] = array.astype(np.int64 if stored.kind == "i" else np.float32)
            offset += array.nbytes
    assert offset == len(blob)
    return arrays


class Converter:
    """Writes each node of TensorFlow.js as ONNX nodes of the same output name."""

    def __init__(self, constants: dict[str, NDArray[Any]]) -> None:
        self.constants = constants
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}

    def constant(self, name: str, array: Any) -> str:
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def value(self, name: str) -> str:
        """The name of a value, which is stored first where it is a constant."""
        if name in self.constants:
            self.constant(name, self.constants[name])
        return name

    def emit(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))

    def channels_first(self, operator: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """An operator on the first input's NCHW form; returns the name of its NHWC result."""
        self.emit("Transpose", [inputs[0]], f"{name}/nchw", perm=NCHW)
        self.emit(operator, [f"{name}/nchw", *inputs[1:]], f"{name}/out", **attributes)
        self.emit("Transpose", [f"{name}/out"], f"{name}/nhwc", perm=NHWC)
        return f"{name}/nhwc"

    def convert(self, node: Node) -> None:
        operator, name = node["op"], node["name"]
        if operator in PLAIN:
            self.emit(PLAIN[operator], [self.value(x) for x in node["input"]], name)
        else:
            plain = operator.removeprefix("_").removeprefix("Fused").lower()
            method: Callable[[str, list[str], Node], None] = getattr(self, f"_{plain}")
            method(name, node["input"], node["attr"])

    def _conv2d(self, name: str, inputs: list[str], attributes: Node) -> None:
        self._convolution(name, inputs, attributes, depthwise=False)

    def _depthwiseconv2dnative(self, name: str, inputs: list[str], attributes: Node) -> None:
        self._convolution(name, inputs, attributes, depthwise=True)

    def _convolution(
        self, name: str, inputs: list[str], attributes: Node, *, depthwise: bool
    ) -> None:
        """A convolution, with the bias and the ReLU that are fused into it."""
        weight = self.constants[inputs[1]]  # (height, width, in, out or multiplier)
        groups = weight.shape[2] if depthwise else 1
        turned = weight.transpose((2, 3, 0, 1) if depthwise else (3, 2, 0, 1))
        if depthwise:
            turned = turned.reshape(-1, 1, *weight.shape[:2])
        padding = base64.b64decode(attributes["padding"]["s"]).decode()
        fused = [base64.b64decode(s) for s in _fused(attributes)]
        assert fused in ([], [b"BiasAdd"], [b"BiasAdd", b"Relu"])
        found = self.channels_first(
            "Conv",
            [inputs[0], self.constant(f"{name}/w", turned), *(self.value(x) for x in inputs[2:])],
            name,
            auto_pad={"SAME": "SAME_UPPER", "VALID": "VALID"}[padding],
            strides=[int(i) for i in attributes["strides"]["list"]["i"][1:3]],
            group=groups,
        )
        self.emit("Relu" if b"Relu" in fused else "Identity", [found], name)

    def _relu6(self, name: str, inputs: list[str], _: Node) -> None:
        limits = [self.constant(f"{name}/{x}", np.float32(x)) for x in (0, 6)]
        self.emit("Clip", [*inputs, *limits], name)

    def _maxpool(self, name: str, inputs: list[str], attributes: Node) -> None:
        size, step = (attributes[key]["list"]["i"] for key in ("ksize", "strides"))
        assert (size, step) == (["1", "3", "3", "1"], ["1"] * 4)
        found = self.channels_first("MaxPool", inputs, name, kernel_shape=[3, 3], pads=[1] * 4)
        self.emit("Identity", [found], name)

    def _resizebilinear(self, name: str, inputs: list[str], attributes: Node) -> None:
        assert not attributes["align_corners"]["b"]
        assert not attributes["half_pixel_centers"]["b"]
        self.emit("Transpose", [inputs[0]], f"{name}/first", perm=NCHW)
        self.emit("Shape", [f"{name}/first"], f"{name}/before", end=2)
        sizes = [f"{name}/before", self.value(inputs[1])]
        self.emit("Concat", sizes, f"{name}/sizes", axis=0)
        mode = {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}
        self.emit("Resize", [f"{name}/first", "", "", f"{name}/sizes"], f"{name}/big", **mode)
        self.emit("Transpose", [f"{name}/big"], name, perm=NHWC)

    def _mean(self, name: str, inputs: list[str], _: Node) -> None:
        self.emit("ReduceMean", [inputs[0], self.value(inputs[1])], name, keepdims=1)

    def _concatv2(self, name: str, inputs: list[str], _: Node) -> None:
        self.emit("Concat", inputs[:-1], name, axis=int(self.constants[inputs[-1]]))

    def _reshape(self, name: str, inputs: list[str], _: Node) -> None:
        self.emit("Reshape", [inputs[0], self.value(inputs[1])], name)

    def _cast(self, name: str, inputs: list[str], attributes: Node) -> None:
        assert attributes["DstT"]["type"] == "DT_FLOAT"
        self.emit("Cast", inputs, name, to=TensorProto.FLOAT)

    def _topkv2(self, name: str, inputs: list[str], _: Node) -> None:
        count = self.constant(f"{name}/k", self.constants[inputs[1]].reshape(1))
        self.nodes.append(helper.make_node("TopK", [inputs[0], count], [name, f"{name}:1"]))

    def _expanddims(self, name: str, inputs: list[str], _: Node) -> None:
        axes = self.constant(f"{name}/axes", self.constants[inputs[1]].reshape(1))
        self.emit("Unsqueeze", [inputs[0], axes], name)

    def _gatherv2(self, name: str, inputs: list[str], _: Node) -> None:
        self.emit("Gather", inputs[:2], name, axis=int(self.constants[inputs[2]]))

    def _stridedslice(self, name: str, inputs: list[str], attributes: Node) -> None:
        masked = attributes["begin_mask"]["i"]
        assert masked == attributes["end_mask"]["i"]
        axes = [axis for axis in range(3) if not int(masked) >> axis & 1]
        begin, end = (self.constants[x][axes] for x in inputs[1:3])
        stored = {"begin": begin, "end": end, "axes": np.asarray(axes, np.int64)}
        names = [self.constant(f"{name}/{key}", array) for key, array in stored.items()]
        self.emit("Slice", [inputs[0], *names], name)


def _fused(attributes: Node) -> list[str]:
    found: list[str] = attributes.get("fused_ops", {}).get("list", {}).get("s", [])
    return found


def _ordered(nodes: dict[str, Node]) -> list[Node]:
    """What the output needs, each node after what it needs."""
    sorter, waiting, seen = TopologicalSorter[str](), [OUTPUT], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            needs = [x.split(":")[0] for x in nodes[name].get("input", [])]
            sorter.add(name, *needs)
            waiting += needs
    return [nodes[name] for name in sorter.static_order()]


def convert_centernet(package: Path, target: Path) -> Path:
    """Write the package's CenterNet: (1, 512, 512, 3), RGB, 0 … 255, to detections (1, 100, 6).

    A detection is x1, y1, x2, y2 in the input's pixels, a score in 0 … 1, and the class's place
    among `labels`.
    """
    description = json.loads((package / "models" / "centernet.json").read_text())
    blob = (package / "models" / "centernet.bin").read_bytes()
    converter = Converter(read_weights(description, blob))
    nodes = {node["name"]: node for node in description["modelTopology"]["node"]}
    for node in _ordered(nodes):
        if node["op"] not in {"Const", "Placeholder"}:
            converter.convert(node)
    shapes = {INPUT: [1, SIZE, SIZE, 3], OUTPUT: [1, BOXES, 6]}
    declared = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in shapes.items()
    ]
    made = helper.make_graph(
        converter.nodes,
        "centernet",
        declared[:1],
        declared[1:],
        list(converter.initializers.values()),
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, target)
    return target


def labels(package: Path) -> list[str]:
    """The names of the classes, in order."""
    text = (package / "src" / "object" / "labels.ts").read_text(encoding="utf-8")
    return re.findall(r"label: '([^']+)'", text)
