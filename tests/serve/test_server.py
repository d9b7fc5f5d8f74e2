"""A server's life, on a real socket: signals, clients that leave, an engine that hangs."""

from __future__ import annotations

import asyncio
import signal
import socket
import ssl
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from support.refusals import naming, refused
from support.server_process import HELD, LONGEST_S, Served, served, until_refused

from sgraf_deploy.errors import InputError
from sgraf_deploy.serve.server import ServerOptions, close_listening, is_loopback, listen

TLS = Path(__file__).parents[1] / "support" / "tls"
"""A certificate for 127.0.0.1 that signs itself, until 2120, and its key, which is no secret."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


class Asked:
    """A held server and clients of it, each with a connection of its own."""

    def __init__(self, server: Served, pool: ThreadPoolExecutor) -> None:
        self.server, self._pool = server, pool
        self.url = httpx.URL(server.read("http").join(["http", ""]))

    def post(self, pairs: int) -> Future[httpx.Response]:
        """Ask for so many pairs in a thread."""
        return self._pool.submit(httpx.post, self.url.join(f"/{pairs}"), timeout=LONGEST_S)

    def ready(self) -> tuple[int, int]:
        """503 while the server drains, or 200, and how many requests are under way."""
        found = httpx.get(self.url.join("/state"), timeout=LONGEST_S)
        return found.status_code, found.json()

    def wait(self, under_way: int) -> None:
        """Return once so many requests are under way."""
        while self.ready()[1] != under_way:
            pass


@contextmanager
def held(**options: object) -> Iterator[Asked]:
    arguments = [f"{name}={value}" for name, value in options.items()]
    with served(HELD, *arguments) as server, ThreadPoolExecutor(20) as pool:
        yield Asked(server, pool)


def test_sigterm_answers_what_was_accepted_and_exits_with_0() -> None:
    with held(drain_delay_s=0.0) as asked:
        first = asked.post(10)
        asked.server.read("batch 10")
        others = [asked.post(number) for number in range(1, 16)]
        asked.wait(16)
        asked.server.signal(signal.SIGTERM)
        until_refused(asked.url)
        asked.server.tell("go")
        answers = [future.result() for future in (first, *others)]
        assert [answer.status_code for answer in answers] == [200] * 16
        assert [answer.json() for answer in answers] == [10, *range(1, 16)]
        assert asked.server.end() == (0, "")


def test_a_connection_that_was_just_taken_is_read_and_answered() -> None:
    with held(taken_s=0.0, read_s=4.0) as asked:
        asked.server.tell("go")
        address = (asked.url.host, asked.url.port or 0)
        with socket.create_connection(address, LONGEST_S) as client:
            asked.wait(0)  # it was taken before this one
            asked.server.signal(signal.SIGTERM)
            until_refused(asked.url)
            client.sendall(b"POST /7 HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n")
            with client.makefile("rb") as answer:
                assert answer.read().endswith(b"\r\n\r\n7")
        assert asked.server.end() == (0, "")


def test_a_connection_that_is_taken_while_the_server_closes_is_kept() -> None:
    class Sees(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            seen.set()
            transport.close()

    async def work() -> None:
        server = await asyncio.get_running_loop().create_server(Sees, "127.0.0.1", 0)
        with socket.create_connection(server.sockets[0].getsockname()):
            for _ in range(2):  # the loop sees it, and takes it
                await asyncio.sleep(0)
            await close_listening([server])
            for _ in range(10):
                await asyncio.sleep(0)

    seen = asyncio.Event()
    asyncio.run(work())
    assert seen.is_set()


def test_a_draining_server_is_not_ready_but_answers_and_closes_connections() -> None:
    with held(drain_delay_s=3600.0) as asked:
        asked.server.tell("go")
        with httpx.Client(timeout=LONGEST_S) as client:
            before = client.post(asked.url.join("/3"))
            assert "connection" not in before.headers
            asked.server.signal(signal.SIGTERM)
            while asked.ready()[0] != 503:
                pass
            after = client.post(asked.url.join("/3"))
        assert (after.status_code, after.json()) == (200, 3)
        assert after.headers["connection"] == "close"


def test_what_takes_too_long_is_refused_and_the_exit_code_says_so() -> None:
    with held(shutdown_timeout_s=0.2) as asked:
        waits = asked.post(10)
        asked.server.read("batch 10")
        asked.server.signal(signal.SIGTERM)
        assert waits.result().status_code == 503
        code, _ = asked.server.end()
        assert code == 1


def test_ctrl_c_answers_too() -> None:
    with held(drain_delay_s=3600.0) as asked:
        waits = asked.post(10)
        asked.server.read("batch 10")
        asked.server.signal(signal.SIGINT)
        until_refused(asked.url)
        asked.server.tell("go")
        assert waits.result().status_code == 200
        assert asked.server.end()[0] == 130


def test_sighup_reads_the_keys_again_and_keeps_the_former_upon_an_error() -> None:
    with held() as asked:
        asked.server.signal(signal.SIGHUP)
        asked.server.read("reload")
        asked.server.tell("fail")
        asked.server.tell("go")
        asked.post(1).result()  # the word was read
        asked.server.signal(signal.SIGHUP)
        assert asked.post(1).result().status_code == 200
        asked.server.signal(signal.SIGTERM)
        code, errors = asked.server.end()
        assert code == 0
        assert len(errors.splitlines()) == 1


def test_a_client_that_leaves_is_dropped() -> None:
    with held() as asked:
        first = asked.post(10)
        asked.server.read("batch 10")
        leaving = socket.create_connection((asked.url.host, asked.url.port or 0), LONGEST_S)
        leaving.sendall(b"POST /7 HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n")
        asked.wait(2)
        leaving.close()
        asked.wait(1)
        last = asked.post(3)
        asked.wait(2)
        asked.server.tell("go")
        assert (first.result().json(), last.result().json()) == (10, 3)
        asked.server.read("batch 3")  # and not 10
        asked.server.signal(signal.SIGTERM)
        assert asked.server.end() == (0, "")


def test_a_client_that_trusts_the_certificate_is_answered_over_tls() -> None:
    certificate = TLS / "certificate.pem"
    trusting = ssl.create_default_context(cafile=certificate)
    trusting.verify_flags |= ssl.VERIFY_X509_STRICT  # Python 3.13 does so by itself
    with held(certificate=certificate, private_key=TLS / "key.pem") as asked:
        asked.server.tell("go")
        url = asked.url.join("/3")
        assert url.scheme == "https"
        answer = httpx.post(url, verify=trusting, timeout=LONGEST_S)
        assert (answer.status_code, answer.json()) == (200, 3)
        with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            httpx.post(url, verify=ssl.create_default_context(), timeout=LONGEST_S)
        with pytest.raises(httpx.TransportError):
            httpx.post(url.copy_with(scheme="http"), timeout=LONGEST_S)
        asked.server.signal(signal.SIGTERM)
        assert asked.server.end() == (0, "")


def test_an_engine_that_hangs_makes_the_server_unready_and_ends_the_process() -> None:
    with held(watchdog_s=2.0) as asked:
        waits = asked.post(10)
        asked.server.read("batch 10")
        also = asked.post(1)
        while httpx.get(asked.url.join("/readyz"), timeout=LONGEST_S).status_code != 503:
            pass
        asked.wait(2)
        assert [each.result().status_code for each in (waits, also)] == [503, 503]
        code, errors = asked.server.end()
        assert code == 3
        assert len(errors.splitlines()) == 1


def test_an_engine_that_ends_ends_the_process() -> None:
    with held() as asked:
        waits = asked.post(10)
        asked.server.tell("die")
        assert waits.result().status_code == 503
        code, _ = asked.server.end()
        assert code == 3


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.9.9.9", "::1"])
def test_loopback_addresses(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.1.2.3", "2001:db8::1"])
def test_addresses_that_others_may_reach(host: str) -> None:
    assert not is_loopback(host)


def test_a_port_that_is_taken_is_refused() -> None:
    with listen(ServerOptions(port=0)) as taken:
        port = taken.getsockname()[1]
        with refused(InputError, port, hint="--port"):
            listen(ServerOptions(port=port))


@pytest.mark.parametrize("host", ["", "no such name", "a" * 70, "a..b"])
def test_a_name_without_an_address_is_refused(host: str) -> None:
    with refused(InputError, repr(host)):
        is_loopback(host)


def test_an_address_that_is_not_here_is_refused() -> None:
    with refused(InputError, "192.0.2.1", hint="--host"):
        listen(ServerOptions(host="192.0.2.1"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("drain_delay_s", -1),
        ("shutdown_timeout_s", 0),
        ("watchdog_s", 0),
        ("keep_alive_s", 0),
        ("private_key", Path("key.pem")),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, value: object) -> None:
    with refused(InputError, name, expected=naming()):
        ServerOptions(**{name: value})  # type: ignore[arg-type]
