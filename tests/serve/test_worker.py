"""The engine's thread: what it runs, raises and survives."""

from __future__ import annotations

from collections.abc import Sequence
from threading import Event, current_thread

import pytest
from support.batching import call
from support.refusals import refused
from support.virtual_time import answer

from sgraf_deploy.serve.calls import Answer, Call, FailedError
from sgraf_deploy.serve.worker import EngineThread


def test_batches_run_one_after_the_other_in_one_thread() -> None:
    names = []

    def run(calls: Sequence[Call]) -> list[Answer]:
        names.append((current_thread().name, current_thread().daemon))
        return [answer(each) for each in calls]

    engine = EngineThread(run)
    futures = [engine.submit([call(number)]) for number in range(3)]
    assert [future.result(10)[0] for future in futures] == [answer(call(n)) for n in range(3)]
    assert names == [("engine", True)] * 3
    engine.close()


def test_an_exception_goes_to_its_batch_alone() -> None:
    def run(calls: Sequence[Call]) -> list[Answer]:
        return [answer(each) for each in calls if 1 // (len(each.documents) - 2) > -9]

    engine = EngineThread(run)
    failing, good = engine.submit([call(1, 2)]), engine.submit([call(1)])
    assert isinstance(failing.exception(10), ZeroDivisionError)
    assert good.result(10) == [answer(call(1))]
    assert engine.alive
    engine.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_ends_says_so_and_takes_nothing_more() -> None:
    def run(calls: Sequence[Call]) -> list[Answer]:
        raise SystemExit

    engine = EngineThread(run)
    with refused(FailedError):
        engine.submit([call(1)]).result(10)
    engine._thread.join(10)
    assert not engine.alive
    with refused(FailedError):
        engine.submit([call(1)]).result(0)


def test_what_was_cancelled_is_not_run_and_closing_ends_the_thread() -> None:
    held, ran = Event(), []

    def run(calls: Sequence[Call]) -> list[Answer]:
        held.wait(10)
        ran.append(calls)
        return [answer(each) for each in calls]

    engine = EngineThread(run)
    first, second = engine.submit([call(1)]), engine.submit([call(2)])
    assert second.cancel()
    engine.close()
    held.set()
    first.result(10)
    engine._thread.join(10)
    assert [each[0].documents for each in ran] == [call(1).documents]
    assert not engine.alive
