"""What an engine on a GPU is whatever runs the graphs: resident arrays, gathers, copies, lanes."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import GraphName
from sgraf_deploy.engines.base import LARGEST_TILES, Graph
from sgraf_deploy.engines.buffers import Array, host_extremes
from sgraf_deploy.engines.cuda.api import Bytes, Cuda
from sgraf_deploy.engines.cuda.lanes import STAGING_BYTES, Lane, Pinned
from sgraf_deploy.engines.cuda.memory import DeviceArray, Mark, Pool
from sgraf_deploy.engines.cuda.ranks import DeviceRankCounter
from sgraf_deploy.engines.ranks import RankCounter, Thresholds
from sgraf_deploy.errors import InputError

LANES = 2
"""Tiles in flight: while the logits of one come back, the next one runs."""

_PIECES = 2
"""Of a large array that is fetched: one is copied by the host while the next one comes."""


class CudaEngine:
    """See `Engine`; buffers are `DeviceArray`. A subclass opens the graphs.

    Every thread has a lane; more threads than lanes share them in turn, so that what contexts
    take on the device does not grow with the threads of a service.
    """

    name: str
    executed: str
    tile_advice = LARGEST_TILES

    def __init__(self, cuda: Cuda, device: str, lanes: int = LANES) -> None:
        self.device = device
        self.workers = lanes
        self.cuda = cuda
        self.memory: Pool[int] = Pool(cuda.allocate, cuda.free, int)
        self._pinned: Pool[Bytes] = Pool(
            cuda.allocate_pinned, cuda.free_pinned, lambda block: int(block.ctypes.data)
        )
        self._lanes = [Lane(cuda, self.memory, self._pinned) for _ in range(lanes)]
        self._turn = itertools.cycle(self._lanes)
        self._own = threading.local()
        self._graphs: dict[tuple[str, GraphName], Graph] = {}
        self._lock = threading.Lock()

    def open(self, member: str, graph: GraphName) -> Graph:
        """Open a graph once."""
        with self._lock:
            found = self._graphs.get((member, graph))
            if found is None:
                self.cuda.activate()
                found = self._graphs[member, graph] = self._open(member, graph)
        return found

    def _open(self, member: str, graph: GraphName) -> Graph:
        raise NotImplementedError

    def lane(self) -> Lane:
        """The calling thread's lane."""
        found: Lane | None = getattr(self._own, "lane", None)
        if found is None:
            with self._lock:
                found = self._own.lane = next(self._turn)
        return found

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Room on the device, for outputs to be bound to."""
        lane = self.lane()
        with lane:
            return lane.empty(shape, dtype)

    def put(self, array: Array) -> DeviceArray:
        """Copy a host array to the device, and keep in mind how far its integers reach."""
        lane = self.lane()
        with lane:
            placed = lane.put(array)
        if array.dtype != np.int32:
            return placed
        return replace(placed, extremes=host_extremes(array))

    def gather(self, buffer: DeviceArray, rows: slice | NDArray[np.int32]) -> DeviceArray:
        """A view for a slice, rows copied on the device for indices."""
        if isinstance(rows, slice):
            return buffer.rows(rows)
        lane = self.lane()
        with lane:
            return lane.gather(buffer, rows)

    def fetch(self, buffer: DeviceArray) -> Array:
        """Wait for a buffer and copy it to the host."""
        lane = self.lane()
        result = np.empty(buffer.shape, dtype=buffer.dtype)
        flat = result.reshape(-1).view(np.uint8)
        coming: deque[tuple[int, Mark, Pinned]] = deque()
        for start in range(0, buffer.nbytes, STAGING_BYTES):
            with lane:
                coming.append((start, *lane.download(buffer, start)))
            if len(coming) == _PIECES:
                self._arrived(flat, *coming.popleft())
        while coming:
            self._arrived(flat, *coming.popleft())
        with lane:
            lane.settle()  # The next query then finds its memory free, at the same addresses.
        return result

    def _arrived(self, flat: Bytes, start: int, mark: Mark, staging: Pinned) -> None:
        self.cuda.synchronize(mark.event)
        flat[start : start + staging.memory.nbytes] = staging.memory

    def rank_counter(self, thresholds: Thresholds) -> RankCounter:
        """Counts on the GPU."""
        return DeviceRankCounter(self, thresholds)

    def device_memory(self) -> dict[str, int]:
        """The most that arrays and scratch memory took, what is free now, and what there is."""
        self.cuda.activate()
        free, total = self.cuda.memory()
        return {"peak": self.memory.peak, "free": free, "total": total}

    def close(self) -> None:
        """Wait for what runs, then release graphs, contexts, streams and memory."""
        with self._lock:
            graphs, self._graphs = self._graphs, {}
            lanes, self._lanes = self._lanes, []
        self.cuda.activate()
        for lane in lanes:
            with lane:
                lane.drain()
        for graph in graphs.values():
            getattr(graph, "close", lambda: None)()
        for lane in lanes:
            lane.close()
        self.memory.close()
        self._pinned.close()


def gpu_ordinal(device: str | None, engine: str) -> int:
    """The number of the GPU that `device` names, `cuda` or `cuda:N`; InputError for another."""
    name, _, number = (device or "cuda").partition(":")
    if name != "cuda" or not (number == "" or number.isdecimal()):
        raise InputError(f"engine {engine}: device", expected="cuda or cuda:N", got=device)
    return int(number or 0)
