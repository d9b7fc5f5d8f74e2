"""Threads that help a calling thread with its work, and are kept for the next."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_DONE: Any = object()


class WorkerPool:
    """Helpers are started when they are first needed: a query of milliseconds cannot wait for them.

    Several threads may spread work at the same time; they then share the helpers.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._pool: ThreadPoolExecutor | None = None

    def spread(self, works: Iterable[T], call: Callable[[T], R], workers: int) -> Iterator[R]:
        """The results of `call`, by so many threads that take the works in order.

        The calling thread is one of them, and works alone where there is one work. After an error,
        or when the iterator is closed, nothing new begins and what runs is waited for.
        """
        coming = iter(works)
        first = list(islice(coming, workers))
        shared = _Shared(chain(first, coming), call)
        helpers = [self._submit(shared.work_off, workers - 1) for _ in first[1:]]
        try:
            for work in iter(shared.take, _DONE):
                yield call(work)
                yield from shared.finished()
            for helper in helpers:
                if not helper.cancel():
                    helper.result()
                yield from shared.finished()
        finally:
            shared.stopped = True
            for helper in helpers:
                if not helper.cancel():
                    helper.exception()

    def close(self) -> None:
        """Let the helpers go."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()

    def _submit(self, task: Callable[[], None], most: int) -> Future[None]:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(most, thread_name_prefix="sgraf-deploy")
            return self._pool.submit(task)


class _Shared(Generic[T, R]):
    """Works that several threads take from, and where helpers put the results."""

    def __init__(self, works: Iterator[T], call: Callable[[T], R]) -> None:
        self.results: SimpleQueue[R] = SimpleQueue()
        self.stopped = False
        self._works, self._call, self._lock = works, call, Lock()

    def take(self) -> T:
        """The next work, or `_DONE`."""
        with self._lock:
            work: T = _DONE if self.stopped else next(self._works, _DONE)
        return work

    def finished(self) -> Iterator[R]:
        """The results that are there."""
        try:
            while True:
                yield self.results.get_nowait()
        except Empty:
            return

    def work_off(self) -> None:
        """Take one work after the other, until the end or an error."""
        try:
            for work in iter(self.take, _DONE):
                self.results.put(self._call(work))
        except BaseException:
            self.stopped = True
            raise
