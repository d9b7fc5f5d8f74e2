"""The tests of requests for scoring, against the service on Ray with two shards."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from serve import test_requests
from serve.test_requests import check_refused
from support.ray_service import LONGEST_S, Held, RayServer, free_port, online_of, sharded_galleries
from support.small_galleries import IMAGE_IDS

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.distributed.online import deploy, stop
from sgraf_deploy.distributed.replica import Found
from sgraf_deploy.distributed.shards import shard_of
from sgraf_deploy.runtime import load

pytestmark = pytest.mark.ray

TESTS = {name: test for name, test in vars(test_requests).items() if name.startswith("test_")}
globals().update(TESTS)


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> Held:
    return Held.create(tmp_path_factory.mktemp("on_ray") / "held")


@pytest.fixture(scope="module")
def server(
    cluster: Any, bundle: Bundle, held: Held, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RayServer]:
    folder = tmp_path_factory.mktemp("on_ray")
    with load(bundle, engine="ort") as scorer:
        galleries = sharded_galleries(scorer, folder / "galleries", 2)
        online = online_of(bundle.path, galleries, port=free_port(), down_s=2.0, resource="gallery")
        manifest = bundle.manifest
        found = Found(bundle.sha256, manifest.regions, manifest.img_dim)
        try:
            yield RayServer(scorer, online, found, deploy(online, make_run=held))
        finally:
            stop()


def test_there_are_all_of_them() -> None:
    assert len(TESTS) >= 23


def test_a_shard_that_is_down_is_told_of_and_can_be_left_out(server: RayServer, held: Held) -> None:
    """Nobody may replace its replicas meanwhile."""
    body = {"query": test_requests.CAPTION, "documents": [f"image:{id_}" for id_ in IMAGE_IDS]}
    of_one = [row for row, id_ in enumerate(IMAGE_IDS) if shard_of(id_, 2) == 1]
    with httpx.Client(base_url=server.url, timeout=LONGEST_S) as http:
        with held.closed():
            for replica in held.answering_for("1.gallery"):
                os.kill(replica, signal.SIGKILL)
            check_refused(http.post("/rerank", json=body), 503, "shard_down")
            partial = http.post("/rerank", json=body, headers={"x-allow-partial": "true"})
            texts = {"query": body["query"], "texts": body["documents"]}
            bare = http.post("/rerank", json=texts, headers={"x-allow-partial": "true"})
            assert http.get("/readyz").status_code == 503
        until_answered(http, body)

    assert partial.status_code == 200, partial.text
    assert partial.headers["x-sgraf-partial"] == bare.headers["x-sgraf-partial"] == "true"
    indices = {item["index"] for item in partial.json()["results"]}
    assert indices == set(range(9)) - set(of_one)
    (warning,) = partial.json()["meta"]["warnings"]
    assert "shard 1" in warning
    assert {item["index"] for item in bare.json()} == indices


def until_answered(http: httpx.Client, body: object) -> None:
    """Return once the whole gallery answers."""
    end = time.monotonic() + LONGEST_S
    while http.post("/rerank", json=body).status_code != 200:
        assert time.monotonic() < end
