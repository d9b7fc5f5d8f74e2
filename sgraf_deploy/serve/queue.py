"""Calls that wait for the engine, and which of them it takes next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sgraf_deploy.errors import InputError
from sgraf_deploy.serve.calls import Answer, Call, merge


@dataclass(frozen=True)
class BatchLimits:
    """How much is scored at a time, and how much may wait.

    An engine call scores at most `max_batch_pairs`; at most `max_queue_pairs` wait, and a call of
    more is never accepted. An idle engine waits `max_wait_s` seconds for more calls, 0 by default:
    a batch is what came while the engine worked.

    Raises:
        InputError: a number that cannot be.
    """

    max_batch_pairs: int = 512
    max_queue_pairs: int = 16_384
    max_wait_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("max_batch_pairs", "max_queue_pairs"):
            if getattr(self, name) < 1:
                raise InputError(name, expected="at least 1", got=getattr(self, name))
        if not 0 <= self.max_wait_s < float("inf"):
            raise InputError("max_wait_s", expected="0 or more seconds", got=self.max_wait_s)


class Entry:
    """A call under way: its future, its deadline, and the answers to its parts so far."""

    __slots__ = ("_answers", "_taken", "arrived", "call", "deadline", "future", "pairs")

    def __init__(
        self, call: Call, future: asyncio.Future[Answer], arrived: float, deadline: float
    ) -> None:
        self.call, self.future, self.arrived, self.deadline = call, future, arrived, deadline
        self.pairs = call.pairs
        self._taken = 0
        self._answers: list[Answer] = []

    @property
    def waiting(self) -> int:
        """Pairs that the engine has not been given yet."""
        return self.pairs - self._taken

    def take(self, pairs: int) -> Call:
        """The next so many documents, as a call: the whole one where they are all."""
        start, self._taken = self._taken, self._taken + pairs
        whole = start == 0 and pairs == self.pairs
        return self.call if whole else self.call.part(start, self._taken)

    def deliver(self, outcome: Answer | Exception) -> None:
        """Answer the call, or keep what answers a part until the others are there."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
            return
        self._answers.append(outcome)
        if self.waiting == 0:
            alone = len(self._answers) == 1
            self.future.set_result(outcome if alone else merge(self.call, self._answers))


Batch = Sequence[tuple[Entry, Call]]
"""What the engine is given at a time: parts of calls, at most one of each."""


class Queue:
    """Entries that wait, of three classes: urgent, small and large; in each the oldest first.

    A call of more than half a batch is large. While large calls wait, small ones get at least half
    of each batch, and the large ones what is left: neither starves. Urgent ones always go.

    `pairs` are those that wait, urgent ones aside.
    """

    def __init__(self, max_batch_pairs: int) -> None:
        self.pairs = 0
        self._max = max_batch_pairs
        self._urgent: dict[Entry, None] = {}  # ordered sets
        self._small: dict[Entry, None] = {}
        self._large: dict[Entry, None] = {}

    def __len__(self) -> int:
        return len(self._urgent) + len(self._small) + len(self._large)

    def __iter__(self) -> Iterator[Entry]:
        yield from self._urgent
        yield from self._small
        yield from self._large

    def add(self, entry: Entry, *, urgent: bool = False) -> None:
        """Append an entry to its class."""
        if urgent:
            self._urgent[entry] = None
            return
        self.pairs += entry.waiting
        (self._small if self._is_small(entry) else self._large)[entry] = None

    def drop(self, entry: Entry) -> None:
        """Forget an entry, if it waits."""
        if entry in self._urgent:
            del self._urgent[entry]
            return
        waits = self._small if self._is_small(entry) else self._large
        if entry in waits:
            del waits[entry]
            self.pairs -= entry.waiting

    def take(self) -> Batch:
        """The parts of calls that are scored next: at most a batch's pairs, and urgent calls."""
        batch = [(entry, entry.take(entry.waiting)) for entry in self._urgent]
        self._urgent.clear()
        room = self._max
        kept = min(self._max // 2, sum(entry.waiting for entry in self._large))
        for entry in list(self._small):
            if entry.waiting > room - kept:
                break
            room -= entry.waiting
            batch.append((entry, self._taken(entry, entry.waiting)))
        for entry in list(self._large):
            if room == 0:
                break
            pairs = min(room, entry.waiting)
            room -= pairs
            batch.append((entry, self._taken(entry, pairs)))
        return batch

    def _taken(self, entry: Entry, pairs: int) -> Call:
        waits = self._small if self._is_small(entry) else self._large
        call = entry.take(pairs)
        self.pairs -= pairs
        if entry.waiting == 0:
            del waits[entry]
        return call

    def _is_small(self, entry: Entry) -> bool:
        return entry.pairs <= self._max // 2
