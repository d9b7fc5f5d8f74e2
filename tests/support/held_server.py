"""A server over an engine that works when it is told so, in a process of its own.

`held_server.py OPTION=VALUE …`, of `ServerOptions`, `taken_s` and `read_s`. It prints its URL, then
`batch N` when the engine begins with N pairs and `reload` on SIGHUP. Of standard input `go` lets
the engine answer whatever comes, `fail` makes reloading fail, and `die` ends the engine's thread.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.serve import server
from sgraf_deploy.serve.batcher import Batcher
from sgraf_deploy.serve.calls import Answer, Call, CaptionText, Item, RequestError, StoredId
from sgraf_deploy.serve.connections import while_connected
from sgraf_deploy.serve.errors import ClientGoneError
from sgraf_deploy.serve.health import Health, probe_call
from sgraf_deploy.serve.server import ServerOptions, serve

PATHS = {"certificate", "private_key"}
EXITS = {"stopped": 0, "interrupted": 130, "unanswered": 1, "stuck": 3}

_held, _told = threading.Event(), {"fail": False, "die": False}


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def run(calls: Sequence[Call]) -> list[Answer]:
    say(f"batch {sum(call.pairs for call in calls)}")
    _held.wait()
    if _told["die"]:
        raise SystemExit
    return [
        Answer(tuple(Item(call.first + at, 0.5, 0.0) for at in range(call.pairs))) for call in calls
    ]


def reload() -> None:
    if _told["fail"]:
        raise InputError("the keys")
    say("reload")


def listen() -> None:
    for line in sys.stdin:
        word = line.strip()
        if word in _told:
            _told[word] = True
        if word in {"go", "die"}:
            _held.set()


class Application:
    """POST /N scores N pairs; GET /state is 503 while the server drains, with what is under way;
    GET /readyz is the service's."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self.health = Health(batcher, probe_call(1, 1), deadline_s=0.1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{what}.complete"})
            return
        while (await receive()).get("more_body"):
            pass
        try:
            status, found = await self._answer(scope["path"], receive)
        except ClientGoneError:
            return
        body = json.dumps(found).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, path: str, receive: Any) -> tuple[int, Any]:
        state = self.batcher.state
        if path == "/readyz":
            found = await self.health.check()
            return (200 if found.ready else 503), found.reason
        if path == "/state":
            return (503 if state.draining or not state.alive else 200), state.under_way
        documents = tuple(StoredId(str(row)) for row in range(int(path[1:])))
        try:
            asked = self.batcher.submit(Call(CaptionText("a cup"), documents), 60.0)
            answer = await while_connected(receive, asked)
        except RequestError as error:
            return error.status, str(error)
        return 200, len(answer.items)


def main() -> None:
    given: dict[str, Any] = {"port": 0}
    for argument in sys.argv[1:]:
        name, _, value = argument.partition("=")
        given[name] = Path(value) if name in PATHS else float(value)
    server._TAKEN_S = given.pop("taken_s", server._TAKEN_S)
    server._READ_S = given.pop("read_s", server._READ_S)
    threading.Thread(target=listen, daemon=True).start()
    batcher = Batcher(run)
    try:
        ended = serve(
            Application(batcher), batcher, ServerOptions(**given), started=say, reload=reload
        )
    except SgrafDeployError as error:
        say(f"{type(error).__name__} {error}")
        os._exit(2)
    say(ended)
    os._exit(EXITS[ended])


if __name__ == "__main__":
    main()
