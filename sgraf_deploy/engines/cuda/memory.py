"""Arrays on a GPU, and the pools that their memory is taken from and returned to."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from threading import RLock
from typing import Any, Generic, TypeVar

import numpy as np

from sgraf_deploy.engines.buffers import HOST, BufferKind, Extremes
from sgraf_deploy.engines.cuda.api import Cuda, Event
from sgraf_deploy.errors import EngineMemoryError, InputError

T = TypeVar("T")

SMALLEST_BLOCK = 512
"""Bytes; every block begins at an address that TensorRT accepts as scratch memory."""


class Pool(Generic[T]):
    """Blocks of memory that are kept, once free, for the next request of about the same size.

    Of the free blocks that fit, the one at the lowest address is given: equal requests then get
    equal addresses, at which a captured graph can be launched again. Threads may share a pool.
    """

    def __init__(
        self, allocate: Callable[[int], T], free: Callable[[T], None], address: Callable[[T], int]
    ) -> None:
        """`allocate` raises EngineMemoryError where the memory does not suffice."""
        self._allocate, self._free, self._address = allocate, free, address
        self._kept: dict[int, list[T]] = defaultdict(list)
        self._lock = RLock()  # A garbage collection inside may give a block back.
        self._closed = False
        self.in_use = 0
        """Bytes that were taken and not given back."""
        self.peak = 0
        """The most bytes that were ever in use."""

    def take(self, size: int) -> tuple[T, int]:
        """A block of at least `size` bytes, and its size; EngineMemoryError if there is none."""
        rounded = block_size(size)
        with self._lock:
            kept = self._kept[rounded]
            block = kept.pop(_first(map(self._address, kept))) if kept else None
            self.in_use += rounded
            self.peak = max(self.peak, self.in_use)
        if block is not None:
            return block, rounded
        try:
            return self._new(rounded), rounded
        except BaseException:
            with self._lock:
                self.in_use -= rounded
            raise

    def _new(self, size: int) -> T:
        try:
            return self._allocate(size)
        except EngineMemoryError:
            self.trim()  # Blocks kept for other sizes may hold what is missing.
            return self._allocate(size)

    def give(self, block: T, size: int) -> None:
        """Take back a block that nothing uses any more."""
        with self._lock:
            self.in_use -= size
            if not self._closed:
                self._kept[size].append(block)
                return
        self._free(block)

    def trim(self) -> None:
        """Free every block that is kept and not in use."""
        with self._lock:
            blocks = [block for kept in self._kept.values() for block in kept]
            self._kept.clear()
        for block in blocks:
            self._free(block)

    def close(self) -> None:
        """Free the kept blocks, and from now on every block that is given back."""
        with self._lock:
            self._closed = True
        self.trim()


def _first(addresses: Iterable[int]) -> int:
    """The index of the lowest address."""
    return min(enumerate(addresses), key=lambda found: found[1])[0]


def block_size(size: int) -> int:
    """Bytes rounded up to an eighth of a power of two, so that at most an eighth is wasted."""
    size = max(size, SMALLEST_BLOCK)
    step = max(SMALLEST_BLOCK, 1 << (size.bit_length() - 4))
    return math.ceil(size / step) * step


class Mark:
    """A place in a lane's stream that others can wait for; its event is destroyed with it."""

    __slots__ = ("_cuda", "event", "lane")

    def __init__(self, cuda: Cuda, lane: object, stream: Any) -> None:
        """Mark what is in the stream now."""
        self._cuda, self.lane = cuda, lane
        self.event: Event = cuda.create_event()
        cuda.record(self.event, stream)

    def __del__(self) -> None:
        if hasattr(self, "event"):  # Creating it may have failed.
            self._cuda.destroy_event(self.event)


class Allocation:
    """Device memory that returns to its pool once no array and no work refers to it.

    `written` marks the end of the work that wrote it last; None if nothing did.
    """

    __slots__ = ("_pool", "_size", "pointer", "written")

    def __init__(self, pool: Pool[int], size: int) -> None:
        """Take memory; EngineMemoryError if there is none."""
        self.written: Mark | None = None
        self.pointer, self._size = pool.take(size)
        self._pool = pool

    def __del__(self) -> None:
        if hasattr(self, "_pool"):  # Taking the memory may have failed.
            self._pool.give(self.pointer, self._size)


@dataclass(frozen=True, eq=False)
class DeviceArray:
    """A contiguous array in device memory; a slice of rows shares the memory."""

    allocation: Allocation
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    extremes: Extremes | None = None
    """The lowest and the highest number, of integers that the host put there."""

    @property
    def pointer(self) -> int:
        """The address of the first value."""
        return self.allocation.pointer + self.offset

    @property
    def row_bytes(self) -> int:
        """The size of one row, in bytes."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """The size of all rows, in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize

    def rows(self, rows: slice) -> DeviceArray:
        """Rows start … stop - 1, in the same memory; InputError for another step than 1."""
        start, stop, step = rows.indices(self.shape[0])
        if step != 1:
            raise InputError("rows of a device array", expected="a slice of step 1", got=rows)
        count = max(0, stop - start)
        offset = self.offset + start * self.row_bytes
        return DeviceArray(self.allocation, offset, (count, *self.shape[1:]), self.dtype)


DEVICE = BufferKind(DeviceArray, HOST.dtypes, lambda array: array.extremes)
"""Buffers of the engines on a GPU; these arrays are always contiguous."""
