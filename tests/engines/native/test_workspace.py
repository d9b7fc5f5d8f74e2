"""What scoring works in is planned, does not grow with the square of words, and is given back."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.native_cases import CASES, Case, make_inputs, native_model, scored

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.native import library
from sgraf_deploy.engines.native.engine import NativeGraph
from sgraf_deploy.engines.native.workspace import KEPT_WORDS, workspace_bytes
from sgraf_deploy.runtime import load
from sgraf_deploy.runtime.tiles import estimate_ragged_bytes

pytestmark = [
    pytest.mark.skipif(not library.LIBRARY.exists(), reason="engine native was not compiled"),
    pytest.mark.usefixtures("instruction_set"),
]

PYTHON = 64 * 1024
"""Bytes that objects beside the arrays may take while a tile is scored."""


def peak_bytes(call: Callable[[], object]) -> int:
    """The most that NumPy and Python held at a time beyond what they held before."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        call()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_no_workspace_is_larger_than_planned(case: Case) -> None:
    model = native_model(case)
    for words in (1, 2, 20, KEPT_WORDS, 239, 240, 241, 500, 6000, 100_000):
        assert model.workspace_bytes(words) <= workspace_bytes(case.config, words)
        assert workspace_bytes(case.config, words) <= 3 * model.workspace_bytes(
            max(words, KEPT_WORDS)
        )


def test_it_grows_with_the_words_not_with_their_square() -> None:
    model = native_model(Case())
    assert model.workspace_bytes(12_000) < 2.1 * model.workspace_bytes(6_000)


@pytest.mark.parametrize("words", [1, 14, 129, 2000])
def test_a_tile_takes_no_more_than_is_planned_for_it(words: int) -> None:
    case = Case(embed=32)
    inputs, model = make_inputs(case, 2, [words, 1]), native_model(case)
    planned = estimate_ragged_bytes(case.config, 2, words)
    assert peak_bytes(lambda: scored(model, inputs)) <= planned + PYTHON
    assert np.isfinite(scored(model, inputs)).all()


def test_a_large_workspace_is_given_back_and_a_small_one_kept() -> None:
    case = Case(embed=32)
    long, short = make_inputs(case, 1, [3000]), make_inputs(case, 2, [14, 3])
    model = native_model(case)

    alone = scored(model, long)
    assert model.kept_bytes == 0
    first = scored(model, short)
    kept = model.kept_bytes
    assert 0 < kept == model.workspace_bytes(KEPT_WORDS)
    tracemalloc.start()
    scored(model, long)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak > model.workspace_bytes(3000)
    assert held < PYTHON
    assert model.kept_bytes == kept
    assert np.array_equal(scored(model, short), first)
    assert np.array_equal(scored(model, long), alone)


@pytest.mark.parametrize("longest", [9, 400])
def test_a_whole_matrix_takes_no_more_than_its_plan(exported: Bundle, longest: int) -> None:
    config = next(iter(exported.manifest.members.values())).config
    rng = np.random.default_rng(0)
    regions = rng.normal(size=(30, config.regions, config.img_dim)).astype(np.float32)
    captions = [
        rng.integers(1, config.vocab_size, words).astype(np.int32)
        for words in [*rng.integers(1, 9, 40), longest]
    ]
    for budget in (2**20, 2**30):
        options = EngineOptions(threads=1)
        with load(exported, engine="native", memory_budget=budget, options=options) as scorer:
            images, texts = scorer.encode_images(regions), scorer.encode_captions(captions)
            tiling = scorer.tiling(images, texts)
            result = len(scorer.members) * tiling.result_bytes
            peak = peak_bytes(lambda: scorer.logits(images, texts))  # noqa: B023
            assert peak <= tiling.tile_bytes + result + 4 * PYTHON


def test_a_batch_of_pairs_leaves_room_for_the_workspace(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is gathered for it fits beside the workspaces; images and words are used in place."""
    configs = [member.config for member in exported.manifest.members.values()]
    seen: list[dict[str, Any]] = []
    run = NativeGraph.run

    def watched(self: NativeGraph, inputs: Any, outputs: Any = None) -> Any:
        seen.append(dict(inputs))
        return run(self, inputs, outputs)

    monkeypatch.setattr(NativeGraph, "run", watched)
    rng = np.random.default_rng(0)
    shape = (200, configs[0].regions, configs[0].img_dim)
    regions = rng.normal(size=shape).astype(np.float32)
    workspaces = sum(workspace_bytes(config, 8) for config in configs)
    budget = workspaces + 20_000
    with load(exported, engine="native", memory_budget=budget) as scorer:
        images = scorer.encode_images(regions)
        captions = scorer.encode_captions([rng.integers(1, 9, 8) for _ in range(200)])
        seen.clear()
        scorer.logits_pairs(images, captions, np.arange(200), np.arange(200))
    assert len(seen) > 2 * len(configs)
    held = [array for member in images.members.values() for array in member.named.values()]
    held += [member.word_embeddings for member in captions.members.values()]
    for inputs in seen:
        in_place = [name for name, x in inputs.items() if any(x is y or x.base is y for y in held)]
        assert sorted(in_place) == [
            *("image_global", "region_embeddings", "region_gram", "word_embeddings")
        ]
        gathered = sum(array.nbytes for name, array in inputs.items() if name not in in_place)
        assert len(configs) * gathered <= budget - workspaces
