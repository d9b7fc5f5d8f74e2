"""Who may do what: keys by their digests, compared in constant time, of two scopes."""

from __future__ import annotations

import hmac
import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from serve.test_requests import check_refused
from support.refusals import refused
from support.served import READER, WRITER, Client, Server, bearer, regions_of
from support.small_galleries import REGIONS

from sgraf_deploy.errors import InputError
from sgraf_deploy.serve.keys import Keys, hash_key

GOOD = {"query": "a dog runs", "documents": ["image:photo0.jpg"]}
IMAGE = regions_of(REGIONS[0])
READS: list[tuple[str, str, Any]] = [
    ("POST", "/rerank", GOOD),
    ("POST", "/v1/rerank", GOOD),
    ("POST", "/v2/rerank", GOOD),
    ("GET", "/v1/models", None),
    ("GET", "/meta", None),
    ("GET", "/metrics", None),
    ("GET", "/openapi.json", None),
    ("GET", "/v1/images/photo0.jpg", None),
]
WRITES: list[tuple[str, str, Any]] = [
    ("PUT", "/v1/images/new", IMAGE),
    ("DELETE", "/v1/images/photo0.jpg", None),
]
PUBLIC: list[tuple[str, str, Any]] = [("GET", "/healthz", None), ("GET", "/readyz", None)]


def ask(
    server: Server, request: tuple[str, str, Any], headers: dict[str, str] | None = None
) -> httpx.Response:
    method, path, body = request

    async def send(client: Client) -> httpx.Response:
        return await client.http.request(method, path, json=body, headers=headers)

    return server.talk(send, keyed=True)


def each(requests: list[tuple[str, str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("request_", requests, ids=lambda one: " ".join(one[:2]))


@each([*READS, *WRITES])
@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({}, "missing_key"),
        ({"authorization": "Basic eDp5"}, "missing_key"),
        ({"authorization": READER}, "missing_key"),
        ({"x-api-key": READER}, "missing_key"),
        (bearer(""), "missing_key"),
        (bearer("wrong"), "invalid_key"),
        (bearer(READER[:-1]), "invalid_key"),
        (bearer(READER + "x"), "invalid_key"),
        (bearer(hash_key(READER)), "invalid_key"),
    ],
)
def test_no_key_and_wrong_keys(
    server: Server, request_: tuple[str, str, Any], headers: dict[str, str], code: str
) -> None:
    response = ask(server, request_, headers)

    check_refused(response, 401, code)
    assert response.headers["www-authenticate"] == "Bearer"
    assert "photo0.jpg" in server.gallery
    assert "new" not in server.gallery


@each(READS)
@pytest.mark.parametrize("key", [READER, WRITER], ids=["reader", "writer"])
def test_what_reads(server: Server, request_: tuple[str, str, Any], key: str) -> None:
    assert ask(server, request_, bearer(key)).status_code == 200


@each(WRITES)
def test_what_writes(server: Server, request_: tuple[str, str, Any]) -> None:
    check_refused(ask(server, request_, bearer(READER)), 403, "read_only_key")
    assert ask(server, request_, {"authorization": f"bearer  {WRITER} "}).status_code == 200


@each(PUBLIC)
def test_health_needs_no_key(server: Server, request_: tuple[str, str, Any]) -> None:
    assert ask(server, request_).status_code == 200


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_the_methods_of_a_route_are_no_secret(server: Server, path: str) -> None:
    check_refused(ask(server, ("GET", path, None)), 405)
    assert ask(server, ("OPTIONS", path, None)).status_code == 204


def test_a_key_is_checked_before_the_body_is_read(server: Server) -> None:
    async def send(client: Client) -> httpx.Response:
        return await client.http.post("/rerank", content=b"[" * 10_000)

    check_refused(server.talk(send, keyed=True), 401)


def test_every_key_is_compared_in_constant_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    compare_digest = hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(len(one))
        return compare_digest(one, other)

    keys = server.keys_file()
    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys.check(f"Bearer {READER}", "read")
    assert compared == [32, 32]


def test_the_file_holds_digests_alone_and_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"one read {hash_key('first')}\n")
    keys = Keys(path)
    assert len(keys) == 1
    keys.check("Bearer first", "read")

    path.write_text(f"\n# both\none read {hash_key('second')}  # new\nb write {hash_key('c')}\n")
    keys.reload()
    keys.check("Bearer second", "read")
    keys.check("Bearer c", "write")
    assert len(keys) == 2

    path.write_text("one read second\n")
    with refused(InputError, path, 1) as found:
        keys.reload()
    assert "second" not in str(found.error)
    keys.check("Bearer second", "read")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "one\n",
        f"one {hash_key('x')}\n",
        f"one admin {hash_key('x')}\n",
        f"one read {hash_key('x')[:-1]}\n",
        f"one read {hash_key('x')} more\n",
        f"o/e read {hash_key('x')}\n",
        f"one read {hash_key('x')}\none read {hash_key('y')}\n",
        f"one read {hash_key('x')}\ntwo read {hash_key('x')}\n",
        "\0\xff",
    ],
)
def test_files_that_are_none_of_keys(tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text, encoding="latin-1")
    with refused(InputError, path):
        Keys(path)
    with refused(InputError, tmp_path / "none"):
        Keys(tmp_path / "none")


def test_neither_keys_nor_payloads_are_logged(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def send(client: Client) -> None:
        secret = {"query": "secretword dog", "documents": ["image:secretid"]}
        for key in (READER, "wrongsecret"):
            for body in (GOOD, secret, {"query": "secretword"}, {"secretfield": 1}):
                await client.rerank(body, headers=bearer(key))
        await client.http.put("/v1/images/secretid", content=b"{secret", headers=bearer(WRITER))

    server.talk(send, keyed=True)
    ours = [record for record in caplog.records if record.name != "httpx"]  # the test's client
    logged = "\n".join(record.getMessage() for record in ours)
    for name in (READER, WRITER, "secret", hash_key(READER)):
        assert name not in logged


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(f"\ufeffone read {hash_key('a')}\r\ntwo write {hash_key('b')}\r\n".encode())
    assert len(Keys(path)) == 2
