"""Answers calls in batches: what came while the engine worked is what it is given next."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

from sgraf_deploy.serve.calls import Answer, Call, FailedError, OverloadedError, TimedOutError
from sgraf_deploy.serve.queue import Batch, BatchLimits, Entry, Queue
from sgraf_deploy.serve.worker import EngineThread, Outcomes, Run

_SMOOTHING = 0.2
"""Weight of the last batch in the measured rate."""

_LEAST_RETRY_S = 1.0

log = logging.getLogger(__name__)


class Engine(Protocol):
    """What the batcher asks of an engine's thread."""

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""

    def submit(self, calls: Sequence[Call]) -> Future[Outcomes]:
        """Have calls answered; the future holds their outcomes, or what the engine raised."""

    def close(self) -> None:
        """Let the thread end."""


class Observer(Protocol):
    """What is told of calls and batches, for metrics."""

    def queued(self, seconds: float) -> None:
        """The engine is given a call's first pairs, so long after the call came."""

    def batch(self, pairs: int, calls: int) -> None:
        """The engine is given so many pairs of so many calls."""

    def waiting(self, pairs: int) -> None:
        """So many pairs wait now."""


@dataclass(frozen=True)
class State:
    """How the engine is.

    `alive` is false once nothing can be answered any more. `busy_s` are the seconds that the
    engine's present call has taken, 0 without one; `ok_s` those since it last answered one, None
    before. `waiting_pairs` wait, and `under_way` calls are accepted and not yet answered.
    `draining` is true once the server is about to stop.
    """

    alive: bool
    busy_s: float
    ok_s: float | None
    waiting_pairs: int
    under_way: int
    draining: bool


class Batcher:
    """Collects calls while the engine works, and answers each of them, whatever happens.

    It is used by one event loop, as an async context manager. `run` answers calls in the engine's
    thread; where it raises, each call of the batch is run again alone, so that the one at fault
    alone gets a FailedError. Calls may be cut into parts that are scored in different batches.

    `clock` tells seconds, and `chance` numbers from 0 to 1 for the jitter of `retry_after_s`.

    Example:
        >>> import asyncio
        >>> from sgraf_deploy.serve.batcher import Batcher
        >>> from sgraf_deploy.serve.calls import Answer, Call, CaptionText, Item, StoredId
        >>> def run(calls):
        ...     return [Answer((Item(0, 0.5, 0.0),)) for call in calls]
        >>> async def ask():
        ...     async with Batcher(run) as batcher:
        ...         call = Call(CaptionText("a red cup"), (StoredId("7"),))
        ...         return await batcher.submit(call, timeout_s=5.0)
        >>> asyncio.run(ask()).items
        (Item(index=0, similarity=0.5, logit=0.0),)
    """

    def __init__(
        self,
        run: Run,
        limits: BatchLimits | None = None,
        *,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        engine: Callable[[Run], Engine] = EngineThread,
    ) -> None:
        self.limits = limits or BatchLimits()
        self.draining = False
        self._run, self._make, self._observer = run, engine, observer
        self._clock, self._chance = clock, chance
        self._queue = Queue(self.limits.max_batch_pairs)
        self._under_way: dict[Entry, None] = {}  # an ordered set
        self._busy_since: float | None = None
        self._ok_at: float | None = None
        self._rate: float | None = None  # pairs per second
        self._scoring = 0  # pairs
        self._told = -1  # the pairs that the observer was told of
        self._open = False

    async def __aenter__(self) -> Self:
        self._engine = self._make(self._run)
        self._came, self._idle = asyncio.Event(), asyncio.Event()
        self._idle.set()
        self._open = True
        self._task = asyncio.create_task(self._work(), name="batcher")
        self._task.add_done_callback(self._ended)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
        with suppress(asyncio.CancelledError):
            await self._task

    @property
    def state(self) -> State:
        """How the engine is now."""
        now = self._clock()
        return State(
            alive=self._open and self._engine.alive,
            busy_s=0.0 if self._busy_since is None else now - self._busy_since,
            ok_s=None if self._ok_at is None else now - self._ok_at,
            waiting_pairs=self._queue.pairs,
            under_way=len(self._under_way),
            draining=self.draining,
        )

    async def submit(self, call: Call, timeout_s: float, *, urgent: bool = False) -> Answer:
        """Answer a call, within `timeout_s` seconds.

        A task that is cancelled while it waits here takes its call back. An `urgent` call, such as
        a check of the engine, goes before all others and is never refused for their number.

        Raises:
            OverloadedError: too many pairs wait; nothing of the call was accepted.
            TimedOutError: the time was over first.
            FailedError: the engine failed on this very call, or the batcher was closed.
            SgrafDeployError: what `run` answered the call with, such as an unknown id.
        """
        entry = self._accept(call, timeout_s, urgent)
        timer = asyncio.get_running_loop().call_later(timeout_s, self._expire, entry)
        try:
            return await entry.future
        finally:
            timer.cancel()
            self._forget(entry)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until every accepted call is answered; False if that took more than `timeout_s`."""
        if self._idle.is_set():
            return True
        try:
            await asyncio.wait_for(self._idle.wait(), timeout_s)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Accept nothing more, and refuse what is not answered yet."""
        if self._open:
            self._open = False
            self._task.cancel()
            self._engine.close()

    def _accept(self, call: Call, timeout_s: float, urgent: bool) -> Entry:
        """Append a call to the queue; OverloadedError if it has no room for all of it."""
        if not self._open:
            raise FailedError("the server stops")
        room = self.limits.max_queue_pairs - self._queue.pairs
        if call.pairs > room and not urgent:
            raise OverloadedError(
                "the queue is full",
                expected=f"at most {self.limits.max_queue_pairs:,} pairs",
                got=f"{self._queue.pairs:,} that wait and {call.pairs:,} more",
                hint="try again later",
                retry_after_s=self._retry_after_s(call.pairs),
            )
        now = self._clock()
        future = asyncio.get_running_loop().create_future()
        entry = Entry(call, future, now, now + timeout_s)
        self._under_way[entry] = None
        self._idle.clear()
        self._queue.add(entry, urgent=urgent)
        self._tell_waiting()
        self._came.set()
        return entry

    def _retry_after_s(self, pairs: int) -> float:
        """When there may be room, by the measured rate; up to twice that, so that not all return
        at once."""
        before = self._queue.pairs + self._scoring + pairs - self.limits.max_queue_pairs
        wait = 0.0 if self._rate is None else before / self._rate
        return max(_LEAST_RETRY_S, wait) * (1.0 + self._chance())

    def _expire(self, entry: Entry) -> None:
        if not entry.future.done():
            waited = self._clock() - entry.arrived
            entry.deliver(TimedOutError("the request's time is over", got=f"{waited:.3f} s"))
            self._forget(entry)

    def _forget(self, entry: Entry) -> None:
        """Take an entry out of everything; what of it the engine has is not waited for."""
        if entry not in self._under_way:
            return
        if entry.future.done() and not entry.future.cancelled():
            entry.future.exception()  # a task that was cancelled meanwhile does not ask for it
        self._queue.drop(entry)
        del self._under_way[entry]
        self._tell_waiting()
        if not self._under_way:
            self._idle.set()

    async def _work(self) -> None:
        while True:
            self._came.clear()
            if not self._queue:
                await self._came.wait()
            await self._linger()
            batch = self._take()
            if batch:
                await self._score(batch)

    async def _linger(self) -> None:
        """Wait for more calls, as long as the limits say."""
        if not self.limits.max_wait_s or not self._queue:
            return
        until = min(entry.arrived for entry in self._queue) + self.limits.max_wait_s
        while (left := until - self._clock()) > 0:
            if self._queue.pairs >= self.limits.max_batch_pairs:
                return
            self._came.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._came.wait(), left)

    def _take(self) -> Batch:
        """What is scored next: no call whose time is over, or whose client has left."""
        now, batch = self._clock(), []
        for entry, part in self._queue.take():
            if entry.deadline <= now:
                self._expire(entry)
            if entry.future.done():
                self._forget(entry)
                continue
            batch.append((entry, part))
            if self._observer is not None and part.first == entry.call.first:
                self._observer.queued(now - entry.arrived)
        if self._observer is not None and batch:
            self._observer.batch(sum(part.pairs for _, part in batch), len(batch))
        self._tell_waiting()
        return batch

    def _tell_waiting(self) -> None:
        if self._observer is not None and self._told != self._queue.pairs:
            self._told = self._queue.pairs
            self._observer.waiting(self._told)

    async def _score(self, batch: Batch) -> None:
        """Have a batch answered; what the engine raises on is run again, call by call."""
        self._scoring = sum(part.pairs for _, part in batch)
        try:
            found = await self._call([part for _, part in batch])
            if not isinstance(found, Exception):
                for (entry, _), outcome in zip(batch, found, strict=True):
                    entry.deliver(outcome)
            elif len(batch) == 1:
                batch[0][0].deliver(_failed(found))
            else:
                for entry, part in batch:
                    await self._score_alone(entry, part)
        finally:
            self._scoring = 0
            for entry, _ in batch:
                if entry.future.done():
                    self._forget(entry)

    async def _score_alone(self, entry: Entry, part: Call) -> None:
        if entry.future.done():
            return
        if entry.deadline <= self._clock():
            self._expire(entry)
            return
        found = await self._call([part])
        entry.deliver(_failed(found) if isinstance(found, Exception) else found[0])

    async def _call(self, parts: Sequence[Call]) -> Outcomes | Exception:
        """What the engine answers parts with, or what it raises."""
        started = self._busy_since = self._clock()
        future = self._engine.submit(parts)
        try:
            await _until_done(future)
        finally:
            self._busy_since = None
        error = future.exception()
        if error is None and len(future.result()) != len(parts):
            error = ValueError(f"{len(future.result())} answers to {len(parts)} calls")
        if error is not None:
            _log_failure(error, parts)
            return error if isinstance(error, Exception) else FailedError("the engine ended")
        self._ok_at = self._clock()
        self._measure(sum(part.pairs for part in parts), self._ok_at - started)
        return future.result()

    def _measure(self, pairs: int, seconds: float) -> None:
        rate = pairs / max(seconds, 1e-6)
        old = rate if self._rate is None else self._rate
        self._rate = old + _SMOOTHING * (rate - old)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Refuse what is not answered: the batcher was closed, or has itself failed."""
        if not task.cancelled():
            log.error("the batcher has ended: %s", _where(task.exception()))
        self._open = False
        for entry in list(self._under_way):
            entry.deliver(FailedError("the server stops", hint="try again"))
            self._forget(entry)


async def _until_done(future: Future[Outcomes]) -> None:
    """Wait until another thread has ended a future: asyncio's own ways take thrice as long."""
    loop = asyncio.get_running_loop()
    told = loop.create_future()

    def tell() -> None:
        if not told.done():
            told.set_result(None)

    def ended(_: Future[Outcomes]) -> None:
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits any more
            loop.call_soon_threadsafe(tell)

    future.add_done_callback(ended)
    await told


def _failed(error: Exception) -> FailedError:
    """What a call is answered with that the engine raised on; its message may hold a payload."""
    refusal = FailedError("the engine failed on this request", got=type(error).__name__)
    refusal.__cause__ = error
    return refusal


def _log_failure(error: BaseException, parts: Sequence[Call]) -> None:
    pairs = sum(part.pairs for part in parts)
    log.error("the engine failed on %d calls, %d pairs: %s", len(parts), pairs, _where(error))


def _where(error: BaseException | None) -> str:
    """An exception's type and place in the code, without its message, which may hold a payload."""
    if error is None:
        return "no exception"
    places = [f"{at.filename}:{at.lineno}" for at in traceback.extract_tb(error.__traceback__)]
    return f"{type(error).__name__} at {' < '.join(reversed(places)) or 'an unknown place'}"
