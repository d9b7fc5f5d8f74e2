"""Replicas that are killed or replaced under load: no request fails, and each names its bundle."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.onnx_bundles import write_bundle
from support.ray_service import LONGEST_S, Broken, Held, free_port, online_of, sharded_galleries
from support.refusals import refused
from support.small_galleries import IMAGE_IDS, REGIONS

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.distributed.online import Online, application, deploy, run, stop
from sgraf_deploy.distributed.replica import Found, try_out
from sgraf_deploy.errors import BundleError, UnavailableError
from sgraf_deploy.runtime import load

pytestmark = pytest.mark.ray

CLIENTS = 12
DOWN_S = 2.0
"""Seconds in which a replica has to take a call: fewer than one takes to start."""
CAPTION = "a dog runs on the beach"
BODY = {"query": CAPTION, "documents": [f"image:{id_}" for id_ in IMAGE_IDS]}


@dataclass
class World:
    """An application of the first of two bundles, whose replicas a test can hold."""

    url: str
    port: int
    held: Held
    sha256: tuple[str, str]
    first: Online
    second: Online
    scores: dict[str, dict[int, float]]
    """The similarities that each bundle gives the documents, by the bundle's sha256."""


@pytest.fixture(scope="module")
def world(
    cluster: Any, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("replicas")
    other = write_bundle(folder / "other.sgraf", "SGR")
    held, port = Held.create(folder / "held"), free_port()
    onlines, scores = [], {}
    for each in (bundle, other):
        with load(each, engine="ort") as scorer:
            galleries = sharded_galleries(scorer, folder / each.path.stem, 1)
            found = scorer.rerank(CAPTION, REGIONS)
        onlines.append(online_of(each.path, galleries, port=port, down_s=DOWN_S))
        scores[each.sha256] = {item.index: item.similarity for item in found}
    try:
        first, second = onlines
        url = deploy(first, make_run=held)
        yield World(url, port, held, (bundle.sha256, other.sha256), first, second, scores)
    finally:
        stop()


class Load:
    """Clients that ask without end, from when the block begins until it ends."""

    def __init__(self, url: str) -> None:
        self.answers: list[httpx.Response] = []
        self._url, self._ends, self._more = url, False, threading.Condition()

    def __enter__(self) -> Load:
        self._pool = ThreadPoolExecutor(CLIENTS)
        self._clients = [self._pool.submit(self._ask) for _ in range(CLIENTS)]
        return self

    def __exit__(self, *_: object) -> None:
        self._ends = True
        with self._pool:
            for client in self._clients:
                client.result(LONGEST_S)

    def wait_for(self, more: int) -> None:
        """Wait for so many more answers."""
        with self._more:
            wanted = len(self.answers) + more
            assert self._more.wait_for(lambda: len(self.answers) >= wanted, LONGEST_S)

    def _ask(self) -> None:
        with httpx.Client(timeout=LONGEST_S) as http:
            while not self._ends:
                answer = http.post(f"{self._url}/v1/rerank", json=BODY)
                with self._more:
                    self.answers.append(answer)
                    self._more.notify_all()


def check(answers: list[httpx.Response], world: World) -> list[str]:
    """Every answer is that of the bundle which it names; returns these."""
    bundles = []
    failed = [answer for answer in answers if answer.status_code != 200]
    assert not failed, f"{len(failed)} of {len(answers)}, the first with {failed[0].text}"
    for answer in answers:
        bundles.append(answer.headers["x-sgraf-bundle"])
        expected = world.scores[bundles[-1]]
        items = answer.json()["results"]
        assert {item["index"] for item in items} == set(expected)
        for item in items:
            assert abs(item["relevance_score"] - expected[item["index"]]) <= 2e-6
    return bundles


def test_a_killed_replica_fails_no_request_and_is_replaced(world: World) -> None:
    with Load(world.url) as load:
        replicas: set[int] = set()
        with world.held.shut() as began:
            while len(replicas) < 2:  # calls are in flight on both
                replicas.add(next(began))
            os.kill(min(replicas), signal.SIGKILL)
        load.wait_for(200)
        while len(world.held.answering() - replicas) == 0:
            load.wait_for(CLIENTS)

    assert set(check(load.answers, world)) == {world.sha256[0]}


def test_a_bundle_that_cannot_be_used_changes_nothing(world: World, tmp_path: Path) -> None:
    broken = write_bundle(tmp_path / "broken.sgraf")
    next(broken.path.rglob("*.onnx")).write_bytes(b"no graph")
    online = online_of(broken.path, world.first.config.galleries, port=world.port)
    with Load(world.url) as load, refused(BundleError):
        deploy(online)

    assert set(check(load.answers, world)) == {world.sha256[0]}


def test_replicas_that_cannot_start_leave_those_of_before(world: World) -> None:
    found = try_out(world.second.spec, world.second.config.galleries[0])
    assert isinstance(found, Found)
    try:
        with Load(world.url) as load:
            with refused(UnavailableError):
                run(application(world.second, found, Broken()))
            load.wait_for(CLIENTS)
    finally:
        deploy(world.first, make_run=world.held)

    assert set(check(load.answers, world)) == {world.sha256[0]}


def test_another_bundle_takes_over_without_a_failed_request(world: World) -> None:
    with Load(world.url) as load:
        load.wait_for(CLIENTS)
        assert deploy(world.second, make_run=world.held) == world.url
        load.wait_for(2 * CLIENTS)

    bundles = check(load.answers, world)
    assert bundles[0] == world.sha256[0]
    assert set(bundles[-CLIENTS:]) == {world.sha256[1]}


def test_an_update_just_after_a_replica_ended_fails_no_request(world: World) -> None:
    """Ray does not know of it yet, and would stop the other one."""
    found = try_out(world.first.spec, world.first.config.galleries[0])
    assert isinstance(found, Found)
    with Load(world.url) as load:
        load.wait_for(CLIENTS)
        alive = [replica for replica in world.held.answering() if Path(f"/proc/{replica}").exists()]
        os.kill(alive[0], signal.SIGKILL)
        run(application(world.first, found, world.held))
        load.wait_for(2 * CLIENTS)

    bundles = check(load.answers, world)
    assert set(bundles[-CLIENTS:]) == {world.sha256[0]}
