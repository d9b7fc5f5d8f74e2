"""The shared trained checkpoints: an indexed split gives the scores of `Scorer` on the same pairs.

Images and captions of the whole split are indexed; pairs are of its first images and captions.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.cli_world import done

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import PrecompSplit, open_precomp
from sgraf_deploy.gallery import Batch
from sgraf_deploy.gallery.ranked import Reranked, RerankRequest
from sgraf_deploy.gallery.reranker import Reranker

IMAGES, CAPTIONS = 120, 200
CLOSE = 1e-6
"""Largest difference of similarities."""

CACHES = {"cached": 1 << 24, "a small cache": 1 << 18, "uncached": 0}


@dataclass(frozen=True)
class Indexed:
    """The split, its two galleries, and the similarities (IMAGES, CAPTIONS) of `Scorer`."""

    bundle: Bundle
    split: PrecompSplit
    images: Path
    captions: Path
    similarities: NDArray[np.float32]

    def rerankers(self, scorer: sgraf_deploy.Scorer, chunk_bytes: int) -> tuple[Reranker, Reranker]:
        """One of images, and one of captions."""
        images = sgraf_deploy.Gallery.open(self.images)
        captions = sgraf_deploy.Gallery.open(self.captions)
        return (
            Reranker(scorer, images, chunk_bytes=chunk_bytes),
            Reranker(scorer, captions, images=images, chunk_bytes=chunk_bytes),
        )


@pytest.fixture(scope="module")
def indexed(trained: Bundle, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Indexed:
    folder = tmp_path_factory.mktemp("galleries")
    data = shared / "data" / "f8k_precomp"
    images, captions = folder / "images", folder / "captions"
    arguments = ("index", trained.path, "--data", data, "--split", "dev")
    done(*arguments, "-o", images)
    done(*arguments, "--captions", "-o", captions)
    split = open_precomp(data, "dev")
    with sgraf_deploy.load(trained) as scorer:
        found = scorer.score(split.regions[:IMAGES], split.captions[:CAPTIONS])
    return Indexed(trained, split, images, captions, found)


@dataclass(frozen=True)
class Asked:
    """A request, and the similarities (candidates,) that it must give."""

    request: RerankRequest
    expected: NDArray[np.float32]

    def check(self, found: Reranked) -> None:
        """Every similarity is that of `Scorer`, and the order differs where they are as close."""
        assert self.request.ids is not None
        top_k = self.request.top_k or len(self.request.ids)
        assert len(found) == min(top_k, len(self.request.ids))
        assert found.ids == tuple(self.request.ids[index] for index in found.indices)
        assert len(np.unique(found.indices)) == len(found)
        of_scorer = self.expected[found.indices]
        assert np.abs(found.similarities - of_scorer).max() <= CLOSE
        assert (np.diff(of_scorer) <= 2 * CLOSE).all()
        left_out = np.delete(self.expected, found.indices)
        assert (left_out <= of_scorer[-1] + 2 * CLOSE).all()


def requests_for(indexed: Indexed, count: int, seed: int) -> tuple[list[Asked], list[Asked]]:
    """Captions that ask for images, and images, by id or regions, that ask for captions."""
    rng = np.random.default_rng(seed)
    names, split = indexed.split.ids, indexed.split
    assert names is not None
    texts, pictures = [], []
    for _ in range(count):
        top_k = [None, 1, 5][rng.integers(3)]
        caption, rows = rng.integers(CAPTIONS), rng.permutation(IMAGES)[: rng.integers(1, 30)]
        request = RerankRequest(split.captions[caption], [names[row] for row in rows], top_k)
        texts.append(Asked(request, indexed.similarities[rows, caption]))
        image, lines = rng.integers(IMAGES), rng.permutation(CAPTIONS)[: rng.integers(1, 30)]
        query: Any = names[image] if rng.integers(2) else np.asarray(split.regions[image])
        request = RerankRequest(query, [str(line + 1) for line in lines], top_k)
        pictures.append(Asked(request, indexed.similarities[image, lines]))
    return texts, pictures


@pytest.fixture(params=CACHES)
def scorer(request: pytest.FixtureRequest, indexed: Indexed) -> Iterator[sgraf_deploy.Scorer]:
    with sgraf_deploy.load(indexed.bundle, caption_cache=CACHES[request.param]) as opened:
        yield opened


@pytest.mark.parametrize("chunk_bytes", [1 << 19, 1 << 28], ids=["many chunks", "one chunk"])
def test_every_score_is_that_of_scorer_in_any_mix(
    indexed: Indexed, scorer: sgraf_deploy.Scorer, chunk_bytes: int
) -> None:
    rng = np.random.default_rng(7)
    for reranker, asked in zip(
        indexed.rerankers(scorer, chunk_bytes), requests_for(indexed, 100, seed=1), strict=True
    ):
        start = 0
        while start < len(asked):
            some = asked[start : start + int(rng.integers(1, 25))]
            if len(some) == 1:
                request = some[0].request
                results = [reranker.rerank(request.query, request.ids, request.top_k)]
            else:
                results = reranker.rerank_many([one.request for one in some])
            for one, found in zip(some, results, strict=True):
                one.check(found)
            start += len(some)


def test_sixteen_threads_get_what_one_gets(indexed: Indexed, scorer: sgraf_deploy.Scorer) -> None:
    rerankers = indexed.rerankers(scorer, 1 << 28)

    def ask(seed: int) -> None:
        for reranker, asked in zip(rerankers, requests_for(indexed, 12, seed), strict=True):
            for found, one in zip(
                reranker.rerank_many([one.request for one in asked]), asked, strict=True
            ):
                one.check(found)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(ask, range(16)))


def test_equal_candidates_keep_the_order_of_the_ids(
    indexed: Indexed, scorer: sgraf_deploy.Scorer, tmp_path: Path
) -> None:
    """Copies of one image, under other ids and at any place in the gallery, are exact ties."""
    copies = [f"copy {row}" for row in range(40)]
    gallery = sgraf_deploy.Gallery.create(tmp_path / "copies", scorer)
    regions = indexed.split.regions[[0, 5, 5, 9] * 10]
    gallery.write(Batch.of(copies, scorer.encode_images(regions)))
    asked = [copies[row] for row in np.random.default_rng(2).permutation(40)]

    found = Reranker(scorer, gallery).rerank(indexed.split.captions[3], asked)

    assert len({float(logit) for logit in found.logits}) == 3
    for logit in np.unique(found.logits):
        places = found.indices[found.logits == logit]
        assert (np.diff(places) > 0).all()
