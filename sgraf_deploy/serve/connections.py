"""What a connection does that is no request: its client leaves, or the server is about to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Any, Receive, Send], Awaitable[None]]
"""An ASGI application."""


class Connections:
    """An ASGI application around another one, whose requests it cancels when their client leaves.

    `Connection: close` goes with every answer while `draining` says so, so that a client that keeps
    its connection opens another one, which goes to another server.
    """

    def __init__(self, app: App, draining: Callable[[], bool]) -> None:
        self._app, self._draining = app, draining

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, or take part in the application's start and end."""
        if scope["type"] == "http":
            await _Request(self._app, self._draining, receive, send).answer(scope)
        else:
            await self._app(scope, receive, send)


class _Request:
    """One request: its task is cancelled if the client leaves before it is answered."""

    def __init__(
        self, app: App, draining: Callable[[], bool], receive: Receive, send: Send
    ) -> None:
        self._app, self._draining, self._receive, self._send = app, draining, receive, send
        self._answered = self._left = False
        self._task = asyncio.current_task()
        self._watch: asyncio.Task[None] | None = None

    async def answer(self, scope: Message) -> None:
        try:
            await self._app(scope, self._receiving, self._sending)
        except asyncio.CancelledError:
            if not self._left:
                raise
            if self._task is not None:
                self._task.uncancel()
        finally:
            if self._watch is not None:
                self._watch.cancel()

    async def _receiving(self) -> Message:
        message = await self._receive()
        whole = message["type"] == "http.request" and not message.get("more_body", False)
        if whole and self._watch is None:
            self._watch = asyncio.create_task(self._wait(), name="client")
        return message

    async def _wait(self) -> None:
        """Nothing comes after the body but the end of the connection."""
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self._answered and self._task is not None:
            self._left = True
            self._task.cancel()

    async def _sending(self, message: Message) -> None:
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._answered = True
        elif message["type"] == "http.response.start" and self._draining():
            message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
        await self._send(message)
