"""A small server in the test's own process: the application, its batcher, and a client."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from numpy.typing import NDArray
from support.small_galleries import IMAGE_IDS, REGIONS

from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.serve.answering import Answerer
from sgraf_deploy.serve.app import App, build_app
from sgraf_deploy.serve.batcher import Batcher
from sgraf_deploy.serve.calls import Answer, Call
from sgraf_deploy.serve.keys import Keys, hash_key
from sgraf_deploy.serve.metrics import Metrics
from sgraf_deploy.serve.settings import Settings

READER, WRITER = "key-that-reads-0123456789", "key-that-writes-0123456789"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Client:
    """What a test talks to, and what stands behind it."""

    http: httpx.AsyncClient
    batcher: Batcher
    gallery: Gallery
    metrics: Metrics
    calls: list[Call]

    async def rerank(self, body: Any, path: str = "/v1/rerank", **more: Any) -> httpx.Response:
        return await self.http.post(path, json=body, **more)

    async def ranked(self, body: Any, path: str = "/v1/rerank") -> list[int]:
        """The indices that a request of the dialect `results` is answered with."""
        response = await self.rerank(body, path)
        assert response.status_code == 200, response.text
        return [item["index"] for item in response.json()["results"]]


@dataclass(frozen=True)
class Server:
    """A scorer and a gallery of `support.small_galleries`, to be served with any settings."""

    scorer: Scorer
    gallery: Gallery
    folder: Path
    keys: list[str] = field(default_factory=list)

    def keys_file(self) -> Keys:
        path = self.folder / "keys"
        path.write_text(
            f"reader read {hash_key(READER)}\n# a comment\nwriter write {hash_key(WRITER)}\n"
        )
        return Keys(path)

    @asynccontextmanager
    async def open(
        self, settings: Settings | None = None, *, keyed: bool = False
    ) -> AsyncIterator[Client]:
        calls: list[Call] = []
        metrics = Metrics()
        answerer = Answerer(self.scorer, self.gallery, timings=metrics)

        def run(batch: Sequence[Call]) -> Sequence[Answer | Exception]:
            calls.extend(batch)
            return answerer.answer_many(batch)

        keys = self.keys_file() if keyed else None
        async with Batcher(run, observer=metrics) as batcher:
            app = build_app(
                batcher, self.scorer, self.gallery, settings, keys=keys, metrics=metrics
            )
            async with client_of(app) as http:
                yield Client(http, batcher, self.gallery, metrics, calls)

    def talk(
        self,
        conversation: Callable[[Client], Coroutine[Any, Any, _T]],
        settings: Settings | None = None,
        *,
        keyed: bool = False,
    ) -> _T:
        """Run a test's requests against a server that is gone afterwards."""

        async def held() -> _T:
            async with self.open(settings, keyed=keyed) as client:
                return await conversation(client)

        return asyncio.run(held())


@asynccontextmanager
async def client_of(app: App) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application, without a socket."""
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def regions_of(array: NDArray[Any]) -> dict[str, Any]:
    """Regions (regions, img_dim) as they are sent."""
    return {
        "regions": base64.b64encode(np.ascontiguousarray(array).tobytes()).decode(),
        "dtype": str(array.dtype),
        "shape": list(array.shape),
    }


def by_scorer(scorer: Scorer, caption: str, ids: Sequence[str]) -> list[int]:
    """The places of images, best first, as `Scorer.rerank` ranks them for a caption."""
    rows = [IMAGE_IDS.index(id_) for id_ in ids]
    return [item.index for item in scorer.rerank(caption, REGIONS[rows])]


def by_scorer_captions(scorer: Scorer, image: str, captions: Sequence[str]) -> list[int]:
    """The places of captions, best first, as `Scorer.rerank` ranks them for an image."""
    found = scorer.rerank(REGIONS[IMAGE_IDS.index(image)], list(captions))
    return [item.index for item in found]


Conversation = Callable[[Client], Awaitable[_T]]
