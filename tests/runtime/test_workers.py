"""Threads that share work with the one that asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from support.refusals import refused

from sgraf_deploy.errors import EngineMemoryError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.retry import Batch, OutOfMemoryRetry
from sgraf_deploy.runtime.workers import SharedWork, Turns, WorkerPool

Task = Callable[[Turns[Batch]], None]


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool()
    yield made
    made.close()


def rows(count: int, progress: Progress | None = None) -> SharedWork[Batch]:
    """So many batches of one row each."""
    pieces = (Batch(row, row + 1) for row in range(count))
    return SharedWork(pieces, OutOfMemoryRetry("rows"), total=count, progress=progress)


def each(call: Callable[[int], object]) -> Task:
    """A task that calls a function with every row of a thread's turns."""

    def task(turns: Turns[Batch]) -> None:
        for piece in turns:
            call(piece.start)

    return task


@pytest.mark.parametrize("workers", [1, 2, 3, 9], ids="workers-{}".format)
def test_every_piece_is_done_by_no_more_threads_than_asked(pool: WorkerPool, workers: int) -> None:
    meeting = threading.Barrier(min(workers, 6))
    threads, done = set(), []

    def call(row: int) -> None:
        threads.add(threading.get_ident())
        meeting.wait(timeout=60)  # all of them are really under way at a time
        done.append(row)

    pool.run(rows(6), each(call), workers)
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    assert len(threads) == min(workers, 6)
    assert threading.get_ident() in threads


def failing_at_one(begun: list[int]) -> Task:
    def call(row: int) -> None:
        begun.append(row)
        if row == 1:
            raise EngineMemoryError("no room")

    return each(call)


@pytest.mark.parametrize("workers", [1, 2, 5], ids="workers-{}".format)
def test_an_error_reaches_the_caller(pool: WorkerPool, workers: int) -> None:
    with refused(EngineMemoryError, "no room"):
        pool.run(rows(100), failing_at_one([]), workers)


def test_an_error_of_another_thread_reaches_the_caller_and_stops_it(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, stopped = threading.Event(), threading.Event()
    here, done, work = threading.get_ident(), [], rows(100)
    stop = work.stop

    def stopping() -> None:
        stop()
        stopped.set()

    def call(row: int) -> None:
        if threading.get_ident() != here:
            assert begun.wait(timeout=60)
            raise EngineMemoryError("no room")
        begun.set()
        assert stopped.wait(timeout=60)
        done.append(row)

    monkeypatch.setattr(work, "stop", stopping)
    with refused(EngineMemoryError, "no room"):
        pool.run(work, each(call), 2)
    assert len(done) == 1


def test_an_error_of_the_caller_waits_for_what_runs(pool: WorkerPool) -> None:
    begun, failing, finished = threading.Event(), threading.Event(), []
    here = threading.get_ident()

    def call(row: int) -> None:
        if threading.get_ident() == here:
            assert begun.wait(timeout=60)
            failing.set()
            raise KeyError("mine")
        begun.set()
        assert failing.wait(timeout=60)
        finished.append(row)

    work = rows(10**6)
    with pytest.raises(KeyError, match="mine"):
        pool.run(work, each(call), 2)
    assert 1 <= len(finished) < 10**6
    assert work.take() is None


def test_after_an_error_nothing_new_begins(pool: WorkerPool) -> None:
    begun: list[int] = []
    work, task = rows(100), failing_at_one(begun)
    with refused(EngineMemoryError, "no room"):
        pool.run(work, task, 1)
    task(work.turns())  # what the other threads do next
    assert begun == [0, 1]


def test_threads_are_kept_for_the_next_work_until_the_pool_is_closed(pool: WorkerPool) -> None:
    here, seen = threading.get_ident(), []
    for _ in range(3):
        meeting, threads = threading.Barrier(2), list[int]()

        def call(_: int, meeting: threading.Barrier = meeting) -> None:
            meeting.wait(timeout=60)
            threads.append(threading.get_ident())  # noqa: B023  # it is called in this round

        pool.run(rows(2), each(call), 2)
        seen.append({*threads})
    assert here in seen[0]
    assert seen[0] == seen[1] == seen[2]
    (helper,) = seen[0] - {here}
    pool.close()
    assert helper not in {thread.ident for thread in threading.enumerate()}


def test_callers_do_not_wait_for_threads_that_are_busy(pool: WorkerPool) -> None:
    release, done = threading.Event(), list[int]()

    def wait() -> None:
        release.wait(timeout=60)

    busy = pool._submit(1, wait)
    pool.run(rows(4), each(done.append), 2)
    assert done == [0, 1, 2, 3]
    release.set()
    busy.result()


@pytest.mark.parametrize("workers", [1, 2, 3], ids="workers-{}".format)
def test_progress_is_told_by_the_calling_thread_of_every_piece(
    pool: WorkerPool, workers: int
) -> None:
    told = []

    def progress(done: int, total: int) -> None:
        told.append((threading.get_ident(), done, total))

    pool.run(rows(5, progress), each(lambda row: None), workers)
    here = threading.get_ident()
    assert told == [(here, done, 5) for done in (1, 2, 3, 4, 5)]


def test_what_a_thread_halves_it_finishes_itself(pool: WorkerPool) -> None:
    meeting, done = threading.Barrier(2), dict[int, list[int]]()
    pieces = [Batch(0, 4), Batch(4, 8)]

    def task(turns: Turns[Batch]) -> None:
        mine = done[threading.get_ident()] = []
        for piece in turns:
            if not mine and piece.units == 4:
                meeting.wait(timeout=60)  # both have one
            try:
                if piece.units > 1:
                    raise EngineMemoryError("no room")
                mine.append(piece.start)
            except EngineMemoryError as error:
                turns.halve(piece, error)

    told: list[tuple[int, int]] = []
    retry = OutOfMemoryRetry("rows")
    work = SharedWork(pieces, retry, total=8, progress=lambda *p: told.append(p))
    pool.run(work, task, 2)
    assert sorted(done.values()) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert told == [(4, 8), (8, 8)]
