"""What a connection does that is no request: its client leaves, or the server is about to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from typing import Any, TypeVar

from sgraf_deploy.serve.errors import ClientGoneError

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
"""An ASGI application."""

_T = TypeVar("_T")


LOOK_S = 0.02
"""Seconds after which it is first looked whether a client is still there: most are answered before,
and waiting for what the connection does takes a task."""


async def while_connected(receive: Receive, answering: Coroutine[Any, Any, _T]) -> _T:
    """Wait for an answer as long as the client does; else take the question back.

    Whoever waits is cancelled when the connection ends. `receive` is ASGI's, after the whole body
    was read.

    Raises:
        ClientGoneError: the client left first.
    """
    waiting, loop = asyncio.current_task(), asyncio.get_running_loop()
    watching: asyncio.Task[None] | None = None
    left = False

    async def watch() -> None:
        nonlocal left
        while (await receive())["type"] != "http.disconnect":
            pass
        left = True
        if waiting is not None:
            waiting.cancel()

    def look() -> None:
        nonlocal watching
        watching = loop.create_task(watch(), name="client")

    timer = loop.call_later(LOOK_S, look)
    try:
        return await answering
    except asyncio.CancelledError as error:
        if not left or waiting is None:
            raise
        waiting.uncancel()
        raise ClientGoneError from error
    finally:
        timer.cancel()
        if watching is not None:
            watching.cancel()


class Closing:
    """An ASGI application around another one, which closes connections while the server drains.

    A client that keeps its connection then opens another one, which goes to another server.
    """

    def __init__(self, app: App, draining: Callable[[], bool]) -> None:
        self._app, self._draining = app, draining

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the application's start and end."""

        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and self._draining():
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, closing if scope["type"] == "http" else send)
