"""Work that is halved when an engine runs out of memory."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Protocol, Self, TypeVar

from sgraf_deploy.errors import EngineMemoryError

_LOG = logging.getLogger(__name__)


class Work(Protocol):
    """A piece of work on an engine: a tile, or a batch of rows."""

    @property
    def units(self) -> int:
        """How much of the progress it is: images, captions or pairs."""

    @property
    def cost(self) -> int:
        """A number that its memory is proportional to; half of the work costs about half."""

    def halves(self) -> tuple[Self, ...]:
        """The same work in two pieces, in order; nothing if it cannot be divided."""


W = TypeVar("W", bound=Work)


class OutOfMemoryRetry:
    """Remembers, for one kind of work, up to which cost it may still fit an engine's memory.

    Several threads may use it: the worst that a race does is one more halving.
    """

    def __init__(self, what: str) -> None:
        """`what` names the work in messages, in the plural: `tiles`, `batches of images`."""
        self._what = what
        self._limit: int | None = None

    def is_too_large(self, piece: Work) -> bool:
        """Whether a piece costs more than what fits, as far as is known, and can be divided."""
        return self._limit is not None and piece.cost > self._limit and bool(piece.halves())

    def learn(self, piece: Work, error: EngineMemoryError) -> None:
        """Remember, with a warning the first time, that a piece did not fit.

        Raises EngineMemoryError if the piece cannot be divided.
        """
        if not piece.halves():
            raise EngineMemoryError(
                f"the smallest of the {self._what} does not fit: {error}",
                hint="free memory, or use another engine or device",
            ) from error
        level = logging.WARNING if self._limit is None else logging.INFO
        _LOG.log(level, "%s; halving the %s and going on", error, self._what)
        self._limit = max(1, piece.cost // 2)


@dataclass(frozen=True)
class Batch:
    """The rows start … stop - 1; each of them costs as much as the largest of them."""

    start: int
    stop: int
    row_cost: int = 1

    @property
    def rows(self) -> slice:
        """The rows as a slice."""
        return slice(self.start, self.stop)

    @property
    def units(self) -> int:
        """The number of rows."""
        return self.stop - self.start

    @property
    def cost(self) -> int:
        """The number of rows times the cost of the largest."""
        return self.units * self.row_cost

    def halves(self) -> tuple[Batch, ...]:
        """Two batches; nothing if there is only one row."""
        if self.units == 1:
            return ()
        middle = self.start + self.units // 2
        return replace(self, stop=middle), replace(self, start=middle)
