"""The engines that need PyTorch: `torch`, the folded model, and `torch-reference`, the yardstick.

They run a bundle's original weights (`reference/`) and satisfy `engines.base.Engine`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgraf_deploy.config import GraphName, GraphSignature, Precision
from sgraf_deploy.engines.base import CACHED_TILES, LARGEST_TILES, TileAdvice
from sgraf_deploy.engines.buffers import HOST, BufferKind, Extremes, InputCheck, host_extremes
from sgraf_deploy.engines.ranks import HostRankCounter, RankCounter, Thresholds
from sgraf_deploy.engines.torch.members import member_weights
from sgraf_deploy.engines.torch.ranks import TorchRankCounter
from sgraf_deploy.errors import EngineMemoryError, InputError, UnavailableError
from sgraf_deploy.model.exact import exactly
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.folding import fold
from sgraf_deploy.model.torch_model import TorchModel
from sgraf_deploy.model.torch_ops import Arithmetic

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.engines.base import EngineOptions

Function = Callable[..., tuple[Tensor, ...]]


def _extremes(tensor: Tensor) -> Extremes | None:
    """None on a GPU, which would have to be waited for."""
    return host_extremes(tensor.numpy()) if tensor.device.type == "cpu" else None


TENSORS = BufferKind(Tensor, {name: getattr(torch, name) for name in HOST.dtypes}, _extremes)


class TorchGraph:
    """One graph of one member as a function on tensors; see `engines.base.Graph`."""

    def __init__(self, signature: GraphSignature, function: Function) -> None:
        self.signature = signature
        self._check = InputCheck(signature, TENSORS)
        self._function = exactly(function)

    def run(
        self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """Run on tensors by input name; copy into `outputs` where one is bound.

        Raises InputError for what the signature does not allow.
        """
        self._check.outputs(outputs, self._check.inputs(inputs))
        arguments = [inputs[spec.name] for spec in self.signature.inputs]
        try:
            results = self._function(*arguments)
        except (torch.cuda.OutOfMemoryError, MemoryError) as error:
            raise EngineMemoryError("PyTorch ran out of memory", got=error) from error
        except RuntimeError as error:
            if "DefaultCPUAllocator" not in str(error):
                raise
            raise EngineMemoryError("PyTorch ran out of memory", got=error) from error
        # A bundle of before there was a Gram matrix has no place for it.
        pairs = zip(self.signature.outputs, results, strict=False)
        named = {spec.name: tensor for spec, tensor in pairs}
        for name, buffer in (outputs or {}).items():
            named[name] = buffer.copy_(named[name])
        return named


class BundleEngine:
    """What both engines share: weights, the device, and buffers that are tensors."""

    name: str
    workers = 1
    """PyTorch's own threads share one run."""
    unverified = False

    def __init__(self, bundle: Bundle, precision: Precision, options: EngineOptions) -> None:
        self.device = options.device or "cpu"
        self._device = parse_device(self.device)
        self._arithmetic: Arithmetic = "fp32"
        if precision == "fp16":
            self._arithmetic = "fp16" if self._device.type == "cuda" else "fp16-rounded"
        elif precision == "fp8":
            self._arithmetic = "fp8-rounded"
        self.executed: str = self._arithmetic
        if options.threads is not None:
            if options.threads < 1:
                raise InputError(
                    f"engine {self.name}: threads", expected="at least 1", got=options.threads
                )
            torch.set_num_threads(options.threads)
        self._bundle = bundle
        self._precision = precision
        self._options = options
        self._graphs: dict[tuple[str, GraphName], TorchGraph] = {}
        self._members: dict[str, Mapping[GraphName, Function]] = {}
        self._lock = threading.Lock()

    @classmethod
    def check_available(cls, device: str) -> None:
        """UnavailableError for a GPU that PyTorch does not see; PyTorch itself was imported."""
        parse_device(device)

    @property
    def tile_advice(self) -> TileAdvice:
        """What stays in a CPU's caches; a GPU takes what memory allows."""
        return CACHED_TILES if self._device.type == "cpu" else LARGEST_TILES

    def open(self, member: str, graph: GraphName) -> TorchGraph:
        """Open a member's graph; its weights are read once."""
        with self._lock:
            if member not in self._members:
                self._members[member] = self._functions(member)
            if (member, graph) not in self._graphs:
                stored = self._bundle.graph(member, graph, self._precision).signature
                self._graphs[member, graph] = TorchGraph(stored, self._members[member][graph])
            return self._graphs[member, graph]

    def largest(self, graph: GraphName) -> tuple[Mapping[str, int], ...]:
        """Nothing: every size is taken."""
        return ()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Tensor:
        """A tensor on the device."""
        kind = torch.from_numpy(np.empty(0, dtype=dtype)).dtype
        return torch.empty(shape, dtype=kind, device=self._device)

    def put(self, array: NDArray[Any]) -> Tensor:
        """A tensor on the device; on the CPU it shares the array's memory where it can."""
        if not array.flags.writeable or not array.flags.c_contiguous:
            array = np.array(array)
        return torch.from_numpy(array).to(self._device)

    def gather(self, buffer: Tensor, rows: slice | NDArray[np.int32]) -> Tensor:
        """Rows of a tensor: a view for a slice, a copy for indices."""
        if isinstance(rows, slice):
            return buffer[rows]
        return buffer[torch.from_numpy(rows.astype(np.int64)).to(self._device)]

    def fetch(self, buffer: Tensor) -> NDArray[Any]:
        """The tensor as a host array; waits for the device."""
        array: NDArray[Any] = buffer.cpu().numpy()
        return array

    def rank_counter(self, thresholds: Thresholds) -> RankCounter:
        """Counts with PyTorch on the device, whose stream keeps the order."""
        if self._device.type == "cpu":
            return HostRankCounter(self.fetch, thresholds)
        return TorchRankCounter(thresholds, self._device)

    def mark_verified(self) -> None:
        """Nothing: tests compare the code with the reference."""

    def device_memory(self) -> dict[str, int]:
        """What PyTorch took at most, what is free and what there is; nothing on the CPU."""
        if self._device.type != "cuda":
            return {}
        free, total = torch.cuda.mem_get_info(self._device)
        peak = torch.cuda.max_memory_allocated(self._device)
        return {"peak": peak, "free": free, "total": total}

    def close(self) -> None:
        """Let go of the weights."""
        self._graphs.clear()
        self._members.clear()

    def _weights(self, member: str) -> dict[str, NDArray[np.generic]]:
        return member_weights(self._bundle, member, self._options.checkpoints)

    def _functions(self, member: str) -> Mapping[GraphName, Function]:
        raise NotImplementedError


class TorchEngine(BundleEngine):
    """The exact rewrites in PyTorch, batched; fp16 is rounded on a CPU, fp8 always."""

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
    """A device of PyTorch; InputError for another name, UnavailableError where it is not there."""
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
