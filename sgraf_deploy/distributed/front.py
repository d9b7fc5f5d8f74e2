"""What the front asks of the replicas that score: one more replica where one ends.

Nothing here knows of Ray: a `Shard` is whatever sends a call to one of its replicas.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

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
"""How many replicas a call is sent to: scoring it twice changes nothing."""
DETAILS_S = 30.0
"""Seconds in which a shard tells what is kept beside an image."""


class ReplicaLostError(Exception):
    """A replica ended before it answered."""


class Shard(Protocol):
    """Replicas that have the same part of the gallery."""

    async def answer(self, call: Call, timeout_s: float, urgent: bool) -> Answer | RequestError:
        """Have one replica answer a call.

        Raises:
            ReplicaLostError: the replica ended first.
            RequestError: there is no replica.
        """

    async def details(self, id_: str) -> dict[str, Any] | RequestError:
        """Have one replica tell what is kept beside an image; raises as `answer`."""


class ShardQueue:
    """The `CallQueue` of a front: asks each shard for its share of a call, within the deadline.

    A call whose replica ends is sent to one more. What a replica refuses is not asked again.
    """

    def __init__(
        self, shards: Sequence[Shard], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._shards, self._clock = shards, clock
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
        deadline = self._clock() + timeout_s
        self._turn = (self._turn + 1) % len(self._shards)
        self._under_way += 1
        try:
            if urgent:
                every = [self._ask(shard, call, deadline, urgent) for shard in self._shards]
                return _first(await asyncio.gather(*every))
            shares = split(call, len(self._shards), self._turn)
            asked = [
                self._ask(self._shards[share.shard], share.call, deadline, urgent)
                for share in shares
            ]
            return join(call, shares, await asyncio.gather(*asked))
        finally:
            self._under_way -= 1

    async def _ask(
        self, shard: Shard, call: Call, deadline: float, urgent: bool
    ) -> Answer | RequestError:
        """What a shard answers, or why it does not."""
        for _ in range(ATTEMPTS):
            left = deadline - self._clock()
            if left <= 0:
                break
            try:
                async with asyncio.timeout(left):
                    return await shard.answer(call, left, urgent)
            except ReplicaLostError:
                continue
            except RequestError as error:
                return error
            except TimeoutError:
                break
        else:
            what = "the replicas that were asked ended before they answered"
            return FailedError(what, got=f"{ATTEMPTS} of them", hint="try again", retry_after_s=1.0)
        return TimedOutError("the request's time is over")


class ShardImages:
    """The images of a gallery that are read in its shards, and changed elsewhere."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._shards = shards

    async def get(self, id_: str) -> dict[str, Any]:
        """What is kept beside an image's regions; NotFoundError for an unknown id."""
        shard = self._shards[shard_of(id_, len(self._shards))]
        try:
            async with asyncio.timeout(DETAILS_S):
                found = await shard.details(id_)
        except (ReplicaLostError, TimeoutError) as error:
            raise FailedError("the image could not be read", retry_after_s=1.0) from error
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
