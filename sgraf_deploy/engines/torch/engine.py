"""Engine `torch`, the folded model in PyTorch, and the base class of engines in PyTorch.

They run a bundle's original weights (`reference/`), not its ONNX graphs.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgraf_deploy.config import (
    EXPLAIN,
    GraphName,
    GraphSignature,
    Precision,
    explain_signature,
)
from sgraf_deploy.engines.base import CACHED_TILES, Engine, Graph, TileAdvice, gpu_tiles
from sgraf_deploy.engines.buffers import HOST, Array, BufferKind, Extremes, Sizes, host_extremes
from sgraf_deploy.engines.ranks import RankCounter, Thresholds
from sgraf_deploy.engines.torch.members import member_weights
from sgraf_deploy.engines.torch.memory import memory_errors
from sgraf_deploy.engines.torch.ranks import TorchRankCounter
from sgraf_deploy.engines.torch.transfer import download, upload
from sgraf_deploy.errors import InputError, UnavailableError
from sgraf_deploy.model.exact import exactly
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.folding import fold
from sgraf_deploy.model.torch_model import TorchModel
from sgraf_deploy.model.torch_ops import Arithmetic

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.engines.base import EngineOptions

Function = Callable[..., tuple[Tensor, ...]]
"""One graph: from input tensors, in the signature's order, to outputs in theirs."""


def _extremes(tensor: Tensor) -> Extremes | None:
    """The extremes of a tensor; None for one on a GPU, which would have to be waited for."""
    return host_extremes(tensor.numpy()) if tensor.device.type == "cpu" else None


TENSORS = BufferKind(Tensor, {name: getattr(torch, name) for name in HOST.dtypes}, _extremes)


class TorchGraph(Graph):
    """One graph of one member as a function on tensors."""

    kind = TENSORS

    def __init__(self, signature: GraphSignature, function: Function) -> None:
        super().__init__(signature)
        self._function = exactly(function)

    def _run(
        self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], sizes: Sizes
    ) -> dict[str, Tensor]:
        arguments = [inputs[spec.name] for spec in self.signature.inputs]
        with memory_errors():
            results = self._function(*arguments)
        # The encoder also makes a Gram matrix, which older bundles have no output for.
        return self._named(results[: len(self.signature.outputs)], outputs)


class TensorEngine(Engine):
    """Base class of the engines in PyTorch: weights, the device, and tensors as buffers.

    PyTorch's own threads share one run. A subclass writes `_functions`.
    """

    def __init__(self, bundle: Bundle, precision: Precision, options: EngineOptions) -> None:
        """Take the weights of `bundle`; UnavailableError for a GPU that PyTorch does not see."""
        super().__init__(bundle, precision, options)
        self.device = options.device or "cpu"
        self._device = parse_device(self.device)
        self._arithmetic: Arithmetic = "fp32"
        if precision == "fp16":
            self._arithmetic = "fp16" if self._device.type == "cuda" else "fp16-rounded"
        elif precision == "fp8":
            self._arithmetic = "fp8-rounded"
        self.executed: str = self._arithmetic
        if options.threads is not None:
            torch.set_num_threads(options.threads)
        if self._device.type == "cuda":
            self.workers = 2  # While the logits of one tile are awaited, the next is prepared.
        self._members: dict[str, Mapping[GraphName, Function]] = {}

    @classmethod
    def check_available(cls, device: str) -> None:
        """Raise UnavailableError for a GPU that PyTorch does not see; PyTorch was imported."""
        parse_device(device)

    @property
    def tile_advice(self) -> TileAdvice:
        """Tiles that stay in a CPU's caches; on a GPU large ones."""
        if self._device.type == "cpu":
            return CACHED_TILES
        return gpu_tiles(torch.cuda.mem_get_info(self._device)[1])

    def _open(self, member: str, graph: GraphName) -> Graph:
        if member not in self._members:
            self._members[member] = self._functions(member)
        return TorchGraph(self.signature(member, graph), self._members[member][graph])

    def explainer(self, member: str) -> Graph | None:
        """The graph on the original weights, which are read once more for it, in float32."""
        config = self._bundle.member(member).config

        def opening() -> Graph:
            return TorchGraph(explain_signature(config), self._explaining(member))

        return self._opened((member, EXPLAIN), opening)

    def _explaining(self, member: str) -> Function:
        """The folded model's graph `explain`, whatever the engine scores with."""
        config = self._bundle.member(member).config
        model = TorchModel(fold(config, self._weights(member)), "fp32", self._device)

        def explain(*inputs: Tensor) -> tuple[Tensor, ...]:
            return model.explain(Encoded(*inputs[:-2]), *inputs[-2:])

        return explain

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        """A tensor on the device."""
        kind = torch.from_numpy(np.empty(0, dtype=dtype)).dtype
        return torch.empty(shape, dtype=kind, device=self._device)

    def put(self, array: Array) -> Tensor:
        """A tensor on the device; on the CPU it shares the array's memory where it can."""
        if not array.flags.writeable or not array.flags.c_contiguous:
            array = np.array(array)
        return upload(array, self._device)

    def gather(self, buffer: Tensor, rows: slice | NDArray[np.int32]) -> Tensor:
        """Rows of a tensor: a view for a slice, a copy for indices."""
        if isinstance(rows, slice):
            return buffer[rows]
        return buffer[upload(rows.astype(np.int64), self._device)]

    def fill(self, buffer: Tensor, array: Array) -> None:
        """Copy into a tensor, in the stream in which it is also gathered from."""
        buffer.copy_(torch.from_numpy(np.array(array)))

    def fetch(self, buffer: Tensor) -> Array:
        """The tensor as a host array; waits for the device."""
        return download(buffer)

    def rank_counter(self, thresholds: Thresholds) -> RankCounter:
        """Counts with PyTorch on a GPU, in whose stream tiles stay in order; else on the host."""
        if self._device.type == "cpu":
            return super().rank_counter(thresholds)
        return TorchRankCounter(thresholds, self._device)

    def device_memory(self) -> dict[str, int]:
        """On a GPU the most that PyTorch took, what is free and what there is, in bytes."""
        if self._device.type != "cuda":
            return {}
        free, total = torch.cuda.mem_get_info(self._device)
        peak = torch.cuda.max_memory_allocated(self._device)
        return {"peak": peak, "free": free, "total": total}

    def close(self) -> None:
        """Release graphs and weights."""
        super().close()
        self._members.clear()

    def _weights(self, member: str) -> dict[str, NDArray[np.generic]]:
        return member_weights(self._bundle, member, self._options.checkpoints)

    @abstractmethod
    def _functions(self, member: str) -> Mapping[GraphName, Function]:
        """A member's graphs on its weights, which are read here, once."""


class TorchEngine(TensorEngine):
    """The exact rewrites in PyTorch, batched; fp16 is rounded on a CPU, fp8 on every device."""

    name = "torch"

    def _functions(self, member: str) -> Mapping[GraphName, Function]:
        config = self._bundle.manifest.members[member].config
        folded = fold(config, self._weights(member))
        model = TorchModel(folded, self._arithmetic, self._device)

        def scorer(*embeddings: Tensor) -> tuple[Tensor, ...]:
            return (model.scorer(Encoded(*embeddings)),)

        def pair_scorer(*inputs: Tensor) -> tuple[Tensor, ...]:
            return (model.pair_scorer(Encoded(*inputs[:-2]), *inputs[-2:]),)

        return {
            "image_encoder": model.image_encoder,
            "text_encoder": model.text_encoder,
            "scorer": scorer,
            "pair_scorer": pair_scorer,
        }


def parse_device(name: str) -> torch.device:
    """PyTorch's device of that name.

    Raises InputError for another name, UnavailableError for a GPU that PyTorch does not see.
    """
    expected = "cpu, cuda or cuda:N"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError("device", expected=expected, got=name) from error
    if device.type not in ("cpu", "cuda"):
        raise InputError("device", expected=expected, got=name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UnavailableError(
            f"PyTorch sees no device {name}",
            got=f"{torch.cuda.device_count()} CUDA GPUs",
            hint="use --device cpu, or install PyTorch's CUDA build",
        )
    return device
