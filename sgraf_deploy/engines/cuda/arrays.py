"""Arrays on a GPU: put there, gathered, copied back, each thread's in a stream of its own."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.buffers import Array, host_extremes
from sgraf_deploy.engines.cuda.api import Bytes, Cuda
from sgraf_deploy.engines.cuda.lanes import STAGING_BYTES, Lane, Pinned
from sgraf_deploy.engines.cuda.memory import DeviceArray, Mark, Pool
from sgraf_deploy.engines.cuda.ranks import DeviceRankCounter
from sgraf_deploy.engines.ranks import RankCounter, Thresholds

LANES = 2
"""Tiles in flight: while the logits of one are copied back, the next one runs."""

_PIECES = 2
"""Pieces in flight of a large array that is fetched: the host copies one while the next comes."""


class GpuArrays:
    """The arrays (`DeviceArray`) of one GPU, in pools of its memory and of pinned host memory.

    Every thread has a lane; more threads than lanes share them in turn, so that what contexts
    take on the device does not grow with the threads of a service.
    """

    def __init__(self, cuda: Cuda, device: str, lanes: int = LANES) -> None:
        """Take a GPU, called `device`: `cuda:N`."""
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
        self._lock = threading.Lock()

    def lane(self) -> Lane:
        """The calling thread's lane."""
        found: Lane | None = getattr(self._own, "lane", None)
        if found is None:
            with self._lock:
                found = self._own.lane = next(self._turn)
        return found

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> DeviceArray:
        """Memory for outputs to be bound to; its values are arbitrary."""
        lane = self.lane()
        with lane:
            return lane.empty(shape, dtype)

    def put(self, array: Array) -> DeviceArray:
        """Copy a host array to the device; of integers the extremes are remembered."""
        lane = self.lane()
        with lane:
            placed = lane.put(array)
        if array.dtype != np.int32:
            return placed
        return replace(placed, extremes=host_extremes(array))

    def gather(self, buffer: DeviceArray, rows: slice | NDArray[np.int32]) -> DeviceArray:
        """Rows of an array: a view for a slice, a copy on the device for indices."""
        if isinstance(rows, slice):
            return buffer.rows(rows)
        lane = self.lane()
        with lane:
            return lane.gather(buffer, rows)

    def fill(self, buffer: DeviceArray, array: Array) -> None:
        """Copy a host array into a buffer, once no lane reads from it any more."""
        self.drain()
        lane = self.lane()
        with lane:
            lane.upload(buffer, array)

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
        """Counts on the GPU, so that no tile is fetched."""
        return DeviceRankCounter(self, thresholds)

    def device_memory(self) -> dict[str, int]:
        """Bytes: the most that arrays and scratch memory took, what is free and what there is."""
        self.cuda.activate()
        free, total = self.cuda.memory()
        return {"peak": self.memory.peak, "free": free, "total": total}

    def drain(self) -> None:
        """Wait for everything that runs."""
        self.cuda.activate()
        for lane in self._lanes:
            with lane:
                lane.drain()

    def close(self) -> None:
        """Wait for what runs, then release streams and memory."""
        with self._lock:
            lanes, self._lanes = self._lanes, []
        self.cuda.activate()
        for lane in lanes:
            lane.close()
        self.memory.close()
        self._pinned.close()
