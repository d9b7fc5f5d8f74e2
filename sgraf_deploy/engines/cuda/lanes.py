"""Lanes: a CUDA stream each, with the pinned host memory that its copies pass through.

Work is put into a lane's stream without waiting for it, and what it reads and writes is kept alive
until the stream has passed it. One thread at a time uses a lane. Work of one lane waits for that of
another only where it uses what the other writes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.cuda.api import Bytes, Cuda, Gather
from sgraf_deploy.engines.cuda.memory import Allocation, DeviceArray, Mark, Pool
from sgraf_deploy.errors import EngineMemoryError

STAGING_BYTES = 8 * 2**20
"""A copy to or from the device passes through pinned memory in pieces of at most so many bytes."""

MOST_IN_FLIGHT = 64
"""The most pieces of work in a lane at a time: more would only keep memory from being reused."""


class Pinned:
    """Pinned memory that returns to its pool when nothing refers to it."""

    __slots__ = ("_block", "_pool", "_size", "memory")

    def __init__(self, pool: Pool[Bytes], size: int) -> None:
        """Take `size` bytes; EngineMemoryError if there are none."""
        self._block, self._size = pool.take(size)
        self._pool = pool
        self.memory = self._block[:size]

    def __del__(self) -> None:
        if hasattr(self, "_pool"):
            self._pool.give(self._block, self._size)


class Lane:
    """One stream; enter it (`with lane:`) to put work into it."""

    def __init__(self, cuda: Cuda, memory: Pool[int], pinned: Pool[Bytes]) -> None:
        """Create the stream."""
        cuda.activate()
        self.stream = cuda.create_stream()
        self._cuda, self._memory, self._pinned = cuda, memory, pinned
        self._lock = RLock()
        self._flights: deque[tuple[Mark, Sequence[object]]] = deque()
        self._scratch: Allocation | None = None
        self._scratch_bytes = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        self._cuda.activate()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def empty(self, shape: Sequence[int], dtype: np.dtype[Any]) -> DeviceArray:
        """An array of arbitrary values; EngineMemoryError where it does not fit."""
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        return DeviceArray(self._allocate(size), 0, tuple(shape), dtype)

    def scratch(self, size: int) -> int:
        """The address of the lane's memory for intermediates, of at least `size` bytes."""
        if self._scratch is None or self._scratch_bytes < size:
            self.drain()
            self._scratch = None  # Freed first: both at once may not fit.
            self._scratch = self._allocate(size)
            self._scratch_bytes = size
        return self._scratch.pointer

    def enqueue(
        self,
        call: Callable[[], object],
        reads: Sequence[DeviceArray] = (),
        writes: Sequence[DeviceArray] = (),
        keep: Sequence[object] = (),
    ) -> Mark:
        """Put what `call` starts into the stream; returns a mark behind it.

        What it reads and writes, and `keep`, stays alive until the mark is passed.
        """
        for array in (*reads, *writes):
            written = array.allocation.written
            if written is not None and written.lane is not self:
                self._cuda.wait(self.stream, written.event)
        try:
            call()
        finally:  # After an error too, as something may be in the stream.
            mark = Mark(self._cuda, self, self.stream)
            self._flights.append((mark, (*reads, *writes, *keep)))
            for array in writes:
                array.allocation.written = mark
            self.settle()
        return mark

    def put(self, array: NDArray[Any]) -> DeviceArray:
        """Copy a host array to the device; the array's memory may be changed at once."""
        target = self.empty(array.shape, array.dtype)
        self.upload(target, array)
        return target

    def upload(self, target: DeviceArray, array: NDArray[Any]) -> None:
        """Copy a host array into one on the device; the host's may be changed at once."""
        source = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in range(0, source.nbytes, STAGING_BYTES):
            piece = source[start : start + STAGING_BYTES]
            staging = Pinned(self._pinned, piece.nbytes)
            staging.memory[:] = piece
            upload = partial(self._cuda.upload, target.pointer + start, staging.memory, self.stream)
            self.enqueue(upload, writes=(target,), keep=(staging,))

    def gather(self, source: DeviceArray, rows: NDArray[np.int32]) -> DeviceArray:
        """Copies of rows, of shape rows.shape + row shape."""
        target = self.empty((*rows.shape, *source.shape[1:]), source.dtype)
        if target.nbytes:
            index = self.put(rows)
            pointers = source.pointer, index.pointer, target.pointer
            gather = Gather(*pointers, rows.size, source.row_bytes)
            call = partial(self._cuda.gather, gather, self.stream)
            self.enqueue(call, reads=(source, index), writes=(target,))
        return target

    def download(self, source: DeviceArray, start: int) -> tuple[Mark, Pinned]:
        """Start copying a piece of an array from byte `start` on; the mark is behind the copy."""
        staging = Pinned(self._pinned, min(STAGING_BYTES, source.nbytes - start))
        pointer = source.pointer + start
        call = partial(self._cuda.download, staging.memory, pointer, self.stream)
        return self.enqueue(call, reads=(source,), keep=(staging,)), staging

    def wait(self) -> None:
        """Wait for what is in the stream, also of a call of `enqueue` that has not returned."""
        mark = Mark(self._cuda, self, self.stream)
        self._cuda.synchronize(mark.event)

    def drain(self) -> None:
        """Wait for all work, and release what it used."""
        while self._flights:
            self._land()

    def close(self) -> None:
        """Wait for all work, and destroy the stream."""
        with self:
            self.drain()
            self._scratch = None
            self._cuda.destroy_stream(self.stream)

    def _allocate(self, size: int) -> Allocation:
        try:
            return Allocation(self._memory, size)
        except EngineMemoryError:
            self.drain()  # Work in this lane may hold what is missing.
            return Allocation(self._memory, size)

    def settle(self) -> None:
        """Release what finished work used."""
        while self._flights and (
            len(self._flights) > MOST_IN_FLIGHT or self._cuda.passed(self._flights[0][0].event)
        ):
            self._land()

    def _land(self) -> None:
        mark, _ = self._flights.popleft()
        self._cuda.synchronize(mark.event)
