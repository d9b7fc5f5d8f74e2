"""Bodies that are too much, or too slow, are refused before anything is made of them."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from serve.test_requests import check_refused
from support.refusals import refused
from support.served import Client, Server
from support.virtual_time import run

from sgraf_deploy.errors import InputError
from sgraf_deploy.serve.calls import MalformedError, RequestError, SlowError, TooLargeError
from sgraf_deploy.serve.errors import ClientGoneError
from sgraf_deploy.serve.limits import check_shape, headers_of, read_body
from sgraf_deploy.serve.settings import Limits, Settings

GOOD = {"query": "a dog", "documents": ["image:photo0.jpg"]}


def post(server: Server, content: Any, limits: Limits, **headers: str) -> httpx.Response:
    async def send(client: Client) -> httpx.Response:
        return await client.http.post("/rerank", content=content, headers=headers)

    return server.talk(send, Settings(limits=limits))


@pytest.mark.parametrize("declared", [True, False], ids=["declared", "chunked"])
def test_too_many_bytes(server: Server, declared: bool) -> None:
    body = json.dumps(GOOD).encode()
    limits = Limits(body_bytes=len(body))

    async def chunks(content: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(content), 7):
            yield content[start : start + 7]

    def content(of: bytes) -> Any:
        return of if declared else chunks(of)

    assert post(server, content(body), limits).status_code == 200
    message = check_refused(post(server, content(body + b" "), limits), 413, "body_too_large")
    assert str(len(body)) in message


def test_a_declared_length_is_refused_before_the_body_is_read(server: Server) -> None:
    read = []

    async def chunks() -> AsyncIterator[bytes]:
        read.append(True)
        yield b"{}"

    response = post(server, chunks(), Limits(), **{"content-length": "99999999999"})

    check_refused(response, 413, "body_too_large")


def test_a_body_that_does_not_come_is_given_up(server: Server) -> None:
    async def never() -> AsyncIterator[bytes]:
        yield b'{"query": '
        await asyncio.Event().wait()

    check_refused(post(server, never(), Limits(body_s=0.001)), 408)


def test_a_body_may_come_in_parts_and_late(server: Server) -> None:
    content = json.dumps(GOOD).encode()

    async def slowly() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 9):
            await asyncio.sleep(0)
            yield content[start : start + 9]

    assert post(server, slowly(), Limits()).status_code == 200


@pytest.mark.parametrize("first", [[], [b"[", b""]], ids=["nothing", "a part"])
def test_a_body_that_stops_is_closed(first: list[bytes]) -> None:
    """Nothing waits for the connection any more once the time is over."""
    waiting: list[bool] = []

    async def receive() -> Any:
        if first:
            return {"type": "http.request", "body": first.pop(0), "more_body": True}
        waiting.append(True)
        try:
            await asyncio.Event().wait()
        finally:
            waiting.append(False)

    with pytest.raises(SlowError):
        run(read_body({}, receive, Limits(body_s=20.0)))
    assert waiting == [True, False]


def test_a_client_that_leaves_within_its_body_is_none_to_answer() -> None:
    messages = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Any:
        await asyncio.sleep(1.0)
        return messages.pop(0)

    with pytest.raises(ClientGoneError):
        run(read_body({}, receive, Limits()))


def test_of_a_header_that_comes_twice_the_first_counts() -> None:
    scope = {"headers": [(b"x-timeout-ms", b"5"), (b"x-timeout-ms", b"7"), (b"x", b"\xe9")]}
    assert headers_of(scope) == {"x-timeout-ms": "5", "x": "é"}


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"query": "x", "documents": ' + b"[" * 50 + b"]" * 50 + b"}",
        b'{"query": "a", "other": ' + b'{"a":' * 33 + b"1" + b"}" * 33 + b"}",
    ],
    ids=["arrays", "objects", "documents", "a foreign field"],
)
def test_deep_json(server: Server, content: bytes) -> None:
    check_refused(post(server, content, Limits()), 400, "too_deep")


def test_brackets_in_texts_are_no_depth(server: Server) -> None:
    text = '[[[[{{{{"\\' * 40
    body = json.dumps({"query": text + " dog", "documents": ["image:photo0.jpg"]})
    assert post(server, body, Limits()).status_code == 200


@pytest.mark.parametrize(
    "content",
    [
        b'{"query": "a", "documents": [' + b'"",' * 2_000_000 + b'""]}',
        b'{"query": "a", "documents": [' + b"0," * 2_000_000 + b"0]}",
        b'{"query": "a", "documents": [' + b"{}," * 2_000_000 + b"{}]}",
        b"{" + b'"a":1,' * 1_000_000 + b'"b":1}',
    ],
    ids=["strings", "numbers", "objects", "fields"],
)
def test_many_small_parts_are_refused_without_being_built(content: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(TooLargeError):
            check_shape(content, Limits(documents=100))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000


@pytest.mark.parametrize("content", [b'"' + b'\\"' * 500_000, b'["' + b"\\\\" * 500_000, b'"[' * 9])
def test_a_string_without_an_end_is_read_once(content: bytes) -> None:
    check_shape(content + b"," * 5000 + b"[" * 33, Limits(documents=1))


def test_a_large_body_within_the_limits_is_answered(server: Server) -> None:
    documents = ["image:photo0.jpg"] * 1000
    body = json.dumps({"query": "a dog", "documents": documents, "user": "x" * 300_000})

    response = post(server, body, Limits())

    assert response.status_code == 200
    assert len(response.json()["results"]) == 1000


def test_limits_that_cannot_be_are_refused() -> None:
    for wrong in (
        {"body_bytes": 0},
        {"documents": 0},
        {"depth": -1},
        {"body_s": 0.0},
        {"id_bytes": 511},
    ):
        (name,) = wrong
        with refused(InputError, name):
            Limits(**wrong)
    with refused(InputError, "models"):
        Settings(models=())
    with refused(InputError, "timeout_s"):
        Settings(timeout_s=0.0)


def test_the_kinds_of_refusals_have_a_status_each() -> None:
    kinds = RequestError.__subclasses__()
    assert len({kind.status for kind in kinds}) == len(kinds) > 10
    assert {kind.status for kind in kinds} == {
        *(400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 503, 504)
    }
    assert issubclass(MalformedError, RequestError)
