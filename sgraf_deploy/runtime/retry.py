"""Runs work that halves itself when an engine runs out of memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

from sgraf_deploy.errors import EngineMemoryError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.workers import WorkerPool

_LOG = logging.getLogger(__name__)


class Work(Protocol):
    """A piece of work on an engine."""

    @property
    def units(self) -> int:
        """What it counts for in the progress."""

    @property
    def cost(self) -> int:
        """What its memory grows with; the cost of a half is about half of it."""

    def halves(self) -> tuple[Self, ...]:
        """The same work in two pieces, in order; nothing if it cannot be divided."""


W = TypeVar("W", bound=Work)


class OutOfMemoryRetry:
    """Remembers, for one kind of work, which cost an engine's memory was too small for.

    May be used by several threads: the worst that a race does is one more halving.
    """

    def __init__(self, what: str, pool: WorkerPool | None = None) -> None:
        """`what` names the work in messages, in the plural: `tiles`, `batches of images`."""
        self._what = what
        self._pool = pool or WorkerPool()
        self._limit: int | None = None

    def run(
        self,
        works: Iterable[W],
        execute: Callable[[W], None],
        *,
        total: int,
        progress: Progress | None = None,
        workers: int = 1,
    ) -> None:
        """Execute every piece of work, halved where it does not fit, `workers` at a time.

        Pieces begin in order, and progress is told by the calling thread. Raises what a piece
        raises, once none runs any more: EngineMemoryError when one that cannot be divided does
        not fit.
        """
        done = 0
        for units in self._pool.spread(works, lambda work: self._finish(work, execute), workers):
            done += units
            if progress is not None:
                progress(done, total)

    def _finish(self, work: W, execute: Callable[[W], None]) -> int:
        """Execute one piece of work, halved as often as need be; returns its units."""
        pending = [work]
        while pending:
            piece = pending.pop()
            if self._too_large(piece) or not self._fits(piece, execute):
                pending.extend(reversed(piece.halves()))
        return work.units

    def _too_large(self, piece: Work) -> bool:
        limit = self._limit
        return limit is not None and piece.cost > limit and bool(piece.halves())

    def _fits(self, piece: W, execute: Callable[[W], None]) -> bool:
        try:
            execute(piece)
        except EngineMemoryError as error:
            if not piece.halves():
                raise EngineMemoryError(
                    f"the smallest of the {self._what} does not fit: {error}",
                    hint="free memory, or use another engine or device",
                ) from error
            level = logging.WARNING if self._limit is None else logging.INFO
            _LOG.log(level, "%s; halving the %s and going on", error, self._what)
            self._limit = max(1, piece.cost // 2)
            return False
        return True


@dataclass(frozen=True)
class Batch:
    """Rows start … stop - 1, each of which costs as much as the dearest of them."""

    start: int
    stop: int
    row_cost: int = 1

    @property
    def units(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    @property
    def cost(self) -> int:
        """The rows at the cost of the dearest."""
        return self.units * self.row_cost

    def halves(self) -> tuple[Batch, ...]:
        """Two batches, or none if there is only one row."""
        if self.units == 1:
            return ()
        middle = self.start + self.units // 2
        return replace(self, stop=middle), replace(self, start=middle)
