"""The HTTP application: routes, keys, metrics, and errors in one shape."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from litestar import Litestar
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.handlers import BaseRouteHandler

from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.scorer import Scorer
from sgraf_deploy.serve.documents import Reader
from sgraf_deploy.serve.errors import GONE, HANDLERS
from sgraf_deploy.serve.health import CallQueue, Health, probe_call
from sgraf_deploy.serve.images import Images, ImageStore
from sgraf_deploy.serve.keys import Keys
from sgraf_deploy.serve.metrics import Metrics, RequestMetrics, route_of
from sgraf_deploy.serve.openapi import description
from sgraf_deploy.serve.routes import ROUTE_HANDLERS, Service
from sgraf_deploy.serve.settings import Settings

Message = MutableMapping[str, Any]
App = Callable[
    [Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]
"""An ASGI application."""


def build_app(
    batcher: CallQueue,
    scorer: Scorer,
    gallery: Gallery,
    settings: Settings | None = None,
    *,
    keys: Keys | None = None,
    metrics: Metrics | None = None,
) -> App:
    """The application that answers for a scorer and its gallery of images.

    `batcher` answers calls, for example with an `Answerer` of the same scorer and gallery; whoever
    calls this runs it in the application's event loop. Without `keys` every request is allowed.

    Raises:
        DataError: a gallery that cannot be read.
    """
    settings = settings or Settings()
    config = next(iter(scorer.bundle.manifest.members.values())).config
    reader = Reader(settings, config.regions, config.img_dim)
    metrics = metrics or Metrics()
    metrics.watch(scorer, gallery)
    return build_front(batcher, Images(scorer, gallery, reader), reader, keys=keys, metrics=metrics)


def build_front(
    batcher: CallQueue,
    images: ImageStore,
    reader: Reader,
    *,
    keys: Keys | None,
    metrics: RequestMetrics,
    read_only: bool = False,
) -> App:
    """The application that reads requests, and answers with what a queue and a store have.

    `read_only` describes a store that refuses what would change it.
    """
    settings, regions, img_dim = reader.settings, reader.regions, reader.img_dim
    service = Service(
        batcher=batcher,
        reader=reader,
        settings=settings,
        images=images,
        health=Health(batcher, probe_call(regions, img_dim)),
        metrics=metrics,
        keys=keys,
        description=description(
            settings, regions, img_dim, keyed=keys is not None, read_only=read_only
        ),
        started=int(time.time()),
    )
    litestar = Litestar(
        ROUTE_HANDLERS,
        guards=[] if keys is None else [_allowed],  # without one, none copies the connection
        exception_handlers=HANDLERS,
        openapi_config=None,
        logging_config=None,
        request_max_body_size=None,  # `limits` reads bodies
        state=State({"service": service}),
        debug=False,
    )
    return _Observed(litestar, metrics)


async def _allowed(
    connection: ASGIConnection[Any, Any, Any, Any], handler: BaseRouteHandler
) -> None:
    """Refuse a request without a key of the route's scope, before its body is read."""
    scope = handler.opt.get("scope")
    keys = connection.app.state.service.keys
    if scope is not None and keys is not None:
        keys.check(connection.headers.get("authorization"), scope)


class _Observed:
    """An application whose requests are counted and timed, by route and status."""

    def __init__(self, app: Litestar, metrics: RequestMetrics) -> None:
        self.app, self._metrics = app, metrics

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), GONE

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, watched)  # type: ignore[arg-type]
        finally:
            seconds = time.perf_counter() - started
            self._metrics.answered(route_of(scope["path"]), status, seconds)
