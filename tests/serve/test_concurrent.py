"""Many random requests at once are answered as `Scorer` answers each alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.served import client_of, regions_of
from support.small_models import SGR, WORDS

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.gallery.rows import Batch
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime import Scorer, load
from sgraf_deploy.serve.answering import Answerer
from sgraf_deploy.serve.app import build_app
from sgraf_deploy.serve.batcher import Batcher
from sgraf_deploy.serve.queue import BatchLimits

REQUESTS = 200
IMAGES = 40
MOST = 1000
CLOSE = 2e-6
"""The largest difference of similarities."""

CAPTIONS = 300
"""Different captions, of which requests ask more than once: some are cached, others not."""


@dataclass(frozen=True)
class Case:
    """A request, and the similarities that `Scorer` gives its documents, in their order."""

    body: dict[str, Any]
    similarities: NDArray[np.float32]


class World:
    """A bundle of small models, a gallery of random images, and random requests."""

    def __init__(self, bundle: Bundle, folder: Path) -> None:
        self.rng = np.random.default_rng(20)
        self.bundle = bundle
        shape = (IMAGES, SGR.regions, SGR.img_dim)
        self.regions = self.rng.normal(size=shape).astype(np.float32)
        self.captions = [
            " ".join(self.rng.choice(WORDS[4:], self.rng.integers(1, 15))) for _ in range(CAPTIONS)
        ]
        with load(bundle.path) as scorer:
            self.gallery = Gallery.create(folder / "images", scorer, "images")
            encoded = scorer.encode_images(self.regions)
            self.gallery.write(Batch.of([str(row) for row in range(IMAGES)], encoded))
            self.cases = [self._case(scorer, number) for number in range(REQUESTS)]

    def _case(self, scorer: Scorer, number: int) -> Case:
        sizes = (1, MOST)
        size = sizes[number // 2] if number < 4 else int(np.exp(self.rng.uniform(0, np.log(MOST))))
        rows = self.rng.integers(0, IMAGES, size)
        texts = list(self.rng.choice(self.captions, size))
        named = bool(number % 4 < 2)
        if number % 2:
            image = int(rows[0])
            query = f"image:{image}" if named else regions_of(self.regions[image])
            return self._answered(scorer, query, self.regions[image], texts, texts)
        candidates: list[Any] = [f"image:{row}" for row in rows]
        if not named:
            candidates[0] = regions_of(self.regions[rows[0]])
        return self._answered(scorer, texts[0], texts[0], candidates, self.regions[rows])

    def _answered(
        self, scorer: Scorer, query: Any, asked: Any, documents: list[Any], candidates: Any
    ) -> Case:
        found = np.empty(len(documents), np.float32)
        for item in scorer.rerank(asked, candidates):
            found[item.index] = item.similarity
        return Case({"query": query, "documents": documents}, found)


def check(case: Case, answer: dict[str, Any]) -> None:
    """The answer has every document once, with its similarity, in an order that they allow."""
    order = [item["index"] for item in answer["results"]]
    scores = np.array([item["relevance_score"] for item in answer["results"]])
    assert sorted(order) == list(range(len(case.similarities)))
    assert np.abs(scores - case.similarities[order]).max() <= CLOSE
    assert np.all(np.diff(case.similarities[order]) <= CLOSE)


@pytest.fixture(scope="module")
def world(exported: Bundle, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(exported, tmp_path_factory.mktemp("concurrent"))


@pytest.mark.parametrize(
    "max_batch_pairs",
    [pytest.param(37, marks=pytest.mark.slow), 512, pytest.param(10_000, marks=pytest.mark.slow)],
)
def test_concurrent_requests_are_answered_as_one_by_one(world: World, max_batch_pairs: int) -> None:
    batches: list[int] = []

    async def ask(answerer: Answerer, scorer: Scorer) -> list[dict[str, Any]]:
        def run(calls: Any) -> Any:
            batches.append(sum(call.pairs for call in calls))
            return answerer.answer_many(calls)

        limits = BatchLimits(max_batch_pairs, max_queue_pairs=10**6)
        async with Batcher(run, limits) as batcher:
            app = build_app(batcher, scorer, world.gallery)
            async with client_of(app) as http:
                bodies = [case.body for case in world.cases]
                answers = await asyncio.gather(
                    *(http.post("/rerank", json=body, timeout=600) for body in bodies)
                )
        assert [answer.status_code for answer in answers] == [200] * REQUESTS
        return [answer.json() for answer in answers]

    with load(world.bundle.path) as scorer:
        found = asyncio.run(ask(Answerer(scorer, world.gallery), scorer))
    for case, answer in zip(world.cases, found, strict=True):
        check(case, answer)
    assert max(batches) <= max_batch_pairs
    assert sum(batches) == sum(len(case.similarities) for case in world.cases)
    assert len(batches) < REQUESTS or max_batch_pairs < 100  # requests shared batches
