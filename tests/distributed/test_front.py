"""The queue of a front: another replica within the deadline, every shard, no refusal twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest
from support import virtual_time
from support.refusals import refused
from support.small_galleries import IMAGE_IDS

from sgraf_deploy.distributed.front import (
    NoReplicaError,
    Patience,
    ReplicaLostError,
    ShardImages,
    ShardQueue,
)
from sgraf_deploy.distributed.shards import shard_of
from sgraf_deploy.serve.calls import (
    Answer,
    Call,
    CaptionText,
    ConflictError,
    FailedError,
    Item,
    NotFoundError,
    RequestError,
    StoredId,
    TimedOutError,
    UnprocessableError,
)
from sgraf_deploy.serve.images import unknown_image

CALL = Call(CaptionText("a dog"), tuple(StoredId(id_) for id_ in IMAGE_IDS))
Happens = Exception | None
_T = TypeVar("_T")


PATIENCE = Patience(5.0, virtual_time.clock)


class FakeShard:
    """A shard whose replicas do one after the other what they are told: raise, or answer.

    Each takes `takes_s` seconds of virtual time. Before `there_s` there is none; if it `waits`, it
    looks for one as long as it is given, as Ray's handle does.
    """

    def __init__(
        self, *happens: Happens, takes_s: float = 0.0, there_s: float = 0.0, waits: bool = False
    ) -> None:
        self.happens, self.takes_s = list(happens), takes_s
        self.there_s, self.waits = there_s, waits
        self.asked: list[tuple[Call, float, bool]] = []

    async def answer(
        self, call: Call, timeout_s: float, urgent: bool, taken_s: float
    ) -> Answer | RequestError:
        await self._taken(taken_s)
        self.asked.append((call, timeout_s, urgent))
        await asyncio.sleep(self.takes_s)
        found = self._next()
        if found is not None:
            return found
        return Answer(tuple(Item(row, 0.5, -float(row)) for row in range(call.pairs)))

    async def details(self, id_: str, taken_s: float) -> dict[str, Any] | RequestError:
        await self._taken(taken_s)
        return self._next() or {"id": id_}

    async def _taken(self, taken_s: float) -> None:
        assert taken_s >= 0
        absent = self.there_s - virtual_time.clock()
        if absent > 0:
            if self.waits:
                await asyncio.sleep(min(absent, taken_s))
            if not self.waits or absent > taken_s:
                raise NoReplicaError

    def _next(self) -> RequestError | None:
        """What a replica returns, as it does what it refuses for a reason of the request."""
        happens = self.happens.pop(0) if self.happens else None
        if isinstance(happens, UnprocessableError | NotFoundError):
            return happens
        if happens is not None:
            raise happens
        return None


def submit(
    shards: Sequence[FakeShard], call: Call = CALL, timeout_s: float = 10.0, **more: Any
) -> Answer:
    queue = ShardQueue(shards, PATIENCE)
    return virtual_time.run(queue.submit(call, timeout_s, **more))


def test_a_call_whose_replica_ends_is_sent_to_one_more_within_its_deadline() -> None:
    shard = FakeShard(ReplicaLostError(), takes_s=4.0)

    assert len(submit([shard]).items) == CALL.pairs
    assert [timeout_s for _, timeout_s, _ in shard.asked] == [10.0, 6.0]


def test_two_replicas_that_end_are_enough() -> None:
    shard = FakeShard(ReplicaLostError(), ReplicaLostError())
    with refused(FailedError):
        submit([shard])
    assert len(shard.asked) == 2


def test_nothing_is_sent_again_once_the_time_is_over() -> None:
    shard = FakeShard(ReplicaLostError(), takes_s=10.0)
    with refused(TimedOutError):
        submit([shard])
    assert len(shard.asked) == 1


@pytest.mark.parametrize("waits", [True, False], ids=["waits for it", "refuses at once"])
def test_a_replica_that_is_not_there_yet_is_waited_for(waits: bool) -> None:
    shard = FakeShard(there_s=4.0, waits=waits)

    assert len(submit([shard]).items) == CALL.pairs
    assert len(shard.asked) == 1


def test_a_call_that_a_replica_hangs_before_taking_is_given_to_another() -> None:
    class Hanging(FakeShard):
        async def _taken(self, taken_s: float) -> None:
            if not self.happens:
                return
            self.happens.clear()
            await asyncio.sleep(taken_s)
            raise NoReplicaError

    shard = Hanging(NoReplicaError())
    assert len(submit([shard], timeout_s=2.0).items) == CALL.pairs
    assert len(shard.asked) == 1


@pytest.mark.parametrize("waits", [True, False], ids=["waits for it", "refuses at once"])
def test_a_shard_without_a_replica_is_down_after_a_while_and_no_later(waits: bool) -> None:
    shard = FakeShard(there_s=5.5, waits=waits)

    async def asked() -> float:
        with refused(FailedError) as found:
            await ShardQueue([shard], PATIENCE).submit(CALL, 10.0)
        assert isinstance(found.error, FailedError)
        assert found.error.code == "shard_down"
        return virtual_time.clock()

    assert 4.8 <= virtual_time.run(asked()) <= 5.0
    assert shard.asked == []


def test_a_replica_is_not_waited_for_beyond_the_deadline() -> None:
    shard = FakeShard(there_s=3.0)
    with refused(TimedOutError):
        submit([shard], timeout_s=2.0)
    assert shard.asked == []


def test_after_a_replica_that_ends_the_next_is_waited_for_as_long() -> None:
    """The first takes 4 s and ends; the next is there 4 s later."""

    class Restarting(FakeShard):
        async def answer(self, *given: Any) -> Answer | RequestError:
            self.there_s = 8.0 if self.asked else 0.0
            return await super().answer(*given)

    shard = Restarting(ReplicaLostError(), takes_s=4.0)
    assert len(submit([shard], timeout_s=20.0).items) == CALL.pairs
    assert len(shard.asked) == 2


@pytest.mark.parametrize("error", [UnprocessableError("query"), FailedError("no replica")])
def test_what_is_refused_is_not_asked_again(error: RequestError) -> None:
    shard = FakeShard(error)
    with refused(type(error)):
        submit([shard])
    assert len(shard.asked) == 1


def test_a_replica_that_hangs_ends_with_the_deadline() -> None:
    class Hanging(FakeShard):
        async def answer(self, *_: Any) -> Answer:
            await asyncio.Event().wait()
            raise AssertionError

    queue = ShardQueue([Hanging()], PATIENCE)
    with refused(TimedOutError):
        virtual_time.run(queue.submit(CALL, 10.0))
    assert queue.state.under_way == 0


def test_each_shard_gets_its_documents_and_only_the_lost_one_is_asked_again() -> None:
    shards = [FakeShard(), FakeShard(ReplicaLostError())]

    assert sorted(item.index for item in submit(shards).items) == list(range(CALL.pairs))
    assert [len(shard.asked) for shard in shards] == [1, 2]
    for place, shard in enumerate(shards):
        documents = shard.asked[0][0].documents
        assert {shard_of(part.id, 2) for part in documents if isinstance(part, StoredId)} == {place}


def test_a_partial_answer_leaves_a_lost_shard_out() -> None:
    shards = [FakeShard(), FakeShard(FailedError("down"))]
    found = submit(shards, Call(CALL.query, CALL.documents, partial=True))

    assert found.partial
    assert len(found.items) + len(found.missing) == CALL.pairs


def test_whether_a_server_is_ready_is_asked_of_every_shard() -> None:
    shards = [FakeShard(), FakeShard()]
    submit(shards, urgent=True)
    assert [[urgent for *_, urgent in shard.asked] for shard in shards] == [[True], [True]]

    with refused(FailedError):
        submit([FakeShard(), FakeShard(FailedError("down"))], urgent=True)


def images(shard: FakeShard, act: Callable[[ShardImages], Coroutine[Any, Any, _T]]) -> _T:
    return virtual_time.run(act(ShardImages([shard], PATIENCE)))


def test_images_are_read_and_never_changed() -> None:
    for shard in (FakeShard(), FakeShard(ReplicaLostError()), FakeShard(there_s=4.0)):
        assert images(shard, lambda store: store.get("x")) == {"id": "x"}
    with refused(NotFoundError):
        images(FakeShard(unknown_image("x")), lambda store: store.get("x"))
    with refused(FailedError):
        images(FakeShard(there_s=6.0), lambda store: store.get("x"))
    for act in (lambda store: store.put("x", b"{}"), lambda store: store.delete("x")):
        with refused(ConflictError) as found:
            images(FakeShard(), act)
        assert "sgraf-deploy index" in (found.error.hint or "")
        assert isinstance(found.error, ConflictError)
        assert found.error.code == "read_only"
