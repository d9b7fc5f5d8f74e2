"""Every accepted call is answered: in batches, in order and in time."""

from __future__ import annotations

import asyncio

import pytest
from support.batching import World, call, logits, within
from support.refusals import refused
from support.virtual_time import settle

from sgraf_deploy.serve.calls import OverloadedError, TimedOutError


def test_a_call_that_finds_the_engine_idle_is_scored_at_once() -> None:
    async def work(world: World) -> None:
        task = await world.ask(call(1, 3, 2))
        assert world.given == [[[1, 3, 2]]]
        await world.engine.release()
        assert logits(task.result()) == [3, 2, 1]
        assert world.watched.seconds == [0.0]

    within(work)


def test_a_batch_is_what_came_while_the_engine_worked() -> None:
    async def work(world: World) -> None:
        first = await world.ask(call(1))
        others = [await world.ask(call(number)) for number in (2, 3, 4)]
        assert world.given == [[[1]]]
        assert world.batcher.state.waiting_pairs == 3 == world.watched.pairs
        await asyncio.sleep(2)
        await world.engine.release()
        assert first.done()
        assert world.given[1:] == [[[2], [3], [4]]]
        assert world.watched.seconds == [0.0, 2.0, 2.0, 2.0]
        assert world.watched.batches == [(1, 1), (3, 3)]
        await world.engine.release()
        assert [logits(task.result()) for task in others] == [[2], [3], [4]]

    within(work)


def test_a_batch_holds_no_more_pairs_than_allowed_and_the_oldest_first() -> None:
    async def work(world: World) -> None:
        await world.ask(call(0))
        tasks = [await world.ask(call(*[number] * 3)) for number in range(1, 6)]
        await world.engine.release_all()
        sizes = [sum(map(len, batch)) for batch in world.given]
        assert sizes == [1, 6, 6, 3]
        assert [batch[0][0] for batch in world.given] == [0, 1, 3, 5]
        assert all(task.done() for task in tasks)

    within(work)


def test_an_idle_engine_waits_for_more_as_long_as_it_is_told() -> None:
    async def work(world: World) -> None:
        one = await world.ask(call(1))
        await asyncio.sleep(0.5)
        two = await world.ask(call(2))
        assert world.given == []
        await asyncio.sleep(0.4)
        assert world.given == []
        await asyncio.sleep(0.2)
        assert world.given == [[[1], [2]]]
        await world.engine.release()
        assert (logits(one.result()), logits(two.result())) == ([1], [2])
        full = await world.ask(call(*range(8)))
        assert len(world.given) == 2  # a full batch does not wait
        await world.engine.release()
        assert full.done()

    within(work, max_wait_s=1.0)


def test_large_calls_are_cut_and_alternate_with_small_ones() -> None:
    async def work(world: World) -> None:
        await world.ask(call(0))
        large = await world.ask(call(*range(20), top_n=3))
        small = [await world.ask(call(100 + number, 200 + number)) for number in range(4)]
        await world.engine.release_all()
        assert world.given[1:] == [
            [[100, 200], [101, 201], [0, 1, 2, 3]],
            [[102, 202], [103, 203], [4, 5, 6, 7]],
            [[8, 9, 10, 11, 12, 13, 14, 15]],
            [[16, 17, 18, 19]],
        ]
        found = large.result()
        assert [(item.index, item.logit) for item in found.items] == [(19, 19), (18, 18), (17, 17)]
        assert found.tokens == 3  # the caption counts once
        assert [logits(task.result()) for task in small] == [[200 + n, 100 + n] for n in range(4)]

    within(work)


def test_large_calls_do_not_wait_for_ever_and_the_oldest_goes_first() -> None:
    async def work(world: World) -> None:
        await world.ask(call(0))
        first = await world.ask(call(*range(10)))
        second = await world.ask(call(*range(20, 30)))
        for number in range(6):  # a stream of small ones that alone would fill every batch
            await world.ask(call(*[number] * 4))
        await world.engine.release()
        for number in range(6):
            assert sum(len(part) for part in world.given[-1]) <= 8
            await world.ask(call(*[number] * 4))
            await world.engine.release()
            if number == 2:
                assert first.done()
                assert not second.done()
        assert second.done()
        await world.engine.release_all()

    within(work)


def test_equal_logits_of_parts_keep_the_order_of_their_indices() -> None:
    async def work(world: World) -> None:
        task = await world.ask(call(*[5] * 12))
        await world.engine.release_all()
        assert [item.index for item in task.result().items] == list(range(12))
        assert len(world.given) == 2

    within(work)


def test_a_full_queue_refuses_whole_calls_and_says_when_to_return() -> None:
    async def work(world: World) -> None:
        with refused(OverloadedError) as none_yet:  # nothing was measured
            await world.batcher.submit(call(*range(11)), 1.0)
        assert none_yet.error.__dict__["retry_after_s"] == 1.5
        await world.ask(call(*range(8)))
        await asyncio.sleep(4.0)
        await world.engine.release()  # 2 pairs a second
        await world.ask(call(*range(8)))
        await world.ask(call(*range(7)))
        await world.ask(call(*range(3)))
        with refused(OverloadedError) as full:
            await world.batcher.submit(call(*range(4)), 1.0)
        assert full.error.__dict__["retry_after_s"] == (8 + 10 + 4 - 10) / 2 * 1.5
        assert world.batcher.state.waiting_pairs == 10
        await world.engine.release_all()
        task = await world.ask(call(*range(4)))
        await world.engine.release()
        assert task.done()

    within(work, max_queue_pairs=10)


def test_a_call_whose_time_is_over_is_answered_at_once_and_not_scored() -> None:
    async def work(world: World) -> None:
        await world.ask(call(0))
        late = await world.ask(call(1), timeout_s=2.0)
        other = await world.ask(call(2), timeout_s=9.0)
        await asyncio.sleep(2.0)
        await settle()
        assert isinstance(late.exception(), TimedOutError)
        assert world.batcher.state.waiting_pairs == 1
        await world.engine.release_all()
        assert world.given == [[[0]], [[2]]]
        assert other.done()

    within(work)


def test_a_call_whose_time_ends_while_it_is_scored_is_answered_too() -> None:
    async def work(world: World) -> None:
        late = await world.ask(call(*range(12)), timeout_s=2.0)
        await asyncio.sleep(2.0)
        await settle()
        assert isinstance(late.exception(), TimedOutError)
        await world.engine.release()
        assert len(world.given) == 1  # its other part is not scored

    within(work)


def test_a_timer_that_is_late_lets_nothing_be_scored() -> None:
    """The loop was busy with something else when the time was over."""

    async def work(world: World) -> None:
        await world.ask(call(0))
        late = await world.ask(call(1), timeout_s=2.0)
        world.ahead = 3.0
        await world.engine.release()
        assert isinstance(late.exception(), TimedOutError)
        assert world.given == [[[0]]]

    within(work)


@pytest.mark.parametrize("size", [1, 20], ids=["small", "large"])
def test_a_client_that_leaves_is_not_scored_and_makes_room(size: int) -> None:
    async def work(world: World) -> None:
        await world.ask(call(0))
        gone = await world.ask(call(*range(size)))
        gone.cancel()
        await settle()
        assert gone.cancelled()
        assert (world.batcher.state.waiting_pairs, world.batcher.state.under_way) == (0, 1)
        await world.engine.release()
        assert world.given == [[[0]]]

    within(work)


def test_a_client_that_leaves_while_it_is_scored_costs_no_more() -> None:
    async def work(world: World) -> None:
        gone = await world.ask(call(*range(20)))
        gone.cancel()
        await settle()
        await world.engine.release()
        assert len(world.given) == 1
        assert world.batcher.state.under_way == 0

    within(work)
