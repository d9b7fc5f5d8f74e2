"""The few array operations that the folded model is written in.

A single definition of the mathematics (`folded`) is executed by PyTorch (`torch_ops`) and emitted
as ONNX nodes (`export.onnx_ops`), so that the two cannot drift apart.

Precision is decided here: `matmul` is the only operation that may run in half precision. Its
operands are rounded to float16, products are accumulated in float32 and the result is stored as
float16. Every other operation, and a product with `exact`, is float32.

In precision fp8, the operands of products with a bound (`linear`) are divided by powers of two and
rounded to FP8 (E4M3, 4 significant bits); everything else is as in half precision.
"""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

V = TypeVar("V")
Weight = NDArray[Any]

E4M3_LARGEST = 448.0
_SMALLEST_EXPONENT = -14
"""The smallest exponent of a scale: with a smaller scale, the smallest E4M3 values would underflow
in float16."""


class Ops(Protocol[V]):
    """Operations on values of one backend; shapes broadcast as in numpy."""

    @property
    def halves(self) -> bool:
        """Whether products that are not `exact` run in half precision."""

    def constant(self, name: str, array: Weight) -> V:
        """A weight or a small constant: float32, or its integer dtype."""

    def load(self, stored: V) -> V:
        """A stored embedding (float16 or float32) as float32."""

    def store(self, x: V) -> V:
        """Round to the precision in which embeddings are stored."""

    def matmul(self, a: V, b: V, *, exact: bool = False) -> V:
        """Matrix product of the last two axes, in the graph's precision unless `exact`."""

    def linear(self, x: V, weight: V, bias: V, *, bound: float | None = None) -> V:
        """x @ weight + bias over the last axis: the product as in `matmul`, the sum in float32.

        The bias is a vector, or a value of the result's shape. In precision fp8, the product is in
        FP8 if there is a `bound`, which no |x| exceeds; see `e4m3_scales`.
        """

    def add(self, a: V, b: V) -> V:
        """a + b."""

    def sub(self, a: V, b: V) -> V:
        """a - b."""

    def mul(self, a: V, b: V) -> V:
        """a * b."""

    def div(self, a: V, b: V) -> V:
        """a / b."""

    def maximum(self, a: V, b: V) -> V:
        """The greater of a and b."""

    def log(self, x: V) -> V:
        """Natural logarithm, of positive values."""

    def sqrt(self, x: V) -> V:
        """Square root, of non-negative values."""

    def tanh(self, x: V) -> V:
        """Hyperbolic tangent."""

    def sigmoid(self, x: V) -> V:
        """Logistic function."""

    def relu(self, x: V) -> V:
        """max(x, 0)."""

    def leaky_relu(self, x: V, slope: float) -> V:
        """x where positive, slope * x elsewhere."""

    def softmax(self, x: V) -> V:
        """Softmax over the last axis."""

    def sum(self, x: V, axis: int) -> V:
        """Sum over one axis, which is kept with size 1."""

    def inner(self, a: V, b: V) -> V:
        """Sum of a * b over the last axis, which is removed."""

    def unsqueeze(self, x: V) -> V:
        """Append an axis of size 1."""

    def reshape(self, x: V, *shape: int | V) -> V:
        """Reshape; a size is a number (-1 once) or a value made by `size`."""

    def size(self, x: V, axis: int) -> V:
        """The length of one axis, for `reshape`."""

    def transpose(self, x: V, *axes: int) -> V:
        """Permute the axes."""

    def concat(self, values: list[V], axis: int) -> V:
        """Join along an axis."""

    def split(self, x: V, width: int, total: int) -> list[V]:
        """Split the last axis, `total` long, into pieces of `width` and a last, shorter one."""

    def first(self, x: V, axis: int) -> V:
        """Index 0 of an axis, which is kept with size 1."""

    def gather(self, x: V, index: V) -> V:
        """Rows of the first axis: (rows, …) and index of any shape -> index.shape + (…)."""

    def word_mask(self, lengths: V, words: V) -> V:
        """(captions,) lengths and the size of the word axis -> (captions, words) of 1.0 and 0.0.

        A length below 1 counts as 1: a scorer checks them, but another program may give any.
        """

    def integers(self, x: V) -> V:
        """Whole numbers in float32 as int32."""

    def gru(self, x: V, lengths: V, layer: GruLayer) -> V:
        """One layer: (captions, words, input) -> (captions, words, directions * embed), float32.

        Each direction runs over the real words only; values past them are undefined.
        """


class GruLayer:
    """The weights of one GRU layer, by direction: gates stacked as reset, update, new."""

    def __init__(self, weights: dict[str, Weight], layer: int, bidirectional: bool) -> None:
        suffixes = ["", "_reverse"] if bidirectional else [""]
        prefix = "text_encoder.gru."
        self.index = layer
        self.input = self._stack(weights, f"{prefix}weight_ih_l{layer}", suffixes)
        self.hidden = self._stack(weights, f"{prefix}weight_hh_l{layer}", suffixes)
        self.input_bias = self._stack(weights, f"{prefix}bias_ih_l{layer}", suffixes)
        self.hidden_bias = self._stack(weights, f"{prefix}bias_hh_l{layer}", suffixes)

    @staticmethod
    def _stack(weights: dict[str, Weight], name: str, suffixes: list[str]) -> Weight:
        return np.stack([weights[name + suffix] for suffix in suffixes])

    @property
    def directions(self) -> int:
        """1, or 2 for a bidirectional layer."""
        return int(self.input.shape[0])

    @property
    def units(self) -> int:
        """The size of one direction's state."""
        return int(self.hidden.shape[2])


def e4m3_scales(largest: Weight) -> Weight:
    """The powers of two that bring values of at most `largest` into E4M3's range, float32.

    Dividing by a power of two loses no bits, so that scaled values are exact in float16 and every
    executor computes the same products.
    """
    _, exponents = np.frexp(np.asarray(largest, dtype=np.float32) / np.float32(E4M3_LARGEST))
    scales = np.exp2(np.maximum(exponents, _SMALLEST_EXPONENT))
    return np.asarray(scales, dtype=np.float32)
