"""Every accepted call is answered, whatever the engine does and however the batcher ends."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from support.batching import World, call, logits, within
from support.refusals import refused
from support.virtual_time import answer, settle

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.serve.calls import Answer, Call, CaptionText, FailedError, TimedOutError
from sgraf_deploy.serve.queue import BatchLimits


def test_the_call_at_fault_alone_fails() -> None:
    def rule(asked: Call) -> Answer:
        if asked.query == CaptionText("poison"):
            raise RuntimeError("secret words of a request")
        return answer(asked)

    async def work(world: World) -> None:
        await world.ask(call(0))
        good = await world.ask(call(1))
        poison = await world.ask(call(2, name="poison"))
        also = await world.ask(call(3))
        await world.engine.release_all(rule)
        assert world.given == [[[0]], [[1], [2], [3]], [[1]], [[2]], [[3]]]
        assert (logits(good.result()), logits(also.result())) == ([1], [3])
        error = poison.exception()
        assert isinstance(error, FailedError)
        assert "secret" not in str(error)
        after = await world.ask(call(4))
        await world.engine.release()
        assert after.done()  # the engine goes on

    within(work)


def test_a_failure_is_logged_without_what_it_says(caplog: pytest.LogCaptureFixture) -> None:
    async def work(world: World) -> None:
        task = await world.ask(call(1))
        await world.engine.release(RuntimeError("secret words of a request"))
        assert isinstance(task.exception(), FailedError)

    within(work)
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_after_a_failure_those_who_left_or_are_late_are_not_run_again() -> None:
    async def work(world: World) -> None:
        await world.ask(call(0))
        gone = await world.ask(call(1))
        late = await world.ask(call(2), timeout_s=3.0)
        kept = await world.ask(call(3))
        await world.engine.release()
        gone.cancel()
        world.ahead = 4.0
        await world.engine.release(RuntimeError())
        await world.engine.release_all()
        assert world.given[2:] == [[[3]]]
        assert isinstance(late.exception(), TimedOutError)
        assert kept.done()

    within(work)


def test_what_the_engine_answers_a_call_with_is_raised_there_alone() -> None:
    async def work(world: World) -> None:
        await world.ask(call(0))
        known = await world.ask(call(1))
        unknown = await world.ask(call(*range(20)))
        await world.engine.release()
        refusal = DataError("document 3", expected="an image of the gallery", got="none")
        await world.engine.release([answer(world.engine.given[-1][0]), refusal])
        assert unknown.exception() is refusal
        assert logits(known.result()) == [1]
        assert len(world.given) == 2  # no other part of it is scored

    within(work)


def test_too_few_answers_are_a_failure() -> None:
    async def work(world: World) -> None:
        await world.ask(call(0))
        tasks = [await world.ask(call(number)) for number in (1, 2)]
        await world.engine.release()
        await world.engine.release([answer(call(1))])
        await world.engine.release_all()
        assert [logits(task.result()) for task in tasks] == [[1], [2]]

    within(work)


def test_an_urgent_call_goes_first_and_needs_no_room() -> None:
    async def work(world: World) -> None:
        await world.ask(call(0))
        await world.ask(call(*range(6)))
        probe = await world.ask(call(9), urgent=True)
        await world.engine.release()
        assert world.given[1][0] == [9]
        await world.engine.release_all()
        assert probe.done()

    within(work, max_queue_pairs=6)


def test_the_state_says_how_long_the_engine_has_been_busy() -> None:
    async def work(world: World) -> None:
        state = world.batcher.state
        assert (state.alive, state.busy_s, state.ok_s, state.draining) == (True, 0.0, None, False)
        await world.ask(call(1))
        await asyncio.sleep(7.0)
        assert world.batcher.state.busy_s == 7.0
        await world.engine.release()
        await asyncio.sleep(2.0)
        assert (world.batcher.state.busy_s, world.batcher.state.ok_s) == (0.0, 2.0)
        world.engine.alive = False
        assert not world.batcher.state.alive

    within(work)


def test_draining_waits_for_what_was_accepted() -> None:
    async def work(world: World) -> None:
        assert await world.batcher.drain(0.0)
        task = await world.ask(call(*range(12)))
        assert not await world.batcher.drain(5.0)
        waits = asyncio.ensure_future(world.batcher.drain(5.0))
        await settle()
        await world.engine.release_all()
        assert await waits
        assert task.done()

    within(work)


def test_closing_refuses_what_is_left_and_everything_after() -> None:
    async def work(world: World) -> None:
        tasks = [await world.ask(call(number)) for number in range(3)]
        world.batcher.close()
        await settle()
        assert all(isinstance(task.exception(), FailedError) for task in tasks)
        with refused(FailedError):
            await world.batcher.submit(call(1), 1.0)
        assert not world.batcher.state.alive

    within(work)


def test_a_batcher_that_fails_itself_leaves_no_call_unanswered() -> None:
    checked = []

    async def work(world: World) -> None:
        first = await world.ask(call(0))
        second = await world.ask(call(1))

        def fail(pairs: int, calls: int) -> None:
            raise ZeroDivisionError

        world.watched.batch = fail  # type: ignore[method-assign]
        await world.engine.release()
        assert first.done()
        assert isinstance(second.exception(), FailedError)
        assert not world.batcher.state.alive
        with refused(FailedError):
            await world.batcher.submit(call(1), 1.0)
        checked.append(True)

    with pytest.raises(ZeroDivisionError):
        within(work)
    assert checked == [True]


@pytest.mark.parametrize(
    ("name", "values"),
    [("max_batch_pairs", (0,)), ("max_queue_pairs", (1, 0)), ("max_wait_s", (1, 1, -1.0))],
)
def test_limits_that_cannot_be_are_refused(name: str, values: Sequence[int]) -> None:
    with refused(InputError, name, got=values[-1]):
        BatchLimits(*values)
