"""Threads that share work with the one that asks."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest
from support.refusals import refused

from sgraf_deploy.errors import EngineMemoryError
from sgraf_deploy.runtime.workers import WorkerPool, _Shared


@pytest.fixture
def pool() -> Iterator[WorkerPool]:
    made = WorkerPool()
    yield made
    made.close()


@pytest.mark.parametrize("workers", [1, 2, 3, 9], ids="workers-{}".format)
def test_every_result_comes_from_no_more_threads_than_asked(pool: WorkerPool, workers: int) -> None:
    meeting = threading.Barrier(min(workers, 6))
    threads = set()

    def call(number: int) -> int:
        threads.add(threading.get_ident())
        meeting.wait(timeout=60)  # all of them are really under way at a time
        return number * number

    assert sorted(pool.spread(range(6), call, workers)) == [0, 1, 4, 9, 16, 25]
    assert len(threads) == min(workers, 6)
    assert threading.get_ident() in threads


def failing_at_one(begun: list[int]) -> Callable[[int], int]:
    def call(number: int) -> int:
        begun.append(number)
        if number == 1:
            raise EngineMemoryError("no room")
        return number

    return call


@pytest.mark.parametrize("workers", [1, 2, 5], ids="workers-{}".format)
def test_an_error_reaches_the_caller(pool: WorkerPool, workers: int) -> None:
    with refused(EngineMemoryError, "no room"):
        list(pool.spread(range(100), failing_at_one([]), workers))


def test_after_an_error_nothing_new_begins() -> None:
    begun: list[int] = []
    shared = _Shared(iter(range(100)), failing_at_one(begun))
    with refused(EngineMemoryError, "no room"):
        shared.work_off()
    shared.work_off()  # what the other threads do next
    assert begun == [0, 1]


def test_when_the_results_are_no_longer_wanted_nothing_new_begins(pool: WorkerPool) -> None:
    begun: list[int] = []
    results = pool.spread(range(10**6), begun.append, 2)
    next(results)
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert len(begun) < 10**6


def test_helpers_are_kept_for_the_next_work_until_they_are_let_go(pool: WorkerPool) -> None:
    here, seen = threading.get_ident(), []
    for _ in range(3):
        meeting = threading.Barrier(2)

        def call(_: int, meeting: threading.Barrier = meeting) -> int:
            meeting.wait(timeout=60)
            return threading.get_ident()

        seen.append(set(pool.spread(range(2), call, 2)))
    assert here in seen[0]
    assert seen[0] == seen[1] == seen[2]
    (helper,) = seen[0] - {here}
    pool.close()
    assert helper not in {thread.ident for thread in threading.enumerate()}


def test_callers_do_not_wait_for_helpers_that_are_busy(pool: WorkerPool) -> None:
    release = threading.Event()

    def wait() -> None:
        release.wait(timeout=60)

    busy = pool._submit(wait, 1)
    assert sorted(pool.spread(range(4), lambda number: -number, 2)) == [-3, -2, -1, 0]
    release.set()
    busy.result()
