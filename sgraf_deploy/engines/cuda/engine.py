"""Base classes of the engines on a GPU and of their graphs."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from sgraf_deploy.config import GraphName, GraphSignature, Precision
from sgraf_deploy.engines.base import Engine, EngineOptions, Graph, TileAdvice, gpu_tiles
from sgraf_deploy.engines.buffers import Sizes, shape_of
from sgraf_deploy.engines.cuda.api import Cuda
from sgraf_deploy.engines.cuda.arrays import GpuArrays
from sgraf_deploy.engines.cuda.lanes import Lane
from sgraf_deploy.engines.cuda.memory import DEVICE, DeviceArray
from sgraf_deploy.errors import InputError

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle

Arrays = Mapping[str, DeviceArray]


class CudaEngine(GpuArrays, Engine):
    """Base class of the engines on a GPU: resident arrays, gathers and copies, in lanes.

    Buffers are `DeviceArray`. A subclass writes `check_available` and `_open_graph`.
    """

    def __init__(
        self, bundle: Bundle, precision: Precision, options: EngineOptions, cuda: Cuda, ordinal: int
    ) -> None:
        """Take the graphs of `bundle` in `precision`, and the GPU of that number."""
        Engine.__init__(self, bundle, precision, options)
        GpuArrays.__init__(self, cuda, f"cuda:{ordinal}")
        self.ordinal = ordinal

    @property
    def tile_advice(self) -> TileAdvice:
        """Large tiles."""
        return gpu_tiles(self.device_memory()["total"])

    def _open(self, member: str, graph: GraphName) -> Graph:
        self.cuda.activate()
        return self._open_graph(member, graph)

    @abstractmethod
    def _open_graph(self, member: str, graph: GraphName) -> Graph:
        """See `Engine._open`; the GPU is the calling thread's."""

    def close(self) -> None:
        """Wait for what runs, then release graphs, streams and memory."""
        self.drain()
        Engine.close(self)
        GpuArrays.close(self)


class CudaGraph(Graph):
    """A graph whose runs are put into the calling thread's lane. A subclass writes `_prepare`."""

    kind = DEVICE

    def __init__(self, owner: CudaEngine, signature: GraphSignature) -> None:
        super().__init__(signature)
        self._arrays = owner
        self._outputs = [(spec.name, spec.axes, np.dtype(spec.dtype)) for spec in signature.outputs]

    def _run(self, inputs: Arrays, outputs: Arrays, sizes: Sizes) -> dict[str, DeviceArray]:
        lane = self._arrays.lane()
        with lane:
            enqueue = self._prepare(lane, sizes)
            results = {
                name: outputs[name] if name in outputs else lane.empty(shape_of(axes, sizes), dtype)
                for name, axes, dtype in self._outputs
            }
            lane.enqueue(
                partial(enqueue, inputs, results),
                reads=list(inputs.values()),
                writes=list(results.values()),
            )
        return results

    @abstractmethod
    def _prepare(self, lane: Lane, sizes: Sizes) -> Callable[[Arrays, Arrays], object]:
        """What puts a run of these sizes, on inputs and outputs by name, into the lane's stream.

        The lane is entered, and no output has been allocated yet. Raises InputError for sizes that
        the graph does not take.
        """


def gpu_ordinal(device: str | None, engine: str) -> int:
    """The number of the GPU that `cuda` or `cuda:N` names; InputError for another name."""
    name, _, number = (device or "cuda").partition(":")
    if name != "cuda" or not (number == "" or number.isdecimal()):
        raise InputError(f"engine {engine}: device", expected="cuda or cuda:N", got=device)
    return int(number or 0)
