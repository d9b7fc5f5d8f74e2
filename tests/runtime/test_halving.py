"""Work that does not fit is halved, once for all, in order."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from sgraf_deploy.errors import EngineMemoryError
from sgraf_deploy.runtime.halving import Batch, Halving, _Shared, spread


class Memory:
    """Executes batches, but only up to a cost; keeps what it was asked for and what it did."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.asked: list[tuple[int, int]] = []
        self.done: list[tuple[int, int]] = []

    def execute(self, batch: Batch) -> None:
        self.asked.append((batch.start, batch.stop))
        if batch.cost > self.limit:
            raise EngineMemoryError("out of memory")
        self.done.append((batch.start, batch.stop))


def test_what_fits_runs_as_it_is() -> None:
    memory, seen = Memory(10), []
    Halving("tiles").run(
        [Batch(0, 4), Batch(4, 7)], memory.execute, total=7, progress=lambda *p: seen.append(p)
    )
    assert memory.done == memory.asked == [(0, 4), (4, 7)]
    assert seen == [(4, 7), (7, 7)]


def test_what_does_not_fit_is_halved_until_it_does() -> None:
    memory, seen = Memory(3), []
    Halving("tiles").run(
        [Batch(0, 13)], memory.execute, total=13, progress=lambda *p: seen.append(p)
    )
    assert memory.asked == [(0, 13), (0, 6), *memory.done]
    assert memory.done == [(0, 3), (3, 6), (6, 9), (9, 11), (11, 13)]
    assert seen == [(13, 13)]


def test_the_lesson_is_kept_for_the_next_work() -> None:
    memory, halving = Memory(4), Halving("tiles")
    halving.run([Batch(0, 8), Batch(8, 16)], memory.execute, total=16)
    halving.run([Batch(16, 24)], memory.execute, total=8)
    assert memory.asked == [(0, 8), (0, 4), (4, 8), (8, 12), (12, 16), (16, 20), (20, 24)]


def test_the_warning_comes_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    Halving("tiles").run([Batch(0, 8), Batch(8, 16)], Memory(1).execute, total=16)
    levels = [record.levelno for record in caplog.records]
    assert levels == [logging.WARNING, logging.INFO, logging.INFO]
    assert caplog.messages[0] == "out of memory; halving the tiles and going on"


def test_what_cannot_be_halved_is_an_error() -> None:
    memory = Memory(3)
    with pytest.raises(EngineMemoryError, match="the smallest of the tiles does not fit"):
        Halving("tiles").run([Batch(0, 2, row_cost=4)], memory.execute, total=2)
    assert memory.done == []


def test_a_single_row_is_tried_whatever_was_learnt() -> None:
    memory, halving = Memory(4), Halving("tiles")
    halving.run([Batch(0, 8)], memory.execute, total=8)
    memory.limit = 100
    halving.run([Batch(8, 9, row_cost=50)], memory.execute, total=1)
    assert memory.done[-1] == (8, 9)


def test_other_errors_pass() -> None:
    def fail(_: Batch) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        Halving("tiles").run([Batch(0, 8)], fail, total=8)


@pytest.mark.parametrize("workers", [1, 2, 3, 9], ids="workers-{}".format)
def test_every_result_comes_from_no_more_threads_than_asked(workers: int) -> None:
    meeting = threading.Barrier(min(workers, 6))
    threads = set()

    def call(number: int) -> int:
        threads.add(threading.get_ident())
        meeting.wait(timeout=60)  # all of them are really under way at a time
        return number * number

    assert sorted(spread(range(6), call, workers)) == [0, 1, 4, 9, 16, 25]
    assert len(threads) == min(workers, 6)
    assert (threading.get_ident() in threads) == (workers == 1)


def failing_at_one(begun: list[int]) -> Callable[[int], int]:
    def call(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise EngineMemoryError("no room")
        return number

    return call


@pytest.mark.parametrize("workers", [1, 2, 5], ids="workers-{}".format)
def test_an_error_reaches_the_caller(workers: int) -> None:
    with pytest.raises(EngineMemoryError, match="no room"):
        list(spread(range(100), failing_at_one([]), workers))


def test_after_an_error_nothing_new_begins() -> None:
    begun: list[int] = []
    shared = _Shared(iter(range(100)), failing_at_one(begun))
    with pytest.raises(EngineMemoryError, match="no room"):
        shared.work_off()
    shared.work_off()  # what the other threads do next
    assert begun == [0, 1]


def test_when_the_results_are_no_longer_wanted_nothing_new_begins() -> None:
    begun: list[int] = []
    results = spread(range(10**6), begun.append, 2)
    next(results)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(begun) < 10**6


def test_progress_is_told_by_the_calling_thread() -> None:
    told = []

    def progress(done: int, total: int) -> None:
        told.append((threading.get_ident(), done, total))

    work = [Batch(0, 2), Batch(2, 4), Batch(4, 5)]
    Halving("tiles").run(work, lambda batch: None, total=5, progress=progress, workers=2)
    here = threading.get_ident()
    assert told == [(here, 2, 5), (here, 4, 5), (here, 5, 5)]
