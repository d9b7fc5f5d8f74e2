"""An event loop whose time passes only when nothing else is left to do, and a held engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from sgraf_deploy.serve.calls import Answer, Call, Item, StoredId
from sgraf_deploy.serve.worker import Outcomes

T = TypeVar("T")


class VirtualLoop(asyncio.SelectorEventLoop):
    """Jumps to its next timer instead of waiting for it; what waits for ever is an error."""

    now = 0.0

    def time(self) -> float:
        """The virtual seconds since it was made."""
        return self.now

    def _run_once(self) -> None:
        loop: Any = self
        if not loop._ready:
            timers = [timer.when() for timer in loop._scheduled if not timer.cancelled()]
            if not timers:
                raise AssertionError("what is waited for never comes")
            self.now = max(self.now, min(timers))
        super()._run_once()  # type: ignore[misc]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def clock() -> float:
    """The running loop's time."""
    return asyncio.get_running_loop().time()


async def settle() -> None:
    """Let everything run that can, while no time passes."""
    for _ in range(20):
        await asyncio.sleep(0)


def answer(call: Call) -> Answer:
    """The items of a call of stored ids that are numbers: a document's logit is its number."""
    items = [
        Item(call.first + at, 0.5, float(part.id))
        for at, part in enumerate(call.documents)
        if isinstance(part, StoredId)
    ]
    return Answer(tuple(sorted(items, key=lambda item: (-item.logit, item.index))), tokens=3)


class HeldEngine:
    """An engine's thread that answers when the test says so; `given` are the batches it got."""

    def __init__(self, _: object) -> None:
        self.alive = True
        self.given: list[Sequence[Call]] = []
        self._futures: list[Future[Outcomes]] = []

    def submit(self, calls: Sequence[Call]) -> Future[Outcomes]:
        """Keep the calls."""
        future: Future[Outcomes] = Future()
        self.given.append(calls)
        self._futures.append(future)
        return future

    def close(self) -> None:
        """Note it."""
        self.alive = False

    async def release(self, outcomes: Outcomes | Exception | None = None) -> None:
        """Answer the last batch: as `answer` does, as given, or by raising; then settle."""
        future = self._futures[-1]
        if isinstance(outcomes, Exception):
            future.set_exception(outcomes)
        else:
            future.set_result(outcomes or [answer(call) for call in self.given[-1]])
        await settle()

    async def release_all(self, rule: Callable[[Call], Answer] = answer) -> None:
        """Answer batches until no more come; a rule that raises fails its batch."""
        while not self._futures[-1].done():
            try:
                found: Outcomes | Exception = [rule(call) for call in self.given[-1]]
            except RuntimeError as error:
                found = error
            await self.release(found)
