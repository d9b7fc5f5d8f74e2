"""Captions that lie one after the other score as padded ones do, to the bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.native_cases import Case, Inputs, make_inputs, native_model, scored
from support.refusals import naming, refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GraphName
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.native import library
from sgraf_deploy.engines.native.engine import NativeEngine
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime import load, pairs, tiling
from sgraf_deploy.runtime.tiles import TileLimits

pytestmark = pytest.mark.skipif(
    not library.LIBRARY.exists(), reason="engine native was not compiled"
)

LENGTHS = [4, 30, 11, 2, 250, 8, 8, 25, 1, 17, 14, 3]


def ragged(inputs: Inputs, order: NDArray[Any], gap: int = 0) -> Inputs:
    """The captions' words in another order, with so many rows between them that nothing reads."""
    words = inputs["word_embeddings"]
    offsets, rows = np.empty(len(order), np.int32), []
    at = 0
    for caption in order:
        length = inputs["lengths"][caption]
        offsets[caption] = at
        rows += [words[caption, :length], np.full((gap, words.shape[2]), np.nan, np.float32)]
        at += length + gap
    return inputs | {"word_embeddings": np.concatenate(rows), "offsets": offsets}


@pytest.mark.usefixtures("instruction_set")
@pytest.mark.parametrize("case", [Case(), Case("SAF", embed=265, sim_dim=7, regions=5)], ids=str)
def test_they_have_the_bits_of_padded_ones(case: Case) -> None:
    inputs = make_inputs(case, 5, LENGTHS)
    whole = scored(native_model(case), inputs)
    order = np.random.default_rng(0).permutation(len(LENGTHS))
    assert np.array_equal(scored(native_model(case), ragged(inputs, order)), whole)
    apart = ragged(inputs, order, gap=3)
    assert np.array_equal(scored(native_model(case), apart), whole)
    rows, columns = np.divmod(np.arange(whole.size, dtype=np.int32)[::-1], len(LENGTHS))
    found = np.full(whole.size, np.nan, np.float32)
    index = {"image_index": rows.astype(np.int32), "caption_index": columns.astype(np.int32)}
    native_model(case).score(apart | index, found)
    assert np.array_equal(found, whole[rows, columns])


@pytest.mark.parametrize("name", ["scorer", "pair_scorer"])
def test_a_graph_takes_both_and_checks_them(exported: Bundle, name: GraphName) -> None:
    engine = NativeEngine(exported, "fp32", EngineOptions(threads=1))
    config = exported.member("sgr").config
    graph = engine.open("sgr", name)
    padded = make_inputs(Case(embed=config.embed, regions=config.regions), 2, [3, 1, 2])
    padded["word_embeddings"] = np.nan_to_num(padded["word_embeddings"])
    if name == "pair_scorer":
        padded |= dict.fromkeys(("image_index", "caption_index"), np.array([0, 1], np.int32))
    flat = ragged(padded, np.arange(3))
    right = graph.run(padded)["logits"]
    assert np.array_equal(graph.run(flat)["logits"], right)
    wrong: list[tuple[Inputs, str]] = [
        ({"offsets": np.array([0, 3, 6], np.int32)}, "offsets"),
        ({"offsets": np.array([-1, 3, 4], np.int32)}, "offsets"),
        ({"offsets": np.array([0, 3, 5], np.int32)}, "offsets"),
        ({"offsets": np.array([0, 3, 4], np.int64)}, "offsets"),
        ({"offsets": np.array([0, 3], np.int32)}, "offsets"),
        ({"lengths": np.array([3, 0, 2], np.int32)}, "lengths"),
        ({"lengths": np.array([3, 7, 2], np.int32)}, "lengths"),
        ({"word_embeddings": padded["word_embeddings"]}, "word_embeddings"),
    ]
    for change, what in wrong:
        with refused(InputError, what, expected=naming(), got=naming()):
            graph.run(flat | change)
    with refused(InputError, "word_embeddings"):
        graph.run({key: each for key, each in flat.items() if key != "offsets"})
    engine.close()


def test_pairs_of_a_row_follow_each_other() -> None:
    captions = np.repeat(np.arange(4, dtype=np.int32), 3)
    images = np.array([5, 9, 7, 7, 5, 1, 2, 3, 4, 0, 1, 8], np.int32)
    mixed = np.random.default_rng(0).permutation(12)
    order = pairs._order_of_rows(images[mixed], captions[mixed])
    assert captions[mixed][order].tolist() == captions.tolist()
    order = pairs._order_of_rows(captions[mixed], images[mixed])
    assert captions[mixed][order].tolist() == captions.tolist()


@pytest.mark.parametrize("count", [0, 1, 30, 640, 100_000])
def test_batches_without_padding_are_even(exported: Bundle, count: int) -> None:
    with load(exported, engine="native", threads=1) as scorer:
        found = list(pairs._even_batches(scorer._context, np.full(count, 9, np.int32)))
    sizes = [batch.units for batch in found]
    assert sum(sizes) == count
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    assert [batch.start for batch in found] == [0, *np.cumsum(sizes)[:-1]][: len(found)]
    configs = [member.config for member in exported.manifest.members.values()]
    advice = NativeEngine.tile_advice
    if count:
        wanted = tiling.count_batches(count, 9, configs, TileLimits(advice=advice))
        assert len(found) == wanted
