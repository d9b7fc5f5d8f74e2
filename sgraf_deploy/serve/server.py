"""Runs an application on a socket, from its start to its orderly end."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from sgraf_deploy.errors import InputError
from sgraf_deploy.serve.batcher import Batcher
from sgraf_deploy.serve.connections import App, Closing

Ended = Literal["stopped", "interrupted", "unanswered", "stuck"]
"""Why a server ended: SIGTERM, or Ctrl-C, and all requests were answered; SIGTERM, and some had to
be refused; its engine hangs or has ended."""

STUCK_EXIT = 70
"""The exit code of a process whose engine hangs, if it cannot even end in order: EX_SOFTWARE."""

_WATCH_S = 0.5
_TAKEN_S, _READ_S, _LOOK_S = 0.2, 2.0, 0.02
"""Seconds in which the last connections are taken; in which those that were just taken may still
send their request, as uvicorn closes them without one at once, and their clients would be left
without an answer; and between two looks at them."""
_LAST_S = 2.0
"""Seconds for the last answers to be written."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServerOptions:
    """Where a server listens, and how it ends.

    After SIGTERM it is not ready any more, but goes on for `drain_delay_s` seconds, in which a load
    balancer notices; then it takes no more connections, and answers what it has accepted within
    `shutdown_timeout_s`. It ends if one engine call takes longer than `watchdog_s`. Port 0 is a
    free one. `keep_alive_s` is how long an idle connection is kept.

    Raises:
        InputError: a number of seconds that cannot be.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    drain_delay_s: float = 0.0
    shutdown_timeout_s: float = 30.0
    watchdog_s: float = 60.0
    keep_alive_s: int = 5
    certificate: Path | None = None
    private_key: Path | None = None

    def __post_init__(self) -> None:
        if self.drain_delay_s < 0:
            raise InputError("drain_delay_s", expected="0 or more seconds", got=self.drain_delay_s)
        for name in ("shutdown_timeout_s", "watchdog_s", "keep_alive_s"):
            if getattr(self, name) <= 0:
                raise InputError(name, expected="more than 0 seconds", got=getattr(self, name))
        if self.private_key is not None and self.certificate is None:
            raise InputError("private_key", expected="a certificate with it", got="none")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that listens there.

    Raises:
        InputError: a name that no address belongs to.
    """
    found = {str(address[0]).partition("%")[0] for *_, address in _addresses(host, 0)}
    return all(ipaddress.ip_address(address).is_loopback for address in found)


def listen(options: ServerOptions) -> socket.socket:
    """A socket that listens where the options say.

    Raises:
        InputError: the address is not this machine's, or the port is taken or not allowed.
    """
    family, *_, address = _addresses(options.host, options.port)[0]
    try:
        return socket.create_server(address[:2], family=family, backlog=2048)
    except OSError as error:
        raise InputError(
            f"address {options.host}, port {options.port}",
            expected="a free port of this machine",
            got=error.strerror or type(error).__name__,
            hint="choose others with --host and --port; port 0 is a free one",
        ) from error


def serve(
    app: App,
    batcher: Batcher,
    options: ServerOptions,
    *,
    started: Callable[[str], None],
    reload: Callable[[], None] | None = None,
    leave: Callable[[int], object] = os._exit,
) -> Ended:
    """Answer requests until a signal, or until the engine hangs; run it in the main thread.

    `batcher`, which `app` asks, is entered and left here. `started` is called with the URL,
    `reload` on SIGHUP. Should the engine hang and the process not end in order, `leave` ends it.

    Raises:
        InputError: no such address, or a certificate or a key that cannot be used.
    """
    config = _config(Closing(app, lambda: batcher.draining), options)
    return _Server(config, batcher, options, started, reload, leave).work()


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    try:
        return socket.getaddrinfo(  # type: ignore[return-value]
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except (OSError, UnicodeError) as error:  # a name that no domain can have is the second
        expected = "the name or the number of an address"
        got = error.strerror if isinstance(error, OSError) else str(error)
        raise InputError(f"host {host!r}", expected=expected, got=got) from error


def _config(app: App, options: ServerOptions) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        loop="asyncio" if sys.platform == "win32" else "uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=options.keep_alive_s,
        timeout_graceful_shutdown=options.shutdown_timeout_s + _LAST_S,  # type: ignore[arg-type]
        ssl_certfile=options.certificate,
        ssl_keyfile=options.private_key,
    )
    try:
        config.load()
    except (OSError, ssl.SSLError) as error:
        key = "" if options.private_key is None else f", private key {options.private_key}"
        raise InputError(
            f"certificate {options.certificate}{key}",
            expected="a certificate in PEM and its key",
            got=error.strerror or type(error).__name__,
        ) from error
    return config


def _is_unasked(connection: object) -> bool:
    """Whether a connection has not sent the head of a request yet."""
    return isinstance(connection, HttpToolsProtocol) and connection.cycle is None


async def close_listening(servers: Sequence[asyncio.Server]) -> None:
    """Take no more connections, and lose none that was just taken.

    asyncio hands a connection to its protocol one turn of the loop after it took it, and drops it
    if the server was closed in between.
    """
    loop = asyncio.get_running_loop()
    if isinstance(loop, asyncio.SelectorEventLoop):
        for taking in (each for server in servers for each in server.sockets):
            loop.remove_reader(taking.fileno())
        await asyncio.sleep(0)
    for server in servers:
        server.close()


class _Server(uvicorn.Server):
    """A server whose signals are this program's: it drains, then exits with 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        batcher: Batcher,
        options: ServerOptions,
        started: Callable[[str], None],
        reload: Callable[[], None] | None,
        leave: Callable[[int], object],
    ) -> None:
        super().__init__(config)
        self._batcher, self._options = batcher, options
        self._started, self._reload, self._leave = started, reload, leave
        self._ended: Ended | None = None

    def work(self) -> Ended:
        with listen(self._options) as listening:
            self.run(sockets=[listening])
        return self._ended or "stopped"

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        async with self._batcher:
            await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listening in sockets or []:
            host, port = listening.getsockname()[:2]
            scheme = "https" if self.config.ssl else "http"
            self._started(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")
        self._watch = asyncio.create_task(self._watch_engine(), name="watchdog")

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the server runs; what handled them before does so afterwards."""
        loop = asyncio.get_running_loop()

        def later(act: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
            def handle(number: int, frame: FrameType | None) -> None:
                loop.call_soon_threadsafe(act)

            return handle

        handlers = {signal.SIGTERM: later(self._drain), signal.SIGINT: later(self._interrupt)}
        if hasattr(signal, "SIGHUP"):
            handlers[signal.SIGHUP] = later(self._reload_keys)
        before = {number: signal.signal(number, act) for number, act in handlers.items()}
        try:
            yield
        finally:
            for number, act in before.items():
                signal.signal(number, act)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, answer what was accepted; refuse what takes too long."""
        self._batcher.draining = True
        refuse = asyncio.get_running_loop().call_later(
            self._options.shutdown_timeout_s, self._refuse_rest
        )
        await close_listening(self.servers)
        await asyncio.sleep(_TAKEN_S)
        await self._read_last()
        await super().shutdown(sockets)
        refuse.cancel()
        self._watch.cancel()

    async def _read_last(self) -> None:
        """Wait for the first request of connections that have sent none yet, for a while."""
        for _ in range(round((_READ_S - _TAKEN_S) / _LOOK_S)):
            if not any(map(_is_unasked, self.server_state.connections)):
                return
            await asyncio.sleep(_LOOK_S)

    def _drain(self) -> None:
        if not self._batcher.draining:
            self._batcher.draining = True
            self._ended = "stopped"
            log.info("SIGTERM: not ready any more")
            asyncio.get_running_loop().call_later(self._options.drain_delay_s, self._stop)

    def _interrupt(self) -> None:
        self.force_exit = self._ended == "interrupted"  # the second time
        self._ended = "interrupted"
        self._stop()

    def _stop(self) -> None:
        self.should_exit = True

    def _reload_keys(self) -> None:
        if self._reload is None:
            log.warning("SIGHUP: there are no keys to read again")
            return
        try:
            self._reload()
        except InputError as error:
            log.error("SIGHUP: the former keys stay in force: %s", error)  # noqa: TRY400
        else:
            log.info("SIGHUP: the keys were read again")

    def _refuse_rest(self) -> None:
        left = self._batcher.state.under_way
        if left:
            log.warning("%d requests were not answered in time and are refused", left)
            self._ended = "unanswered"
        self._batcher.close()

    async def _watch_engine(self) -> None:
        """End the server once the engine hangs or has ended."""
        while True:
            state = self._batcher.state
            if not state.alive or state.busy_s > self._options.watchdog_s:
                break
            await asyncio.sleep(_WATCH_S)
        if state.alive:
            log.error("the engine has not answered for %.0f s: the server ends", state.busy_s)
        elif not self.should_exit:
            log.error("the engine has ended: so does the server")
        else:
            return
        self._ended = "stuck"
        backstop = threading.Timer(2 * _LAST_S, self._leave, [STUCK_EXIT])
        backstop.daemon = True
        backstop.start()
        self._batcher.close()
        self._stop()
