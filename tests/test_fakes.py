"""The fakes themselves: threads and garbage collections may come at any place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest
from support.fake_cuda import FakeCuda
from support.fake_tensorrt import FakeTensorRT
from support.locked import Locked

from sgraf_deploy.engines.cuda.memory import Allocation, Mark, Pool

THREADS = 4
TURNS = 100
OTHERS = 300
"""Blocks that are there besides: a look at all of them takes a while."""


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def cuda() -> FakeCuda:
    made = FakeCuda()
    made.activate()
    return made


def together(*works: Callable[[], None]) -> None:
    """Run all of them at the same time, each over and over."""
    start = Barrier(len(works))

    def repeat(work: Callable[[], None]) -> None:
        start.wait(timeout=60)
        for _ in range(TURNS):
            work()

    with ThreadPoolExecutor(len(works)) as pool:
        list(pool.map(repeat, works))


class Meddling(np.ndarray[Any, Any]):
    """Memory at which something else happens whenever it is looked at."""

    happens: Callable[[], object]

    @property
    def nbytes(self) -> int:
        self.happens()
        return int(super().nbytes)


def meddling(size: int, happens: Callable[[], object]) -> Meddling:
    made = np.zeros(size, dtype=np.uint8).view(Meddling)
    made.happens = happens
    return made


def test_a_collection_in_the_middle_of_a_look_gives_memory_back(cuda: FakeCuda) -> None:
    """As a garbage collection may, which runs the finalizers of arrays wherever it begins."""
    device = [cuda.allocate(8) for _ in range(3)]
    pinned = [cuda.allocate_pinned(8) for _ in range(3)]
    stream = cuda.create_stream()
    target, source = cuda.allocate(4), cuda.allocate_pinned(4)

    def collect() -> None:
        if device:
            cuda.free(device.pop())
            cuda.free_pinned(pinned.pop())

    cuda.blocks = {-1: meddling(1, collect), **cuda.blocks}
    cuda.pinned = {-1: meddling(1, collect), **cuda.pinned}
    cuda.upload(target, source, stream)
    event = cuda.create_event()
    cuda.record(event, stream)
    cuda.synchronize(event)

    assert cuda.used > 0
    assert (device, pinned) == ([], [])


@pytest.mark.usefixtures("hasty")
def test_threads_copy_while_others_allocate(cuda: FakeCuda) -> None:
    """What the lanes of an engine do, whose pools allocate for one while others copy."""
    marked = np.arange(64, dtype=np.uint8)
    others = [(cuda.allocate(1), cuda.allocate_pinned(1)) for _ in range(OTHERS)]

    def copy() -> None:
        cuda.activate()
        stream, event = cuda.create_stream(), cuda.create_event()
        there, back = cuda.allocate_pinned(64), cuda.allocate_pinned(64)
        there[:] = marked
        pointer = cuda.allocate(64)
        cuda.upload(pointer, there, stream)
        cuda.download(back, pointer, stream)
        cuda.record(event, stream)
        cuda.synchronize(event)
        assert back.tolist() == marked.tolist()
        cuda.free(pointer)
        for memory in (there, back):
            cuda.free_pinned(memory)
        cuda.destroy_event(event)
        cuda.destroy_stream(stream)

    together(*[copy] * THREADS)

    left = len(cuda.blocks), len(cuda.pinned), len(cuda.events), len(cuda.streams)
    assert left == (len(others), len(others), 0, 0)
    assert cuda.calls["allocate"] == len(others) + THREADS * TURNS


@pytest.mark.usefixtures("hasty")
def test_marks_and_memory_are_dropped_in_any_thread(cuda: FakeCuda) -> None:
    pool: Pool[int] = Pool(cuda.allocate, cuda.free, int)

    def use() -> None:
        cuda.activate()
        stream = cuda.create_stream()
        kept: list[Any] = [Allocation(pool, 100), Mark(cuda, None, stream)]
        kept.append(kept)  # a circle, which only a garbage collection finds

    together(*[use] * THREADS)
    del use

    pool.close()
    assert cuda.calls["allocate"] <= THREADS * TURNS


@pytest.mark.usefixtures("hasty")
def test_nothing_is_counted_twice_or_forgotten(cuda: FakeCuda) -> None:
    tensorrt = FakeTensorRT(cuda)

    together(*[tensorrt.count_opened] * THREADS)

    assert tensorrt.opened == THREADS * TURNS


def test_every_method_holds_the_lock_but_those_that_wait_for_nothing() -> None:
    class Base(Locked):
        unlocked = frozenset({"free"})

        @property
        def state(self) -> bool:
            return held(self)

    class Child(Base):
        def more(self) -> bool:
            return held(self)

        def free(self) -> bool:
            return held(self)

    assert Base().state
    assert Child().more()
    assert not Child().free()


def held(locked: Locked) -> bool:
    owned: bool = locked._lock._is_owned()
    return owned
