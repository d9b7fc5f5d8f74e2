"""What says whether the server lives, is ready, and what it has done."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from serve.test_requests import check_refused
from support.served import Client, Server, client_of

from sgraf_deploy.serve.app import build_app
from sgraf_deploy.serve.calls import (
    Answer,
    Call,
    FailedError,
    Item,
    OverloadedError,
    RequestError,
    TimedOutError,
)
from sgraf_deploy.serve.health import Health, Ready, probe_call
from sgraf_deploy.serve.metrics import ROUTES

GOOD = {"query": "a dog runs", "documents": ["image:photo0.jpg", "image:photo1.jpg"]}


@dataclass
class Engine:
    """A batcher whose state and answers a test chooses."""

    alive: bool = True
    draining: bool = False
    busy_s: float = 0.0
    ok_s: float | None = None
    error: Exception | None = None
    calls: list[tuple[Call, float, bool]] = field(default_factory=list)
    go_on: asyncio.Event | None = None

    @property
    def state(self) -> Engine:
        return self

    async def submit(self, call: Call, timeout_s: float, *, urgent: bool = False) -> Answer:
        self.calls.append((call, timeout_s, urgent))
        if self.go_on is not None:
            await self.go_on.wait()
        if self.error is not None:
            raise self.error
        return Answer((Item(0, 0.5, 0.0),))


def checked(engine: Engine, times: int = 1, now: list[float] | None = None) -> list[Ready]:
    health = Health(engine, probe_call(4, 6), clock=lambda: now[0] if now else 0.0)

    async def check() -> list[Ready]:
        return list(await asyncio.gather(*(health.check() for _ in range(times))))

    return asyncio.run(check())


@pytest.mark.parametrize(
    "engine",
    [
        Engine(draining=True, ok_s=0.0),
        Engine(alive=False, ok_s=0.0),
        Engine(busy_s=60.0, ok_s=0.0),
        Engine(error=TimedOutError("too late")),
        Engine(error=FailedError("broken"), ok_s=60.0),
    ],
    ids=["draining", "dead", "stuck", "late", "broken"],
)
def test_an_engine_that_does_not_answer_is_not_ready(engine: Engine) -> None:
    (found,) = checked(engine)
    assert not found.ready
    assert found.reason != ""


def test_an_engine_is_asked_for_a_real_pair_once_for_all_who_want_to_know() -> None:
    engine = Engine()
    assert all(found.ready for found in checked(engine, 5))
    ((call, timeout_s, urgent),) = engine.calls
    assert (call.pairs, call.direction, urgent) == (1, "image_to_text", True)
    assert timeout_s > 0


def test_an_engine_that_has_just_answered_is_not_asked() -> None:
    engine = Engine(ok_s=0.5)
    assert checked(engine)[0].ready
    assert engine.calls == []


def test_what_was_found_is_kept_for_a_second() -> None:
    now = [100.0]
    engine = Engine(error=FailedError("broken"))
    health = Health(engine, probe_call(4, 6), clock=lambda: now[0])

    async def conversation() -> list[bool]:
        found = []
        for at in (100.0, 100.9, 101.1):
            now[0] = at
            found.append((await health.check()).ready)
            engine.error = None
        return found

    assert asyncio.run(conversation()) == [False, False, True]
    assert len(engine.calls) == 2


def test_a_real_server_is_ready_until_it_drains(server: Server) -> None:
    async def conversation(client: Client) -> None:
        response = await client.http.get("/readyz")
        assert (response.status_code, response.json()) == (200, {"status": "ready"})
        assert len(client.calls) == 1
        client.batcher.draining = True
        check_refused(await client.http.get("/readyz"), 503, "not_ready")
        assert (await client.http.get("/healthz")).status_code == 200
        # What is accepted meanwhile is still answered.
        assert (await client.rerank(GOOD)).status_code == 200

    server.talk(conversation)


def with_engine(server: Server, engine: Engine, work: Any) -> Any:
    async def held() -> Any:
        app = build_app(engine, server.scorer, server.gallery)
        async with client_of(app) as http:
            return await work(http)

    return asyncio.run(held())


@pytest.mark.parametrize(
    "error",
    [
        OverloadedError("full", retry_after_s=3.4),
        TimedOutError("late"),
        FailedError("broken"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_the_batcher_refuses_is_answered_so(server: Server, error: RequestError) -> None:
    def ask(http: httpx.AsyncClient) -> Coroutine[Any, Any, httpx.Response]:
        return http.post("/rerank", json=GOOD)

    response = with_engine(server, Engine(error=error), ask)

    check_refused(response, error.status, error.kind)
    assert response.headers.get("retry-after") == ("3" if error.retry_after_s else None)


def test_a_defect_is_answered_and_logged_without_what_it_says(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    response = with_engine(
        server,
        Engine(error=KeyError("secretword")),
        lambda http: http.post("/rerank", json=GOOD),
    )

    check_refused(response, 500)
    assert "secretword" not in response.text
    (record,) = [one for one in caplog.records if one.levelno == logging.ERROR]
    assert "KeyError" in record.getMessage()
    assert "secretword" not in caplog.text


def test_a_client_that_leaves_takes_its_request_back(server: Server) -> None:
    cancelled = []

    class Held(Engine):
        async def submit(self, call: Call, timeout_s: float, *, urgent: bool = False) -> Answer:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(call)
                raise
            raise AssertionError

    messages = iter(
        [
            {"type": "http.request", "body": b'{"query": "a dog",', "more_body": True},
            {"type": "http.request", "body": b'"documents": ["image:photo0.jpg"]}'},
            {"type": "http.disconnect"},
        ]
    )
    sent: list[Any] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    app = build_app(Held(), server.scorer, server.gallery)
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/rerank",
        "raw_path": b"/rerank",
    }
    scope |= {"query_string": b"", "headers": [], "http_version": "1.1", "scheme": "http"}
    scope |= {"server": ("test", 80), "client": ("test", 1), "root_path": "", "asgi": {}}
    asyncio.run(app(scope, receive, send))  # type: ignore[arg-type]

    assert len(cancelled) == 1
    assert sent[0]["status"] == 499


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


NAMES = {
    *("sgraf_request_duration_seconds_count", "sgraf_queue_duration_seconds_count"),
    *("sgraf_encode_duration_seconds_count", "sgraf_score_duration_seconds_count"),
    *("sgraf_batch_pairs_count", "sgraf_batch_requests_count", "sgraf_queue_pairs"),
    *("sgraf_requests_total", "sgraf_resident_hits_total", "sgraf_resident_misses_total"),
    *("sgraf_cache_hits_total", "sgraf_cache_misses_total"),
    *("sgraf_gallery_images", "sgraf_gallery_bytes", "process_resident_memory_bytes"),
}


def test_metrics_are_there_before_the_first_request(server: Server) -> None:
    response = server.talk(lambda client: client.http.get("/metrics"))

    assert response.headers["content-type"].startswith("text/plain")
    found = samples(response.text)
    assert {name for name, _ in found} >= NAMES
    for route in ROUTES:
        assert ("sgraf_request_duration_seconds_count", (("route", route),)) in found
    assert found["sgraf_gallery_images", ()] == 9
    assert found["sgraf_gallery_bytes", ()] > 0


def test_metrics_count_what_was_done_and_take_no_label_from_a_request(server: Server) -> None:
    async def conversation(client: Client) -> str:
        await asyncio.gather(*(client.rerank(GOOD) for _ in range(3)))
        await client.rerank({"query": "guestword"})
        await client.http.get("/guestpath/x", headers={"x": "guestword"})
        await client.http.request("GUESTWORD", "/v1/models")
        await client.http.get("/v1/images/guestid")
        return (await client.http.get("/metrics")).text

    text = server.talk(conversation)

    assert "guest" not in text.lower()
    found = samples(text)
    codes = {labels: value for (name, labels), value in found.items() if name.endswith("ts_total")}
    assert codes[("code", "200"), ("route", "/v1/rerank")] == 3
    assert codes[("code", "422"), ("route", "/v1/rerank")] == 1
    assert codes[("code", "404"), ("route", "other")] == 1
    assert codes[("code", "404"), ("route", "/v1/images/{id}")] == 1
    assert codes[("code", "405"), ("route", "/v1/models")] == 1
    assert found["sgraf_queue_duration_seconds_count", ()] == 3
    assert found["sgraf_batch_pairs_sum", ()] == 6
    assert found["sgraf_batch_requests_sum", ()] == 3
    batches = found["sgraf_batch_pairs_count", ()]
    assert found["sgraf_encode_duration_seconds_count", ()] == batches
    assert found["sgraf_queue_pairs", ()] == 0


def test_metrics_do_not_need_a_gallery_that_can_be_read(server: Server) -> None:
    async def conversation(client: Client) -> httpx.Response:
        client.gallery.close()
        return await client.http.get("/metrics")

    response = server.talk(conversation)
    assert response.status_code == 200
    assert str(samples(response.text)["sgraf_gallery_images", ()]) == "nan"
