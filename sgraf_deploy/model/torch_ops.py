"""`Ops` executed by PyTorch: in float32, in native half, or rounded like a tensor core."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from sgraf_deploy.model.ops import E4M3_LARGEST, GruLayer, Weight, e4m3_scales

Arithmetic = Literal["fp32", "fp16", "fp16-rounded", "fp8-rounded"]
"""How products are computed. `fp16-rounded`: operands and stored results are rounded to float16 and
products accumulated in float32, as on a tensor core; a CPU has no fast kernel for that.
`fp8-rounded`: the same, but bounded operands are rounded to E4M3."""


class TorchOps:
    """See `Ops`; values are tensors on `device`, sizes are ints."""

    def __init__(self, arithmetic: Arithmetic, device: torch.device) -> None:
        self.arithmetic = arithmetic
        self.device = device
        self._constants: dict[str, Tensor] = {}
        self._gru: dict[int, torch.nn.GRU] = {}

    @property
    def halves(self) -> bool:  # noqa: D102
        return self.arithmetic != "fp32"

    def constant(self, name: str, array: Weight) -> Tensor:  # noqa: D102
        if name not in self._constants:
            self._constants[name] = torch.from_numpy(array.copy()).to(self.device)
        return self._constants[name]

    def load(self, stored: Tensor) -> Tensor:  # noqa: D102
        return stored.float()

    def store(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.half() if self.halves else x

    def matmul(self, a: Tensor, b: Tensor, *, exact: bool = False) -> Tensor:  # noqa: D102
        if exact or not self.halves:
            return torch.matmul(a, b)
        if self.arithmetic == "fp16":
            return torch.matmul(a.half(), b.half()).float()
        return torch.matmul(a.half().float(), b.half().float()).half().float()

    def linear(  # noqa: D102
        self, x: Tensor, weight: Tensor, bias: Tensor, *, bound: float | None = None
    ) -> Tensor:
        if bound is not None and self.arithmetic == "fp8-rounded":
            return self._fp8_product(x, weight, bound) + bias
        if self.halves:
            return self.matmul(x, weight) + bias
        if bias.dim() > 1:
            bias = bias.reshape(-1, bias.shape[-1])
        flat = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight)
        return flat.reshape(*x.shape[:-1], weight.shape[1])

    def add(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: D102
        return a + b

    def sub(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: D102
        return a - b

    def mul(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: D102
        return a * b

    def div(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: D102
        return a / b

    def maximum(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: D102
        return torch.maximum(a, b)

    def log(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.log()

    def sqrt(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.sqrt()

    def tanh(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.tanh()

    def sigmoid(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.sigmoid()

    def relu(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.relu()

    def leaky_relu(self, x: Tensor, slope: float) -> Tensor:  # noqa: D102
        return leaky_relu(x, slope)

    def softmax(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.softmax(dim=-1)

    def sum(self, x: Tensor, axis: int) -> Tensor:  # noqa: D102
        return x.sum(dim=axis, keepdim=True)

    def inner(self, a: Tensor, b: Tensor) -> Tensor:  # noqa: D102
        return (a * b).sum(dim=-1)

    def unsqueeze(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.unsqueeze(-1)

    def reshape(self, x: Tensor, *shape: int | Tensor) -> Tensor:  # noqa: D102
        return x.reshape([int(size) for size in shape])

    def size(self, x: Tensor, axis: int) -> Tensor:  # noqa: D102
        return x.shape[axis]  # type: ignore[return-value]  # a size is an int here

    def transpose(self, x: Tensor, *axes: int) -> Tensor:  # noqa: D102
        return x.permute(*axes)

    def concat(self, values: list[Tensor], axis: int) -> Tensor:  # noqa: D102
        return torch.cat(values, dim=axis)

    def split(self, x: Tensor, width: int, total: int) -> list[Tensor]:  # noqa: D102
        return list(torch.split(x, width, dim=-1))

    def first(self, x: Tensor, axis: int) -> Tensor:  # noqa: D102
        return x.narrow(axis, 0, 1)

    def gather(self, x: Tensor, index: Tensor) -> Tensor:  # noqa: D102
        return x[index.long()]

    def word_mask(self, lengths: Tensor, words: Tensor) -> Tensor:  # noqa: D102
        steps = torch.arange(int(words), device=self.device)
        return (steps.unsqueeze(0) < lengths.clamp(min=1).unsqueeze(1)).float()

    def integers(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.int()

    def gru(self, x: Tensor, lengths: Tensor, layer: GruLayer) -> Tensor:  # noqa: D102
        if layer.index not in self._gru:
            self._gru[layer.index] = self._build_gru(layer)
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, lengths.cpu().long(), batch_first=True, enforce_sorted=False
        )
        states, _ = torch.nn.utils.rnn.pad_packed_sequence(
            self._gru[layer.index](packed)[0], batch_first=True, total_length=x.shape[1]
        )
        return states

    def _fp8_product(self, x: Tensor, weight: Tensor, bound: float) -> Tensor:
        columns = e4m3_scales(weight.abs().amax(0).cpu().numpy())
        operands = (
            _e4m3(x, torch.from_numpy(e4m3_scales(np.array(bound))).to(self.device)),
            _e4m3(weight, torch.from_numpy(columns).to(self.device)),
        )
        return torch.matmul(*operands).half().float()

    def _build_gru(self, layer: GruLayer) -> torch.nn.GRU:
        gru = torch.nn.GRU(
            layer.input.shape[2],
            layer.units,
            batch_first=True,
            bidirectional=layer.directions == 2,
        )
        state = {}
        for index, suffix in enumerate(["", "_reverse"][: layer.directions]):
            state[f"weight_ih_l0{suffix}"] = torch.from_numpy(layer.input[index].copy())
            state[f"weight_hh_l0{suffix}"] = torch.from_numpy(layer.hidden[index].copy())
            state[f"bias_ih_l0{suffix}"] = torch.from_numpy(layer.input_bias[index].copy())
            state[f"bias_hh_l0{suffix}"] = torch.from_numpy(layer.hidden_bias[index].copy())
        gru.load_state_dict(state)
        return gru.to(self.device).eval().requires_grad_(False)


def _e4m3(x: Tensor, scale: Tensor) -> Tensor:
    """Round to the nearest E4M3 values times the scale; saturates, whatever PyTorch's cast does."""
    scaled = (x / scale).clamp(-E4M3_LARGEST, E4M3_LARGEST)
    return scaled.to(torch.float8_e4m3fn).float() * scale
