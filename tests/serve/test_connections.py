"""A client that leaves takes its question back; one that stays costs nothing to watch."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support.virtual_time import run

from sgraf_deploy.serve.connections import LOOK_S, while_connected
from sgraf_deploy.serve.errors import ClientGoneError


class Connection:
    """What a connection says: nothing until `left`."""

    def __init__(self) -> None:
        self.left, self.asked = asyncio.Event(), 0

    async def receive(self) -> Any:
        self.asked += 1
        await self.left.wait()
        return {"type": "http.disconnect"}


async def answered_after(seconds: float, ended: list[str]) -> str:
    try:
        await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        ended.append("taken back")
        raise
    ended.append("answered")
    return "answer"


@pytest.mark.parametrize(("seconds", "asked"), [(0.0, 0), (LOOK_S / 2, 0), (9 * LOOK_S, 1)])
def test_a_client_is_looked_for_only_where_the_answer_takes_long(
    seconds: float, asked: int
) -> None:
    async def inside() -> None:
        connection, ended = Connection(), list[str]()
        answering = answered_after(seconds, ended)
        assert await while_connected(connection.receive, answering) == "answer"
        assert (connection.asked, ended) == (asked, ["answered"])
        await asyncio.sleep(1.0)
        assert connection.asked == asked
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(inside())


@pytest.mark.parametrize("after", [0.0, 5 * LOOK_S], ids=["before it is looked for", "later"])
def test_a_question_is_taken_back_once_its_client_left(after: float) -> None:
    async def inside() -> None:
        connection, ended = Connection(), list[str]()
        loop = asyncio.get_running_loop()
        loop.call_later(after, connection.left.set)
        started = loop.time()
        with pytest.raises(ClientGoneError):
            await while_connected(connection.receive, answered_after(100.0, ended))
        assert ended == ["taken back"]
        assert loop.time() - started <= after + 2 * LOOK_S
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    run(inside())


def test_another_cancellation_stays_one() -> None:
    async def inside() -> None:
        connection, ended = Connection(), list[str]()
        asked = while_connected(connection.receive, answered_after(100.0, ended))
        task = asyncio.create_task(asked)
        await asyncio.sleep(2 * LOOK_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended == ["taken back"]
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(inside())
