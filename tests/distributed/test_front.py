"""The queue of a front: one more replica within the deadline, every shard, no refusal twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import pytest
from support.refusals import refused
from support.small_galleries import IMAGE_IDS

from sgraf_deploy.distributed.front import ReplicaLostError, ShardImages, ShardQueue
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


class FakeShard:
    """A shard whose replicas do one after the other what they are told: raise, or answer."""

    def __init__(self, *happens: Happens, takes_s: float = 0.0) -> None:
        self.happens, self.takes_s = list(happens), takes_s
        self.asked: list[tuple[Call, float, bool]] = []
        self.now = 0.0

    async def answer(self, call: Call, timeout_s: float, urgent: bool) -> Answer | RequestError:
        self.asked.append((call, timeout_s, urgent))
        self.now += self.takes_s
        happens = self.happens.pop(0) if self.happens else None
        if isinstance(happens, UnprocessableError):
            return happens
        if happens is not None:
            raise happens
        return Answer(tuple(Item(row, 0.5, -float(row)) for row in range(call.pairs)))

    async def details(self, id_: str) -> dict[str, Any] | RequestError:
        happens = self.happens.pop(0) if self.happens else None
        if isinstance(happens, NotFoundError):
            return happens
        if happens is not None:
            raise happens
        return {"id": id_}


def submit(shards: Sequence[FakeShard], call: Call = CALL, **more: Any) -> Answer:
    queue = ShardQueue(shards, clock=lambda: max(shard.now for shard in shards))
    return asyncio.run(queue.submit(call, 10.0, **more))


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

    queue = ShardQueue([Hanging()])
    with refused(TimedOutError):
        asyncio.run(queue.submit(CALL, 0.001))
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
    return asyncio.run(act(ShardImages([shard])))


def test_images_are_read_once_and_never_changed() -> None:
    assert images(FakeShard(), lambda store: store.get("x")) == {"id": "x"}
    with refused(NotFoundError):
        images(FakeShard(unknown_image("x")), lambda store: store.get("x"))
    with refused(FailedError):
        images(FakeShard(ReplicaLostError()), lambda store: store.get("x"))
    for act in (lambda store: store.put("x", b"{}"), lambda store: store.delete("x")):
        with refused(ConflictError) as found:
            images(FakeShard(), act)
        assert "sgraf-deploy index" in (found.error.hint or "")
        assert isinstance(found.error, ConflictError)
        assert found.error.code == "read_only"
