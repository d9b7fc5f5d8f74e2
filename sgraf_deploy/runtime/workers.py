"""Work that is shared by a calling thread and a pool of worker threads.

Every thread runs the same loop over its `Turns`, which hand it one piece of work after the other:

    for piece in turns:
        try:
            ...
        except EngineMemoryError as error:
            turns.halve(piece, error)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, Generic

from sgraf_deploy.errors import EngineMemoryError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.retry import OutOfMemoryRetry, W


class WorkerPool:
    """Threads that are started when they are first needed, and kept for later calls.

    One query takes milliseconds: it needs no second thread, and must not wait for one to start.
    Several threads may call `run` at the same time; they then share the pool.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._threads: ThreadPoolExecutor | None = None

    def run(self, work: SharedWork[W], task: Callable[[Turns[W]], None], workers: int) -> None:
        """Run `task` in so many threads, the calling one included, each with turns of its own.

        There are no more threads than pieces of work. After an error no piece begins any more; it
        is raised once none runs.
        """
        threads = work.count_up_to(workers)
        helpers = [self._submit(workers - 1, _help, work, task) for _ in range(threads - 1)]
        try:
            task(work.turns())
            for helper in helpers:
                if not helper.cancel():
                    helper.result()
                work.report()
        finally:
            work.stop()
            for helper in helpers:
                if not helper.cancel():
                    helper.exception()

    def close(self) -> None:
        """End the threads."""
        with self._lock:
            threads, self._threads = self._threads, None
        if threads is not None:
            threads.shutdown()

    def _submit(self, most: int, function: Callable[..., None], *arguments: Any) -> Future[None]:
        with self._lock:
            if self._threads is None:
                self._threads = ThreadPoolExecutor(most, thread_name_prefix="sgraf-deploy")
            return self._threads.submit(function, *arguments)


class SharedWork(Generic[W]):
    """Pieces of work that threads take in order, and the progress of all of them."""

    def __init__(
        self,
        pieces: Iterable[W],
        retry: OutOfMemoryRetry,
        *,
        total: int,
        progress: Progress | None = None,
    ) -> None:
        """`total` is the sum of the pieces' units; `progress` is told by the calling thread."""
        self.retry = retry
        self._coming = iter(pieces)
        self._finished: SimpleQueue[int] = SimpleQueue()
        self._lock = Lock()
        self._stopped = False
        self._done, self._total, self._progress = 0, total, progress

    def count_up_to(self, most: int) -> int:
        """Count the pieces before the first is taken, but at most so many."""
        first = list(islice(self._coming, most))
        self._coming = chain(first, self._coming)
        return len(first)

    def turns(self) -> Turns[W]:
        """The turns of the calling thread, which report the progress of every thread."""
        return Turns(self, reports=True)

    def take(self) -> W | None:
        """Take the next piece; None if there is none, or if the work was stopped."""
        with self._lock:
            return None if self._stopped else next(self._coming, None)

    def finish(self, piece: W) -> None:
        """Count a piece as done; any thread may call it."""
        self._finished.put(piece.units)

    def report(self) -> None:
        """Tell `progress` of every piece that was finished since; for the calling thread alone."""
        try:
            while True:
                self._done += self._finished.get_nowait()
                if self._progress is not None:
                    self._progress(self._done, self._total)
        except Empty:
            return

    def stop(self) -> None:
        """Let no further piece begin."""
        self._stopped = True


class Turns(Generic[W]):
    """The pieces that one thread takes of shared work, halved where memory does not suffice.

    A piece counts as done when the thread asks for the next one.
    """

    def __init__(self, work: SharedWork[W], *, reports: bool) -> None:
        self._work = work
        self._reports = reports
        self._taken: W | None = None
        self._pending: list[W] = []

    def __iter__(self) -> Iterator[W]:
        return self

    def __next__(self) -> W:
        while True:
            if not self._pending:
                self._pending.append(self._take())
            piece = self._pending.pop()
            if not self._work.retry.is_too_large(piece):
                return piece
            self._pending.extend(reversed(piece.halves()))

    def halve(self, piece: W, error: EngineMemoryError) -> None:
        """Go on with the two halves of a piece that did not fit.

        Raises EngineMemoryError if the piece cannot be divided.
        """
        self._work.retry.learn(piece, error)
        self._pending.extend(reversed(piece.halves()))

    def _take(self) -> W:
        """Finish what was taken before, and take the next piece; StopIteration after the last."""
        if self._taken is not None:
            self._work.finish(self._taken)
        if self._reports:
            self._work.report()
        self._taken = self._work.take()
        if self._taken is None:
            raise StopIteration
        return self._taken


def _help(work: SharedWork[W], task: Callable[[Turns[W]], None]) -> None:
    """Run `task` in a thread of the pool; an error there stops the other threads too."""
    try:
        task(Turns(work, reports=False))
    except BaseException:
        work.stop()
        raise
