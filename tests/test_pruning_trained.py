"""Trained checkpoints: ranks and best candidates with members left out are those of every pair."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.parts import assert_best, check_ranks

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import PrecompSplit, open_precomp
from sgraf_deploy.engines.ensemble import ensemble_logits
from sgraf_deploy.runtime import (
    EncodedCaptions,
    EncodedImages,
    PartialRanks,
    PartialTopK,
    RerankCall,
    RerankResult,
    Scorer,
    load,
)

pytestmark = pytest.mark.slow

CAPTIONS = 1_000
"""Captions of which each is answered with the best of all images."""


@dataclass(frozen=True)
class World:
    """A split, encoded; and the ensemble's logits (images, captions), every member's every pair."""

    scorer: Scorer
    images: EncodedImages
    captions: EncodedCaptions
    logits: NDArray[np.float32]


def world_of(bundle: Bundle, split: PrecompSplit) -> Iterator[World]:
    with load(bundle, engine="native") as scorer:
        images = scorer.encode_images(np.asarray(split.regions))
        captions = scorer.encode_captions(split.captions)
        yield World(scorer, images, captions, ensemble_logits(scorer.logits(images, captions)))


@pytest.fixture(scope="module", params=["f8k", "demo"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    if request.param == "f8k":
        shared: Path = request.getfixturevalue("shared")
        split = open_precomp(shared / "data" / "f8k_precomp", "dev")
        assert (split.images, len(split.captions)) == (1_000, 5_000)
        yield from world_of(request.getfixturevalue("trained"), split)
        return
    from sgraf_deploy.demo.assets import demo_split, export_demo

    bundle = export_demo(tmp_path_factory.mktemp("demo") / "demo.sgraf").bundle
    yield from world_of(bundle, demo_split())


def shares(scorer: Scorer, before: dict[str, int]) -> dict[str, float]:
    scored = {name: pairs - before[name] for name, pairs in scorer.scored_pairs().items()}
    return {name: pairs / scored["saf"] for name, pairs in scored.items()}


def test_ranks_are_those_of_the_matrix(world: World) -> None:
    scorer, sides = world.scorer, (world.images, world.captions)
    before = scorer.scored_pairs()
    thresholds, tiling = scorer.rank_thresholds(*sides), scorer.tiling(*sides)
    parts = [
        scorer.count_tiles(*sides, thresholds, tiles, ensemble_only=True)
        for tiles in tiling.split(7)
    ]
    counts = PartialRanks.merge(parts[::-1]).counts(thresholds)

    assert list(counts) == ["sgraf"]
    check_ranks(counts["sgraf"], world.logits)
    assert shares(scorer, before)["sgr"] < 0.4


def best_of(logits: NDArray[np.float32], k: int) -> tuple[Any, Any]:
    order = np.argsort(-logits, kind="stable")[:k]
    return order, logits[order]


def check_best(found: RerankResult, logits: NDArray[np.float32], k: int) -> None:
    indices, best = best_of(logits, k)
    np.testing.assert_array_equal(found.indices, indices)
    np.testing.assert_array_equal(found.logits.view(np.int32), best.view(np.int32))


@pytest.mark.parametrize(("k", "parts"), [(1, 1), (10, 7), (100, 1)])
def test_the_best_of_all_are_those_of_the_matrix(world: World, k: int, parts: int) -> None:
    scorer, sides = world.scorer, (world.images, world.captions)
    found = PartialTopK.merge(
        [
            scorer.top_k_tiles(*sides, k, tiles, tiling=scorer.tiling(*sides))
            for tiles in reversed(scorer.tiling(*sides).split(parts))
        ]
    )
    assert_best(found.result()["image_to_text"], world.logits, k)
    assert_best(found.result()["text_to_image"], world.logits.T, k)
    assert found.scored["saf"] == world.logits.size
    if k == 1 and parts == 1:
        assert found.scored["sgr"] < 0.4 * world.logits.size


@pytest.mark.parametrize("k", [1, 5, 10, 100])
def test_the_best_images_are_those_of_the_matrix(world: World, k: int) -> None:
    images, captions = world.logits.shape
    rows = np.arange(images)
    before = world.scorer.scored_pairs()
    chosen = np.linspace(0, captions - 1, min(CAPTIONS, captions)).astype(np.int64).tolist()
    for start in range(0, len(chosen), 100):
        some = chosen[start : start + 100]
        calls = [RerankCall(world.captions[row], rows, k) for row in some]
        for row, found in zip(some, world.scorer.rerank_many(calls, world.images), strict=True):
            check_best(found, world.logits[:, row], k)
    alone = world.scorer.rerank(world.captions[3], world.images, k)
    check_best(alone, world.logits[:, 3], k)
    captions_of = world.scorer.rerank(world.images[5], world.captions, k)
    check_best(captions_of, world.logits[5], k)
    if k == 1:
        assert shares(world.scorer, before)["sgr"] < 0.3
