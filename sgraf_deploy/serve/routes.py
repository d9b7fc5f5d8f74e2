"""What each route does."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec
from litestar import Controller, HttpMethod, Request, Response, asgi, delete, get, put, route
from litestar.exceptions import MethodNotAllowedException
from litestar.types import Receive, Scope, Send

from sgraf_deploy.serve.calls import Answer, FailedError, RequestError, UnprocessableError
from sgraf_deploy.serve.connections import while_connected
from sgraf_deploy.serve.dialects.dialect import Reply
from sgraf_deploy.serve.documents import Reader, check_id
from sgraf_deploy.serve.errors import JSON
from sgraf_deploy.serve.health import CallQueue, Health
from sgraf_deploy.serve.images import ImageStore
from sgraf_deploy.serve.keys import Keys
from sgraf_deploy.serve.limits import deadline, headers_of, read_body, takes_partial
from sgraf_deploy.serve.metrics import CONTENT_TYPE, Exported
from sgraf_deploy.serve.reading import Asked, read_request
from sgraf_deploy.serve.settings import BUNDLE_HEADER, IS_PARTIAL_HEADER, Settings

READ, WRITE = {"scope": "read"}, {"scope": "write"}
IMAGE = "/v1/images/"
LARGE_BYTES = 256 * 2**10
"""A body of more bytes is read in a thread, so that others are answered meanwhile."""

AnyRequest = Request[Any, Any, Any]
_encode = msgspec.json.Encoder().encode
_JSON = JSON.encode()


@dataclass(frozen=True, eq=False)
class Service:
    """What the routes work with."""

    batcher: CallQueue
    reader: Reader
    settings: Settings
    images: ImageStore
    health: Health
    metrics: Exported
    keys: Keys | None
    description: dict[str, Any]
    started: int


@asgi(["/rerank", "/v1/rerank", "/v2/rerank"], copy_scope=False)
async def rerank(scope: Scope, receive: Receive, send: Send) -> None:
    """Rank documents for a query, in whichever dialect the request is.

    This is plain ASGI behind the framework's routing and in front of its handling of errors: its
    own request and response take as long as reading the documents does.
    """
    http: Any = scope
    if http["method"] != "POST":
        await _other_method(http["method"], send)
        return
    service: Service = http["app"].state.service
    headers = headers_of(http)
    if service.keys is not None:
        service.keys.check(headers.get("authorization"), "read")
    timeout_s = deadline(headers, service.settings.timeout_s)
    partial = takes_partial(headers)
    body = await read_body(headers, receive, service.settings.limits)
    if len(body) > LARGE_BYTES:
        asked = await asyncio.to_thread(read_request, body, service.reader)
    else:
        asked = read_request(body, service.reader)
    call = replace(asked.call, partial=True) if partial else asked.call
    try:
        answer = await while_connected(receive, service.batcher.submit(call, timeout_s))
    except RequestError as error:
        raise _named(error, asked) from error
    reply = Reply(
        answer=asked.told(answer),
        sent=asked.sent,
        echo=asked.echo,
        model=asked.model,
        id=f"{random.getrandbits(128):032x}",
        created=int(time.time()),
        version="2" if http["path"].startswith("/v2") else "1",
    )
    answered = _encode(asked.dialect.render(reply))
    size = b"%d" % len(answered)
    told = [(b"content-type", _JSON), (b"content-length", size), *_source(answer)]
    await _send(send, 200, told, answered)


def _source(answer: Answer) -> list[tuple[bytes, bytes]]:
    """The headers that say what made an answer."""
    found = [(BUNDLE_HEADER.encode(), ", ".join(answer.bundles).encode())] if answer.bundles else []
    if answer.partial:
        found.append((IS_PARTIAL_HEADER.encode(), b"true"))
    return found


async def _other_method(method: str, send: Send) -> None:
    """Tell the methods of a route that reranks, or refuse one that it does not take."""
    allowed = "OPTIONS, POST"
    if method != "OPTIONS":
        raise MethodNotAllowedException(headers={"allow": allowed})
    await _send(send, 204, [(b"allow", allowed.encode())], b"")


async def _send(send: Any, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


@get("/v1/models", opt=READ)
async def models(request: AnyRequest) -> Response[bytes]:
    """The names that requests may use."""
    service: Service = request.app.state.service
    owned = {"object": "model", "created": service.started, "owned_by": "sgraf-deploy"}
    data = [{"id": name, **owned} for name in service.settings.models]
    return _json({"object": "list", "data": data})


@get("/meta", opt=READ)
async def meta(request: AnyRequest) -> Response[bytes]:
    """What Weaviate asks for when it starts."""
    service: Service = request.app.state.service
    return _json({"model": {"name": service.settings.models[0]}})


@get("/healthz")
async def healthz() -> Response[bytes]:
    """The process runs."""
    return _json({"status": "ok"})


@get("/readyz")
async def readyz(request: AnyRequest) -> Response[bytes]:
    """The engine answers."""
    service: Service = request.app.state.service
    found = await service.health.check()
    if not found.ready:
        raise FailedError("the server is not ready", got=found.reason, code="not_ready")
    return _json({"status": "ready"})


@get("/metrics", opt=READ)
async def metrics(request: AnyRequest) -> Response[bytes]:
    """What was counted and timed, for Prometheus."""
    service: Service = request.app.state.service
    return Response(await service.metrics.everything(), media_type=CONTENT_TYPE)


@get("/openapi.json", opt=READ)
async def openapi(request: AnyRequest) -> Response[bytes]:
    """The description of these routes."""
    service: Service = request.app.state.service
    return _json(service.description)


class ImageRoutes(Controller):
    """One image of the gallery."""

    path = IMAGE + "{name:path}"

    @get(opt=READ)
    async def read(self, request: AnyRequest) -> Response[bytes]:
        """What is kept beside an image's regions."""
        service: Service = request.app.state.service
        return _json(await service.images.get(image_id(request, service.settings)))

    @put(status_code=200, opt=WRITE)
    async def store(self, request: AnyRequest) -> Response[bytes]:
        """Store an image, durably before it is answered."""
        service: Service = request.app.state.service
        id_ = image_id(request, service.settings)
        body = await read_body(request.headers, request.receive, service.settings.limits)
        return _json(await service.images.put(id_, body))

    @delete(status_code=200, opt=WRITE)
    async def remove(self, request: AnyRequest) -> Response[bytes]:
        """Delete an image."""
        service: Service = request.app.state.service
        return _json(await service.images.delete(image_id(request, service.settings)))

    @route(http_method=[HttpMethod.OPTIONS], status_code=204)
    async def options(self) -> Response[None]:
        """The methods; the framework's own answer names one of them."""
        return Response(None, headers={"allow": "DELETE, GET, OPTIONS, PUT"})


ROUTE_HANDLERS: list[Any] = [rerank, models, meta, healthz, readyz, metrics, openapi, ImageRoutes]


def image_id(request: AnyRequest, settings: Settings) -> str:
    """The id in a path, as it was sent: no part of it is a folder, and nothing is normalised."""
    raw: bytes = request.scope.get("raw_path") or request.scope["path"].encode()
    encoded = raw.partition(b"?")[0].partition(IMAGE.encode())[2]
    try:
        id_ = unquote_to_bytes(encoded).decode()
    except UnicodeDecodeError as error:
        raise UnprocessableError("id", expected="UTF-8", param="id", code="invalid_id") from error
    return check_id(id_, "id", settings.limits.id_bytes)


def _named(error: RequestError, asked: Asked) -> RequestError:
    """The error with the name that the dialect has for `documents`."""
    field = asked.dialect.documents
    if error.param is not None and error.param.startswith("documents["):
        error.param = field + error.param.removeprefix("documents")
    return error


def _json(content: Any) -> Response[bytes]:
    return Response(_encode(content), media_type=JSON)
