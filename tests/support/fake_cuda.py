"""A GPU in host memory, as lazy as a real one may be.

What is put into a stream runs only when somebody waits for it, memory is garbage until it is
written, and what touches memory that was freed, or that was never the device's, fails. So a
missing wait, or memory that goes back too early, fails every time and not once in a while.

What CUDA does not allow while a thread captures a stream, fails and invalidates the capture.

Any number of threads may use it, as they may a real one: see `Locked`.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.locked import Locked

from sgraf_deploy.engines.cuda.api import Bytes, Gather, RankTile
from sgraf_deploy.engines.ensemble import combine_logits
from sgraf_deploy.errors import DeviceError, EngineMemoryError

Operation = Callable[[], None]

GARBAGE = 0xAB
TOTAL = 2**34
ALIGNMENT = 256


@dataclass(eq=False)
class FakeStream:
    """Operations that wait; `done` were run of those that were ever put in."""

    pending: deque[Operation] = field(default_factory=deque)
    put: int = 0
    done: int = 0
    capturing: list[Operation] | None = None
    invalidated: bool = False
    destroyed: bool = False

    def __str__(self) -> str:
        """The handle, which libraries on top of CUDA are given."""
        return str(id(self))

    def enqueue(self, operation: Operation) -> None:
        assert not self.destroyed
        if self.capturing is not None:
            self.capturing.append(operation)
            return
        self.pending.append(operation)
        self.put += 1

    def run_to(self, place: int) -> None:
        while self.done < place:
            operation = self.pending.popleft()
            self.done += 1
            operation()


@dataclass(eq=False)
class FakeEvent:
    stream: FakeStream | None = None
    place: int = 0


class FakeCuda(Locked):
    """See `Cuda`. `limit` is the device's memory in bytes; `calls` counts."""

    name = "Fake GPU"
    unlocked = frozenset({"free", "free_pinned", "destroy_event"})

    def __init__(self, compute_capability: str = "9.0", limit: int = TOTAL) -> None:
        self.compute_capability = compute_capability
        self.limit = limit
        self.calls: Counter[str] = Counter()
        self.blocks: dict[int, Bytes] = {}
        self.pinned: dict[int, Bytes] = {}
        self.streams: set[FakeStream] = set()
        self.events: set[FakeEvent] = set()
        self.graphs: list[list[Operation]] = []
        self.fails: str | None = None
        """A step of a capture that fails from now on: begin, end or instantiate."""
        self._thread = threading.local()

    @property
    def used(self) -> int:
        return sum(block.nbytes for block in self.blocks.copy().values())

    def view(self, pointer: int, size: int) -> Bytes:
        """Device memory, which must be there, as a host array."""
        for start, block in self.blocks.copy().items():
            if start <= pointer and pointer + size <= start + block.nbytes:
                return block[pointer - start : pointer - start + size]
        raise AssertionError(f"no device memory of {size} bytes at {pointer:#x}")

    def array(self, pointer: int, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        values: NDArray[Any] = self.view(pointer, size).view(dtype)
        return values.reshape(shape)

    def put(self, stream: FakeStream, operation: Operation) -> None:
        """What a library on top of CUDA does."""
        self._check()
        stream.enqueue(operation)

    def stream_of(self, handle: str) -> FakeStream:
        """The stream that a library was given as text."""
        return next(stream for stream in self.streams if str(stream) == handle)

    def activate(self) -> None:
        self._thread.active = True

    def memory(self) -> tuple[int, int]:
        return self.limit - self.used, self.limit

    def allocate(self, size: int) -> int:
        self._check_waits()
        self.calls["allocate"] += 1
        if self.used + size > self.limit:
            raise EngineMemoryError("the fake GPU is out of memory", got=size)
        room = np.full(size + ALIGNMENT, GARBAGE, dtype=np.uint8)
        skipped = -room.ctypes.data % ALIGNMENT
        block = room[skipped : skipped + size]
        pointer = int(block.ctypes.data)
        self.blocks[pointer] = block
        return pointer

    def free(self, pointer: int) -> None:
        del self.blocks[pointer]

    def allocate_pinned(self, size: int) -> Bytes:
        self._check_waits()
        block = np.full(size, GARBAGE, dtype=np.uint8)
        self.pinned[block.ctypes.data] = block
        return block

    def free_pinned(self, memory: Bytes) -> None:
        del self.pinned[memory.ctypes.data]

    def create_stream(self) -> FakeStream:
        self._check()
        stream = FakeStream()
        self.streams.add(stream)
        return stream

    def destroy_stream(self, stream: FakeStream) -> None:
        assert not stream.pending, "a stream is dropped with work in it"
        stream.destroyed = True
        self.streams.remove(stream)

    def create_event(self) -> FakeEvent:
        self._check()
        event = FakeEvent()
        self.events.add(event)
        return event

    def destroy_event(self, event: FakeEvent) -> None:
        self.events.remove(event)

    def record(self, event: FakeEvent, stream: FakeStream) -> None:
        self._check()
        assert stream.capturing is None, "a mark inside a captured graph marks nothing"
        event.stream, event.place = stream, stream.put

    def passed(self, event: FakeEvent) -> bool:
        self._check_waits()
        return event.stream is None or event.stream.done >= event.place

    def wait(self, stream: FakeStream, event: FakeEvent) -> None:
        self.calls["wait"] += 1
        self.put(stream, lambda: self._run_to(event))

    def synchronize(self, event: FakeEvent) -> None:
        self.activate()
        self._check_waits()
        self._run_to(event)

    def _run_to(self, event: FakeEvent) -> None:
        if event.stream is not None:
            event.stream.run_to(event.place)

    def upload(self, target: int, source: Bytes, stream: FakeStream) -> None:
        self._check_pinned(source)

        def copy() -> None:
            self._check_pinned(source)
            self.view(target, source.nbytes)[:] = source

        self.put(stream, copy)

    def download(self, target: Bytes, source: int, stream: FakeStream) -> None:
        self._check_pinned(target)

        def copy() -> None:
            self._check_pinned(target)
            target[:] = self.view(source, target.nbytes)

        self.put(stream, copy)

    def gather(self, gather: Gather, stream: FakeStream) -> None:
        self.calls["gather"] += 1

        def copy() -> None:
            index = self.array(gather.index, (gather.rows,), np.int32)
            target = self.array(gather.target, (gather.rows, gather.row_bytes), np.uint8)
            for place, row in enumerate(index.tolist()):
                target[place] = self.view(gather.source + row * gather.row_bytes, gather.row_bytes)

        self.put(stream, copy)

    def count_ranks(self, tile: RankTile, stream: FakeStream) -> None:
        self.calls["count_ranks"] += 1
        self.put(stream, lambda: count_ranks(self, tile))

    def begin_capture(self, stream: FakeStream) -> None:
        self._check()
        if stream.capturing is not None:
            raise DeviceError("the fake GPU: begin", got="CUDA_ERROR_ILLEGAL_STATE")
        self._fail("begin", "CUDA_ERROR_UNKNOWN")
        stream.capturing, stream.invalidated = [], False
        self._thread.captures = stream

    def end_capture(self, stream: FakeStream) -> list[Operation]:
        captured = self._ended(stream)
        if stream.invalidated:
            raise DeviceError("the fake GPU: end", got="CUDA_ERROR_STREAM_CAPTURE_INVALIDATED")
        self._fail("end", "CUDA_ERROR_STREAM_CAPTURE_UNJOINED")
        self._fail("instantiate", "CUDA_ERROR_OUT_OF_MEMORY")
        self.graphs.append(captured)
        return captured

    def abandon_capture(self, stream: FakeStream) -> None:
        self._ended(stream)

    def invalidate(self, stream: FakeStream) -> None:
        """What a library does that waits for the GPU while the stream is captured."""
        assert stream.capturing is not None
        stream.invalidated = True

    def _ended(self, stream: FakeStream) -> list[Operation]:
        captured, stream.capturing = stream.capturing, None
        assert captured is not None
        assert self._thread.captures is stream, "a capture is ended by the thread that began it"
        self._thread.captures = None
        return captured

    def _fail(self, step: str, reason: str) -> None:
        if self.fails == step:
            raise DeviceError(f"the fake GPU: {step}", got=reason)

    def launch(self, graph: list[Operation], stream: FakeStream) -> None:
        assert any(graph is each for each in self.graphs)
        self.calls["launch"] += 1
        for operation in graph:
            self.put(stream, operation)

    def destroy_graph(self, graph: list[Operation]) -> None:
        self.graphs = [each for each in self.graphs if each is not graph]

    def _check(self) -> None:
        assert getattr(self._thread, "active", False), "this thread has no GPU yet"

    def _check_waits(self) -> None:
        """What may wait for the GPU is not allowed in a thread that captures."""
        self._check()
        stream = getattr(self._thread, "captures", None)
        if stream is not None:
            stream.invalidated = True
            reason = "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"
            raise DeviceError("the fake GPU waits while it captures", got=reason)

    def _check_pinned(self, memory: Bytes) -> None:
        start = memory.ctypes.data
        inside = any(
            first <= start and start + memory.nbytes <= first + block.nbytes
            for first, block in self.pinned.copy().items()
        )
        assert inside, "a copy from or to memory that is not pinned"


def count_ranks(cuda: FakeCuda, tile: RankTile) -> None:
    """What the kernel does, pair by pair."""
    shape = tile.images, tile.captions
    pointers = cuda.array(tile.logits, (tile.members,), np.uint64)
    values = [cuda.array(pointer, shape, np.float32) for pointer in pointers.tolist()]
    wrong = cuda.array(tile.wrong, (2,), np.int32)
    if len(values) > 1:
        values.append(combine_logits(*values))
    models, images, captions = len(values), tile.all_images, tile.all_captions
    columns = cuda.array(tile.columns, (tile.captions,), np.int32)
    image_thresholds = cuda.array(tile.image_thresholds, (models, images), np.float32)
    caption_thresholds = cuda.array(tile.caption_thresholds, (models, captions), np.float32)
    image_counts = cuda.array(tile.image_counts, (models, 2, images), np.int32)
    caption_counts = cuda.array(tile.caption_counts, (models, 2, captions), np.int32)
    for row in range(tile.images):
        image = tile.first_image + row
        for place, caption in enumerate(columns.tolist()):
            for model, matrix in enumerate(values):
                value = matrix[row, place]
                if not np.isfinite(value):
                    wrong[:] = image + 1, caption
                if caption // tile.captions_per_image == image:
                    continue
                image_counts[model, 0, image] += value >= image_thresholds[model, image]
                image_counts[model, 1, image] += value == image_thresholds[model, image]
                caption_counts[model, 0, caption] += value >= caption_thresholds[model, caption]
                caption_counts[model, 1, caption] += value == caption_thresholds[model, caption]
