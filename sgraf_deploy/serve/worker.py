"""The one thread that runs the engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from queue import SimpleQueue

from sgraf_deploy.serve.calls import Answer, Call, FailedError

Outcomes = Sequence[Answer | Exception]
Run = Callable[[Sequence[Call]], Outcomes]
"""Answers calls, in their order; an exception in an answer's place refuses that call alone."""

_Task = tuple[Sequence[Call], "Future[Outcomes]"]


class EngineThread:
    """Runs batches of calls one after the other, in a thread of its own.

    An exception goes to whoever waits for the batch, and the thread goes on. It does not keep the
    process from ending: an engine that hangs would keep it for ever.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def submit(self, calls: Sequence[Call]) -> Future[Outcomes]:
        """Have calls answered; the future holds their outcomes, or what the engine raised."""
        future: Future[Outcomes] = Future()
        if self.alive:
            self._tasks.put((calls, future))
        else:
            future.set_exception(FailedError("the engine's thread has ended"))
        return future

    def close(self) -> None:
        """Let the thread end after the batches that it was given; does not wait for it."""
        self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            calls, future = task
            if not future.set_running_or_notify_cancel():
                continue
            try:
                outcomes = self._run(calls)
            except BaseException as error:
                future.set_exception(error if isinstance(error, Exception) else _ended(error))
                if not isinstance(error, Exception):
                    raise
            else:
                future.set_result(outcomes)


def _ended(error: BaseException) -> FailedError:
    return FailedError("the engine's thread has ended", got=type(error).__name__)
