"""Routes, methods, media types and bodies that are none: errors in the one shape."""

from __future__ import annotations

import httpx
import pytest
from serve.test_requests import GOOD, check_refused
from support.served import Client, Server


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"7", b'{"query":', b'{"query": "\xff"}', b"\xff", b'{"a": NaN}']
)
def test_what_is_no_json_object_is_malformed(server: Server, content: bytes) -> None:
    response = server.talk(lambda client: client.http.post("/rerank", content=content))

    check_refused(response, 400)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        *(("GET", "/", 404), ("GET", "/v1", 404), ("POST", "/v3/rerank", 404)),
        *(("GET", "/v1/images/", 404), ("GET", "/v1/images", 404), ("GET", "/docs", 404)),
        *(("GET", "/rerank", 405), ("DELETE", "/v1/models", 405), ("POST", "/metrics", 405)),
        *(("POST", "/v1/images/x", 405), ("PATCH", "/v1/images/x", 405)),
    ],
)
def test_routes_and_methods_that_are_none(
    server: Server, method: str, path: str, status: int
) -> None:
    response = server.talk(lambda client: client.http.request(method, path))

    check_refused(response, status)
    assert ("allow" in response.headers) == (status == 405)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [("/v1/images/x", "DELETE, GET, OPTIONS, PUT"), ("/rerank", "OPTIONS, POST")],
)
def test_the_methods_of_a_route_are_told(server: Server, path: str, allowed: str) -> None:
    response = server.talk(lambda client: client.http.options(path))

    assert (response.status_code, response.headers["allow"]) == (204, allowed)
    wrong = server.talk(lambda client: client.http.patch(path))
    assert set(wrong.headers["allow"].split(", ")) == set(allowed.split(", "))


@pytest.mark.parametrize(
    "headers",
    [
        {"content-type": "text/plain"},
        {"content-type": "application/x-www-form-urlencoded"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
def test_other_media_types_are_refused(server: Server, headers: dict[str, str]) -> None:
    async def post(client: Client) -> httpx.Response:
        return await client.http.post("/rerank", content=b"{}", headers=headers)

    check_refused(server.talk(post), 415)


def test_a_charset_is_no_other_media_type(server: Server) -> None:
    async def post(client: Client) -> httpx.Response:
        headers = {"content-type": "application/json; charset=utf-8"}
        return await client.rerank(GOOD, headers=headers)

    assert server.talk(post).status_code == 200
