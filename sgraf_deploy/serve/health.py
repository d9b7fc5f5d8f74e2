"""Whether a server is ready: its engine answers a real call within a deadline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sgraf_deploy.errors import SgrafDeployError
from sgraf_deploy.serve.calls import Answer, Call, CaptionText, RegionsArray


class EngineState(Protocol):
    """What is asked of a batcher's state; see `batcher.State`."""

    @property
    def alive(self) -> bool:
        """Whether calls can be answered at all."""

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop."""

    @property
    def busy_s(self) -> float:
        """Seconds that the engine's present call has taken."""

    @property
    def ok_s(self) -> float | None:
        """Seconds since the engine last answered."""


class CallQueue(Protocol):
    """What the server asks of a batcher."""

    @property
    def state(self) -> EngineState:
        """How the engine is now."""

    async def submit(self, call: Call, timeout_s: float, *, urgent: bool = False) -> Answer:
        """Answer a call within so many seconds, or raise."""


@dataclass(frozen=True)
class Ready:
    """Whether the server is ready, and if not, why."""

    ready: bool
    reason: str


class Health:
    """Answers /readyz. A result is kept for `fresh_s` seconds; requests meanwhile share one check.

    An engine call that takes longer than `deadline_s` counts as stuck.
    """

    def __init__(
        self,
        batcher: CallQueue,
        probe: Call,
        *,
        deadline_s: float = 5.0,
        fresh_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._batcher, self._probe = batcher, probe
        self._deadline_s, self._fresh_s, self._clock = deadline_s, fresh_s, clock
        self._last: tuple[float, Ready] | None = None
        self._check: asyncio.Task[Ready] | None = None

    async def check(self) -> Ready:
        """Whether the server is ready now."""
        state = self._batcher.state
        if state.draining:
            return Ready(False, "the server is about to stop")
        if not state.alive:
            return Ready(False, "the engine has ended")
        if state.busy_s > self._deadline_s:
            return Ready(False, "the engine is stuck")
        if state.ok_s is not None and state.ok_s <= self._fresh_s:
            return Ready(True, "")
        if self._last is not None and self._clock() - self._last[0] <= self._fresh_s:
            return self._last[1]
        if self._check is None or self._check.done():
            self._check = asyncio.create_task(self._ask(), name="readiness")
        return await asyncio.shield(self._check)

    async def _ask(self) -> Ready:
        try:
            await self._batcher.submit(self._probe, self._deadline_s, urgent=True)
            found = Ready(True, "")
        except SgrafDeployError as error:
            found = Ready(False, f"the engine does not answer: {type(error).__name__}")
        self._last = self._clock(), found
        return found


def probe_call(regions: int, img_dim: int) -> Call:
    """A call of one pair, by which an engine is tried; it needs no gallery."""
    ones = np.ones((regions, img_dim), np.float32)
    return Call(RegionsArray(ones), (CaptionText("a"),))
