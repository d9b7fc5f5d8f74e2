"""`Ops` emitted as ONNX nodes: the folded model, written down instead of executed.

Graphs are built node by node, not traced: no exporter's optimiser sees the epsilons, every axis
that must be dynamic is, and half precision stands exactly where the model asks for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sgraf_deploy.config import GraphSignature, Precision, TensorSpec
from sgraf_deploy.export.opsets import OPSETS
from sgraf_deploy.model.ops import GruLayer, Weight, e4m3_scales

_DTYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int32": TensorProto.INT32,
}


class OnnxOps:
    """See `Ops`; values are tensor names, sizes are names of int64 tensors of one element."""

    def __init__(self, precision: Precision, opset: int | None = None) -> None:
        self.precision = precision
        self.opset = opset or OPSETS[precision]
        self.scope = ""
        """Before the names of weights and values that are made: tells members of a graph apart."""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, onnx.TensorProto] = {}
        self._half_of: dict[str, str] = {}
        self._views: dict[str, tuple[str, str, tuple[str, ...], dict[str, Any]]] = {}

    @property
    def halves(self) -> bool:  # noqa: D102
        return self.precision != "fp32"

    def model(self, name: str, signature: GraphSignature, outputs: list[str]) -> onnx.ModelProto:
        """The finished model: `outputs` are bound to the signature's names, in order."""
        renamed = dict(zip(outputs, (spec.name for spec in signature.outputs), strict=True))
        nodes = self._reachable(set(outputs))
        for node in nodes:
            node.input[:] = [renamed.get(value, value) for value in node.input]
            node.output[:] = [renamed.get(value, value) for value in node.output]
        used = {value for node in nodes for value in node.input}
        graph = helper.make_graph(
            nodes,
            name,
            [_value_info(spec) for spec in signature.inputs],
            [_value_info(spec) for spec in signature.outputs],
            [tensor for key, tensor in self.initializers.items() if key in used],
        )
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(
            graph,
            opset_imports=opsets,
            ir_version=helper.find_min_ir_version_for(opsets),  # for the oldest runtimes
            producer_name="sgraf-deploy",
        )
        onnx.checker.check_model(model, full_check=True)
        return model

    def _reachable(self, needed: set[str]) -> list[onnx.NodeProto]:
        """The nodes that the needed values depend on, in order."""
        kept = []
        for node in reversed(self.nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        return kept[::-1]

    def constant(self, name: str, array: Weight) -> str:  # noqa: D102
        return self._stored(f"{self.scope}{name}", array)

    def load(self, stored: str) -> str:  # noqa: D102
        if not self.halves:
            return stored
        loaded = self._node("Cast", stored, to=TensorProto.FLOAT)
        self._half_of[loaded] = stored
        return loaded

    def store(self, x: str) -> str:  # noqa: D102
        return self._half(x) if self.halves else x

    def matmul(self, a: str, b: str, *, exact: bool = False) -> str:  # noqa: D102
        if exact or not self.halves:
            return self._node("MatMul", a, b)
        return self.load(self._node("MatMul", self._half(a), self._half(b)))

    def linear(  # noqa: D102
        self, x: str, weight: str, bias: str, *, bound: float | None = None
    ) -> str:
        if bound is not None and self.precision == "fp8":
            return self.add(self.load(self._fp8_product(x, weight, bound)), bias)
        if self.halves:
            return self.add(self.matmul(x, weight), bias)
        inputs, outputs = self.initializers[weight].dims
        if bias not in self.initializers:
            bias = self.reshape(bias, -1, outputs)
        flat = self._node("Gemm", self.reshape(x, -1, inputs), weight, bias)
        leading = self._node("Shape", x, start=0, end=-1)
        return self.reshape(flat, leading, outputs)

    def add(self, a: str, b: str) -> str:  # noqa: D102
        return self._node("Add", a, b)

    def sub(self, a: str, b: str) -> str:  # noqa: D102
        return self._node("Sub", a, b)

    def mul(self, a: str, b: str) -> str:  # noqa: D102
        return self._node("Mul", a, b)

    def div(self, a: str, b: str) -> str:  # noqa: D102
        return self._node("Div", a, b)

    def maximum(self, a: str, b: str) -> str:  # noqa: D102
        return self._node("Max", a, b)

    def log(self, x: str) -> str:  # noqa: D102
        return self._node("Log", x)

    def sqrt(self, x: str) -> str:  # noqa: D102
        return self._node("Sqrt", x)

    def tanh(self, x: str) -> str:  # noqa: D102
        return self._node("Tanh", x)

    def sigmoid(self, x: str) -> str:  # noqa: D102
        return self._node("Sigmoid", x)

    def relu(self, x: str) -> str:  # noqa: D102
        if x in self._views:
            # Before the view, so that a runtime can fuse it into the product.
            op, source, extra, attributes = self._views[x]
            return self._view(op, self._node("Relu", source), *extra, **attributes)
        return self._node("Relu", x)

    def leaky_relu(self, x: str, slope: float) -> str:  # noqa: D102
        return self._node("LeakyRelu", x, alpha=slope)

    def softmax(self, x: str) -> str:  # noqa: D102
        return self._node("Softmax", x, axis=-1)

    def sum(self, x: str, axis: int) -> str:  # noqa: D102
        return self._node("ReduceSum", x, self._integers([axis]), keepdims=1)

    def inner(self, a: str, b: str) -> str:  # noqa: D102
        # ONNX Runtime computes ReduceSumSquare in twice the time of these two.
        return self._node("ReduceSum", self.mul(a, b), self._integers([-1]), keepdims=0)

    def unsqueeze(self, x: str) -> str:  # noqa: D102
        return self._node("Unsqueeze", x, self._integers([-1]))

    def reshape(self, x: str, *shape: int | str) -> str:  # noqa: D102
        if all(isinstance(size, int) for size in shape):
            return self._view("Reshape", x, self._integers([int(size) for size in shape]))
        sizes = [size if isinstance(size, str) else self._integers([size]) for size in shape]
        return self._view("Reshape", x, self._node("Concat", *sizes, axis=0))

    def size(self, x: str, axis: int) -> str:  # noqa: D102
        return self._node("Shape", x, start=axis, end=axis + 1)

    def transpose(self, x: str, *axes: int) -> str:  # noqa: D102
        return self._view("Transpose", x, perm=list(axes))

    def concat(self, values: list[str], axis: int) -> str:  # noqa: D102
        return self._node("Concat", *values, axis=axis)

    def split(self, x: str, width: int, total: int) -> list[str]:  # noqa: D102
        sizes = [min(width, total - start) for start in range(0, total, width)]
        name = f"{self.scope}split_{len(self.nodes)}"
        outputs = [f"{name}_{index}" for index in range(len(sizes))]
        node = helper.make_node("Split", [x, self._integers(sizes)], outputs, axis=-1)
        self.nodes.append(node)
        return outputs

    def first(self, x: str, axis: int) -> str:  # noqa: D102
        return self._node(
            "Slice", x, self._integers([0]), self._integers([1]), self._integers([axis])
        )

    def gather(self, x: str, index: str) -> str:  # noqa: D102
        return self._node("Gather", x, index, axis=0)

    def word_mask(self, lengths: str, words: str) -> str:  # noqa: D102
        zero, one = (self._stored(f"int_{n}", np.array(n, dtype=np.int32)) for n in (0, 1))
        longest = self._node("Cast", self._node("Squeeze", words), to=TensorProto.INT32)
        steps = self._node("Range", zero, longest, one)
        # Not a Clip, which ONNX Runtime does not have for int32 on a GPU.
        column = self._node("Max", self.reshape(lengths, -1, 1), one)
        return self._node("Cast", self._node("Less", steps, column), to=TensorProto.FLOAT)

    def integers(self, x: str) -> str:  # noqa: D102
        return self._node("Cast", x, to=TensorProto.INT32)

    def gru(self, x: str, lengths: str, layer: GruLayer) -> str:  # noqa: D102
        name = f"text_encoder.gru.{layer.index}"
        bias = np.concatenate(
            [_onnx_gates(layer.input_bias, axis=1), _onnx_gates(layer.hidden_bias, axis=1)], axis=1
        )
        states = self._node(
            "GRU",
            self.transpose(x, 1, 0, 2),
            self.constant(f"{name}.input", _onnx_gates(layer.input, axis=1)),
            self.constant(f"{name}.hidden", _onnx_gates(layer.hidden, axis=1)),
            self.constant(f"{name}.bias", bias),
            lengths,
            hidden_size=layer.units,
            direction="bidirectional" if layer.directions > 1 else "forward",
            linear_before_reset=1,
        )  # (words, directions, captions, embed)
        by_caption = self.transpose(states, 2, 0, 1, 3)
        return self.reshape(by_caption, 0, 0, layer.directions * layer.units)

    def _fp8_product(self, x: str, weight: str, bound: float) -> str:
        """A product of dequantized values: what a runtime computes in FP8, with float16 results."""
        step, zero = e4m3_scales(np.array(bound)), self._e4m3("e4m3_zero", np.array(0.0))
        kept = self._node("QuantizeLinear", x, self._stored(f"step_{bound:g}", step), zero)
        halved = self._stored(f"step_{bound:g}.float16", step.astype(np.float16))
        array = numpy_helper.to_array(self.initializers[weight])
        steps = e4m3_scales(np.abs(array).max(axis=0))
        columns = self._stored(f"{weight}.e4m3_steps", steps.astype(np.float16))
        return self._node(
            "MatMul",
            self._node("DequantizeLinear", kept, halved),
            self._node(
                "DequantizeLinear", self._e4m3(f"{weight}.e4m3", array / steps), columns, axis=1
            ),
        )

    def _e4m3(self, name: str, array: Weight) -> str:
        if name not in self.initializers:
            kind, values = TensorProto.FLOAT8E4M3FN, array.ravel().tolist()
            self.initializers[name] = helper.make_tensor(name, kind, array.shape, values)
        return name

    def _half(self, x: str) -> str:
        """The float16 twin of a float32 value: stored, derived from a stored one, or rounded."""
        if x not in self._half_of:
            if x in self.initializers:
                array = numpy_helper.to_array(self.initializers[x])
                half = self._stored(f"{x}.float16", array.astype(np.float16))
            elif self._moves_halves(x):
                op, source, extra, attributes = self._views[x]
                half = self._node(op, self._half(source), *extra, **attributes)
            else:
                half = self._node("Cast", x, to=TensorProto.FLOAT16)
            self._half_of[x] = half
        return self._half_of[x]

    def _moves_halves(self, x: str) -> bool:
        """Whether a value only rearranges one that has a float16 twin."""
        while x in self._views:
            x = self._views[x][1]
            if x in self._half_of:
                return True
        return False

    def _integers(self, values: list[int]) -> str:
        name = "integers_" + "_".join(str(value).replace("-", "minus") for value in values)
        return self._stored(name, np.array(values, dtype=np.int64))

    def _stored(self, name: str, array: Weight) -> str:
        """An initializer of exactly this name, made once: constants of their value's name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def _view(self, op: str, x: str, *extra: str, **attributes: Any) -> str:
        """A node that moves values without changing them, so that half twins pass through it."""
        view = self._node(op, x, *extra, **attributes)
        self._views[view] = (op, x, extra, attributes)
        return view

    def _node(self, op: str, *inputs: str, **attributes: Any) -> str:
        output = f"{self.scope}{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [output], name=output, **attributes))
        return output


def _onnx_gates(stacked: Weight, axis: int) -> Weight:
    """Reorder PyTorch's gates (reset, update, new) to ONNX's (update, reset, hidden)."""
    reset, update, new = np.split(stacked, 3, axis=axis)
    return np.concatenate([update, reset, new], axis=axis)


def _value_info(spec: TensorSpec) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(spec.name, _DTYPES[spec.dtype], spec.axes)
