"""What the front asks of the replicas that score: one more replica where one ends, or is not there.

Nothing here knows of Ray: a `Shard` is whatever sends a call to one of its replicas.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from sgraf_deploy.distributed.shards import join, shard_of, split
from sgraf_deploy.serve.batcher import State
from sgraf_deploy.serve.calls import (
    Answer,
    Call,
    ConflictError,
    FailedError,
    RequestError,
    TimedOutError,
)

ATTEMPTS = 2
"""How many replicas may end with a call that they took: scoring it twice changes nothing, but a
call that ends whatever takes it must not end them all."""
AGAIN_S = 0.1
"""Seconds after which a replica is looked for again."""
TRIES = 4
"""Into how many tries `down_s` is cut where no replica takes a call: if one that hangs is given it
first, another is asked next."""
DETAILS_S = 30.0
"""Seconds in which a shard tells what is kept beside an image."""

_T = TypeVar("_T")


class ReplicaLostError(Exception):
    """A replica ended after it took a call and before it answered."""


class NoReplicaError(Exception):
    """There is no replica that takes a call now."""


class Shard(Protocol):
    """Replicas that have the same part of the gallery."""

    async def answer(
        self, call: Call, timeout_s: float, urgent: bool, taken_s: float
    ) -> Answer | RequestError:
        """Have one replica answer a call, which it takes within `taken_s` seconds.

        Raises:
            ReplicaLostError: the replica took it and ended.
            NoReplicaError: none took it.
            RequestError: it cannot be answered.
        """

    async def details(self, id_: str, taken_s: float) -> dict[str, Any] | RequestError:
        """Have one replica tell what is kept beside an image; raises as `answer`."""


@dataclass(frozen=True)
class Patience:
    """How long replicas are looked for.

    What a replica took and ended with is sent to one more. Where none takes it, one is looked for
    until `down_s` seconds are over, as one may hang and another just be starting. What is refused
    is not sent again.
    """

    down_s: float
    clock: Callable[[], float] = time.monotonic

    async def ask(
        self,
        shard: int,
        deadline: float,
        act: Callable[[float, float], Awaitable[_T | RequestError]],
    ) -> _T | RequestError:
        """What a replica of a shard answers, or why none does.

        `act` sends a call to one: it is given the seconds until the deadline, and those in which a
        replica has to take it.
        """
        try:
            for _ in range(ATTEMPTS):
                try:
                    return await self._once(shard, deadline, act)
                except ReplicaLostError:
                    continue
        except RequestError as error:
            return error
        except TimeoutError:
            return TimedOutError("the request's time is over")
        what = "the replicas that were asked ended before they answered"
        return FailedError(what, got=f"{ATTEMPTS} of them", hint="try again", retry_after_s=1.0)

    async def _once(
        self,
        shard: int,
        deadline: float,
        act: Callable[[float, float], Awaitable[_T | RequestError]],
    ) -> _T | RequestError:
        """What the first replica that is there answers."""
        down = self.clock() + self.down_s
        while True:
            now = self.clock()
            left = deadline - now
            if left <= 0:
                raise TimeoutError
            try:
                async with asyncio.timeout(left):
                    return await act(left, min(max(down - now, 0.0), self.down_s / TRIES))
            except NoReplicaError as error:
                if self.clock() + AGAIN_S > down:
                    raise _down(shard) from error
            await asyncio.sleep(AGAIN_S)


def _down(shard: int) -> FailedError:
    what = f"shard {shard} of the gallery does not answer"
    return FailedError(what, hint="try again later", code="shard_down", retry_after_s=1.0)


class ShardQueue:
    """The `CallQueue` of a front: asks each shard for its share of a call, within the deadline."""

    def __init__(self, shards: Sequence[Shard], patience: Patience) -> None:
        self.shards, self.patience = shards, patience
        self._turn = self._under_way = 0

    @property
    def state(self) -> State:
        """How the replicas are is not known here: they are asked each time."""
        return State(True, 0.0, None, 0, self._under_way, draining=False)

    async def submit(self, call: Call, timeout_s: float, *, urgent: bool = False) -> Answer:
        """Answer a call within so many seconds; an urgent one is asked of every shard.

        Raises:
            RequestError: as `Batcher.submit`; FailedError if a shard has no replica that answers.
        """
        deadline = self.patience.clock() + timeout_s
        self._turn = (self._turn + 1) % len(self.shards)
        self._under_way += 1
        try:
            if urgent:
                places = range(len(self.shards))
                every = [self._ask(shard, call, deadline, urgent) for shard in places]
                return _first(await asyncio.gather(*every))
            shares = split(call, len(self.shards), self._turn)
            asked = [self._ask(each.shard, each.call, deadline, urgent) for each in shares]
            return join(call, shares, await asyncio.gather(*asked))
        finally:
            self._under_way -= 1

    async def _ask(
        self, shard: int, call: Call, deadline: float, urgent: bool
    ) -> Answer | RequestError:
        """What a shard answers, or why it does not."""

        async def act(left_s: float, taken_s: float) -> Answer | RequestError:
            return await self.shards[shard].answer(call, left_s, urgent, taken_s)

        return await self.patience.ask(shard, deadline, act)


class ShardImages:
    """The images of a gallery that are read in its shards, and changed elsewhere."""

    def __init__(self, shards: Sequence[Shard], patience: Patience) -> None:
        self._shards, self._patience = shards, patience

    async def get(self, id_: str) -> dict[str, Any]:
        """What is kept beside an image's regions; NotFoundError for an unknown id."""
        shard = shard_of(id_, len(self._shards))

        async def act(_: float, taken_s: float) -> dict[str, Any] | RequestError:
            return await self._shards[shard].details(id_, taken_s)

        found = await self._patience.ask(shard, self._patience.clock() + DETAILS_S, act)
        if isinstance(found, RequestError):
            raise found
        return found

    async def put(self, id_: str, body: bytes) -> dict[str, Any]:
        """Refuse to store an image."""
        raise _read_only()

    async def delete(self, id_: str) -> dict[str, Any]:
        """Refuse to delete an image."""
        raise _read_only()


def _first(outcomes: Sequence[Answer | RequestError]) -> Answer:
    """The first answer, once there is no refusal among them."""
    for found in outcomes:
        if isinstance(found, RequestError):
            raise found
    return next(found for found in outcomes if isinstance(found, Answer))


def _read_only() -> ConflictError:
    return ConflictError(
        "the gallery is read only on Ray",
        hint="change it with `sgraf-deploy index`, then run `sgraf-deploy serve --ray` again",
        code="read_only",
    )
