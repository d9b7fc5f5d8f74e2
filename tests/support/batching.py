"""A batcher over a held engine in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from support.virtual_time import HeldEngine, clock, run, settle

from sgraf_deploy.serve.batcher import Batcher
from sgraf_deploy.serve.calls import Answer, Call, CaptionText, StoredId
from sgraf_deploy.serve.queue import BatchLimits


def call(*numbers: int, name: str = "a red cup", top_n: int | None = None) -> Call:
    """A call whose documents are numbers."""
    return Call(CaptionText(name), tuple(StoredId(str(number)) for number in numbers), top_n)


class Watched:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.batches: list[tuple[int, int]] = []
        self.pairs = -1

    def queued(self, seconds: float) -> None:
        """Keep the seconds."""
        self.seconds.append(seconds)

    def batch(self, pairs: int, calls: int) -> None:
        """Keep the numbers."""
        self.batches.append((pairs, calls))

    def waiting(self, pairs: int) -> None:
        """Keep the last number."""
        self.pairs = pairs


class World:
    """A batcher over a held engine, and the tasks that ask it.

    Its clock is `ahead` of the loop's, whose timers are then late.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self.engine, self.watched, self.ahead = HeldEngine(None), Watched(), 0.0
        self.batcher = Batcher(
            lambda calls: [],
            limits,
            observer=self.watched,
            clock=lambda: clock() + self.ahead,
            chance=lambda: 0.5,
            engine=lambda run: self.engine,
        )

    async def ask(
        self, asked: Call, timeout_s: float = 100.0, *, urgent: bool = False
    ) -> asyncio.Task[Answer]:
        """A task that asks; it has been accepted, or has failed."""
        work = self.batcher.submit(asked, timeout_s, urgent=urgent)
        task = asyncio.ensure_future(work)
        await settle()
        return task

    @property
    def given(self) -> list[list[list[int]]]:
        """The documents of the calls of each batch that the engine got."""
        return [
            [[int(part.id) for part in each.documents if isinstance(part, StoredId)] for each in b]
            for b in self.engine.given
        ]


def within(
    work: Callable[[World], Awaitable[None]],
    max_batch_pairs: int = 8,
    max_queue_pairs: int = 100,
    max_wait_s: float = 0.0,
) -> None:
    """Run a test in virtual time; nothing is left under way, and the engine's thread is let go."""

    async def inside() -> None:
        world = World(BatchLimits(max_batch_pairs, max_queue_pairs, max_wait_s))
        async with world.batcher as batcher:
            await work(world)
        assert (batcher.state.under_way, batcher.state.waiting_pairs) == (0, 0)
        assert not world.engine.alive
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert all(task.done() for task in others)

    run(inside())


def logits(found: Answer) -> list[float]:
    """The logits of an answer, in its order."""
    return [item.logit for item in found.items]
