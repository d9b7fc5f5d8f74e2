"""Ranks counted in any parts are those of the whole, to the bit; foreign parts are refused."""

from __future__ import annotations

import threading
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.parts import IMAGES, PER_IMAGE, TILE, near_ties, tied_inputs
from support.refusals import naming, refused
from support.trt_world import TrtWorld

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines import near_counts
from sgraf_deploy.engines.ensemble import with_ensemble
from sgraf_deploy.engines.ranks import HostRankCounter, RankCounts, Thresholds
from sgraf_deploy.engines.tallies import Touched
from sgraf_deploy.engines.torch.ranks import TorchRankCounter
from sgraf_deploy.errors import InputError
from sgraf_deploy.evaluation.recall import rank_matrix
from sgraf_deploy.runtime import PartialRanks, RankThresholds, Scorer, TileShape, load, pairs
from sgraf_deploy.runtime.part import Execution
from sgraf_deploy.runtime.partial import RankedWhole
from sgraf_deploy.runtime.thresholds import make_thresholds

FIELDS = ("image_to_text", "text_to_image", "level_image_to_text", "level_text_to_image")
ENGINES = ("native", "ort", "torch")
SIDES = [(first, columns) for first in (0, 3) for columns in range(3)]
"""Tiles of `near_ties`: 3 and 4 images x a third of the captions."""


def shared_out(tiles: int) -> st.SearchStrategy[tuple[list[int], list[int], bool]]:
    """The part of every tile, of 1 to 7, an order of the parts, and whether to merge by pairs."""
    return st.integers(1, 7).flatmap(
        lambda parts: st.tuples(
            st.lists(st.integers(0, parts - 1), min_size=tiles, max_size=tiles),
            st.permutations(range(parts)),
            st.booleans(),
        )
    )


def numbers_of(split: tuple[list[int], list[int], bool]) -> list[list[int]]:
    """The tiles of each part that has any, in the order in which parts are merged."""
    owners, order, _ = split
    found = [[tile for tile, owner in enumerate(owners) if owner == part] for part in order]
    return [tiles for tiles in found if tiles]


def merge(parts: Sequence[PartialRanks], by_pairs: bool) -> PartialRanks:
    return reduce(add, parts) if by_pairs else PartialRanks.merge(parts)


def assert_equal(found: dict[str, RankCounts], expected: dict[str, RankCounts]) -> None:
    assert list(found) == list(expected)
    for model, counts in expected.items():
        for field in FIELDS:
            np.testing.assert_array_equal(getattr(found[model], field), getattr(counts, field))


def rounded_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs scored alone differ in their last bits from the same pairs in a tile."""
    alone, lock = pairs.pair_logits, threading.Lock()

    def off(*arguments: Any) -> Any:
        with lock:
            return {name: each * np.float32(1 + 3e-6) for name, each in alone(*arguments).items()}

    monkeypatch.setattr(pairs, "pair_logits", off)


@pytest.fixture(params=ENGINES)
def scorer(
    request: pytest.FixtureRequest, exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scorer]:
    rounded_otherwise(monkeypatch)
    with load(exported, engine=request.param, tile=TILE) as made:
        yield made


def test_parts_of_any_split_add_up_to_the_whole(scorer: Scorer) -> None:
    regions, captions = tied_inputs()
    inputs = scorer.encode_images(regions), scorer.encode_captions(captions)
    whole, tiling = scorer.count_ranks(*inputs), scorer.tiling(*inputs)
    thresholds = scorer.rank_thresholds(*inputs)
    assert len(tiling) > 20
    for name, matrix in with_ensemble(scorer.logits(*inputs)).items():
        ranks = rank_matrix(matrix, PER_IMAGE)
        np.testing.assert_array_equal(whole[name].image_to_text, ranks.image_to_text)
        np.testing.assert_array_equal(whole[name].text_to_image, ranks.text_to_image)
        assert ranks.tied_text_to_image > 5

    @settings(max_examples=25, deadline=None)
    @given(shared_out(len(tiling)))
    def holds(split: tuple[list[int], list[int], bool]) -> None:
        parts = [
            scorer.count_tiles(*inputs, thresholds, tiles, tiling=tiling)
            for tiles in numbers_of(split)
        ]
        assert_equal(merge(parts, split[2]).counts(thresholds), whole)

    holds()


def counter_of(kind: str, thresholds: Thresholds, engine: Callable[[], Any]) -> tuple[Any, Any]:
    """A counter of a kind, and what puts a tile where it counts."""
    if kind == "cuda":
        made = engine()
        return made.rank_counter(thresholds), made.put
    if kind == "torch":
        return TorchRankCounter(thresholds, torch.device("cpu")), torch.from_numpy
    return HostRankCounter(lambda buffer: buffer, thresholds), np.asarray


@pytest.mark.parametrize("models", [1, 2, 3])
@pytest.mark.parametrize("kind", ["host", "torch", "cuda"])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(split=shared_out(len(SIDES)), off=st.sampled_from([0.0, 2e-6, -2e-6]))
def test_every_counters_parts_add_up_to_the_matrix(
    kind: str,
    models: int,
    split: tuple[list[int], list[int], bool],
    off: float,
    exported: Bundle,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A GPU compares with the pairs' own logits, so these are not rounded otherwise there."""
    matrices = near_ties(models)
    every = with_ensemble(matrices)
    columns = np.arange(IMAGES * PER_IMAGE)
    off = off if kind == "host" else 0.0
    truths = {
        name: (each[columns // PER_IMAGE, columns] * (1 + off)).astype(np.float32)
        for name, each in every.items()
    }
    execution = Execution("bundle", "fake", "fp32", "fp32", "cpu")
    fixed = make_thresholds(execution, truths, PER_IMAGE, 1e-5)
    sizes: dict[str, Any] = {"tiles": len(SIDES), "images": IMAGES, "captions": len(columns)}
    whole = RankedWhole(**vars(execution), **sizes, tiling="tiling", thresholds=fixed.digest)
    folder = tmp_path_factory.mktemp("engines")
    order = np.array_split(np.random.default_rng(1).permutation(len(columns)).astype(np.int32), 3)

    parts = []
    for tiles in numbers_of(split):
        counter, put = counter_of(kind, fixed.values, TrtWorld(exported, folder).engine)
        touched: list[set[int]] = [set(), set(), set()]
        for first, third in (SIDES[tile] for tile in tiles):
            rows, places = range(first, (3, 7)[first > 0]), order[third]
            tile = {n: m[rows.start : rows.stop][:, places].copy() for n, m in matrices.items()}
            counter.add(first, places, {name: put(each) for name, each in tile.items()})
            own = [place for place in places.tolist() if place // PER_IMAGE in rows]
            for known, new in zip(touched, (rows, places.tolist(), own), strict=True):
                known.update(new)
        held = Touched(*(np.array(sorted(each), np.int64) for each in touched))
        found = counter.tallies(held)
        parts.append(PartialRanks(whole, np.array(tiles), {"sgr": 1}, held, found))

    counts = merge(parts, split[2]).counts(fixed)
    for name, matrix in every.items():
        ranks = rank_matrix(matrix, PER_IMAGE)
        np.testing.assert_array_equal(counts[name].image_to_text, ranks.image_to_text)
        np.testing.assert_array_equal(counts[name].text_to_image, ranks.text_to_image)
        assert np.count_nonzero(counts[name].level_text_to_image) == ranks.tied_text_to_image


def test_the_order_of_parts_changes_no_bit(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    tiling = native.tiling(*encoded)
    parts = [native.count_tiles(*encoded, thresholds, tiles) for tiles in tiling.split(4)]
    assert len(parts) == 4
    merged = PartialRanks.merge(parts)
    assert merged.digest == merge(parts[::-1], True).digest
    assert merged.digest == native.count_tiles(*encoded, thresholds).digest
    assert merged.digest != PartialRanks.merge(parts[1:]).digest


def test_a_part_holds_what_its_tiles_touch_alone(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    tiling = native.tiling(*encoded)
    part = native.count_tiles(*encoded, thresholds, [2])
    tile = tiling[2]
    assert part.touched.images.tolist() == list(range(IMAGES))[tile.images]
    assert part.touched.captions.tolist() == sorted(tiling.order[tile.captions].tolist())
    assert len(part.models["sgraf"].captions.better) == tile.end_caption - tile.first_caption
    assert part.missing.tolist() == [0, 1, *range(3, len(tiling))]
    assert part.whole.tiling == tiling.digest
    assert (part.whole.bundle, part.whole.engine) == (native.bundle.sha256, "native")
    assert (part.whole.precision, part.whole.executed) == ("fp32", "fp32")


def test_parts_of_the_images_suffice(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    images, captions = encoded
    tiling = native.tiling(*encoded)
    parts = []
    for number, tile in enumerate(tiling):
        rows = slice(max(0, tile.first_image - 1), tile.end_image)
        parts.append(
            native.count_tiles(
                images[rows], captions, thresholds, [number], tiling=tiling, first_image=rows.start
            )
        )
    assert_equal(PartialRanks.merge(parts).counts(thresholds), native.count_ranks(*encoded))


def test_thresholds_of_parts_of_the_images_are_those_of_all(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    images, captions = encoded
    parts = [
        native.rank_thresholds(images[rows], captions[rows.start * 5 : rows.stop * 5])
        for rows in (slice(0, 3), slice(3, 7))
    ]
    assert RankThresholds.concatenate(parts).digest == thresholds.digest
    with refused(InputError, expected=naming()):
        RankThresholds.concatenate([])
    with refused(InputError, "captions_per_image", expected=5, got=1):
        RankThresholds.concatenate([parts[0], native.rank_thresholds(images, captions[:7], 1)])


def test_a_tile_that_is_given_twice_is_refused(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    part, other = (native.count_tiles(*encoded, thresholds, tiles) for tiles in ([4, 3], [9, 4]))
    for parts, tile in (([part, part], 3), ([part, other], 4)):
        with refused(InputError, tile, expected=naming(), got=naming(2)):
            PartialRanks.merge(parts)
    with refused(InputError, 4, got=naming(2)):
        native.count_tiles(*encoded, thresholds, [4, 2, 4])


def test_missing_tiles_are_counted(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    total = len(native.tiling(*encoded))
    part = native.count_tiles(*encoded, thresholds, [0, 1, *range(5, total)])
    with refused(InputError, expected=naming(total), got=naming(total - 3, 3, 2)):
        part.counts(thresholds)
    with refused(InputError, expected=naming()):
        PartialRanks.merge([])


@pytest.mark.parametrize(
    "field", ["bundle", "engine", "precision", "executed", "device", "tiling", "thresholds"]
)
def test_a_foreign_part_is_refused(
    field: str, native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    ours, theirs = (native.count_tiles(*encoded, thresholds, [tile]) for tile in (0, 1))
    theirs = replace(theirs, whole=replace(theirs.whole, **{field: "another"}))  # type: ignore[arg-type]
    with refused(InputError, field, expected=getattr(ours.whole, field), got="another"):
        ours + theirs


def test_a_part_that_lacks_a_model_is_refused(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    ours, theirs = (native.count_tiles(*encoded, thresholds, [tile]) for tile in (0, 1))
    with refused(InputError, "models", expected=naming("sgraf"), got="sgr"):
        PartialRanks.merge([ours, replace(theirs, models={"sgr": theirs.models["sgr"]})])


def test_parts_of_other_scorers_and_tilings_are_refused(
    exported: Bundle, three: Bundle, native: Scorer, encoded: tuple[Any, Any]
) -> None:
    ours = native.count_tiles(*encoded, native.rank_thresholds(*encoded), [0])
    for bundle, engine, tile, field in (
        (three, "native", TILE, "bundle"),
        (exported, "ort", TILE, "engine"),
        (exported, "native", TileShape(2, 4), "tiling"),
    ):
        with load(bundle, engine=engine, tile=tile) as other:
            inputs = tied_inputs()
            theirs = other.count_tiles(*inputs, other.rank_thresholds(*inputs), [1])
        with refused(InputError, field):
            ours + theirs


def test_thresholds_of_another_scorer_or_split_are_refused(
    exported: Bundle, native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    with (
        load(exported, engine="ort", tile=TILE) as other,
        refused(InputError, "engine", expected="ort", got="native"),
    ):
        other.count_tiles(*tied_inputs(), thresholds)
    images, captions = encoded
    few = native.rank_thresholds(images[:6], captions[:30])
    with refused(InputError, "thresholds", expected=naming(7, 35), got=naming(6, 30)):
        native.count_tiles(images, captions, few)
    whole = native.count_tiles(images, captions, thresholds)
    moved = {name: each + np.float32(1e-7) for name, each in thresholds.values.captions.items()}
    others = make_thresholds(thresholds.execution, moved, PER_IMAGE, thresholds.values.slack)
    with refused(InputError, "thresholds", expected=thresholds.digest, got=others.digest):
        whole.counts(others)


@pytest.mark.parametrize("tiles", [[], [-1], [10**6], [1.5], "12", [[1]], [True]], ids=repr)
def test_numbers_that_are_none_of_the_tiles_are_refused(
    tiles: Any, native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    with refused(InputError, "tiles", expected=naming()):
        native.count_tiles(*encoded, thresholds, tiles)


def test_what_does_not_fit_a_tiling_is_refused(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds
) -> None:
    images, captions = encoded
    tiling = native.tiling(*encoded)
    with refused(InputError, "captions", expected=naming(35), got=naming(34)):
        native.count_tiles(images, captions[:34], thresholds, [0], tiling=tiling)
    last = len(tiling) - 1
    for part, first in ((images[:5], 0), (images[2:], 3), (images, 1)):
        with refused(InputError, "images", expected=naming(7)):
            native.count_tiles(
                part, captions, thresholds, [0, last], tiling=tiling, first_image=first
            )
    for first_image in (-1, True, "0"):
        with refused(InputError, "first_image"):
            native.count_tiles(*encoded, thresholds, first_image=first_image)  # type: ignore[arg-type]
    with refused(InputError, "thresholds"):
        native.count_tiles(*encoded, thresholds.values)  # type: ignore[arg-type]
    with refused(InputError, "tiling"):
        native.count_tiles(*encoded, thresholds, tiling="tiling.json")  # type: ignore[arg-type]


def test_what_a_count_takes_does_not_grow_with_the_matrix(
    exported: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four times the images and the captions; nearly all candidates tie, so most are kept."""
    monkeypatch.setattr(near_counts, "MOST_KEPT", 1000)
    peaks = []
    with load(exported, engine="native", tile=TileShape(20, 20), threads=1) as scorer:
        regions, captions = tied_inputs()
        image, caption = scorer.encode_images(regions), scorer.encode_captions(captions)
        for size in (150, 600):
            rows = np.arange(size)
            images, texts = image[rows % IMAGES], caption[rows % len(captions)]
            tracemalloc.start()
            scorer.count_ranks(images, texts, captions_per_image=1)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    matrix = 600 * 600 * np.dtype(np.float32).itemsize
    assert peaks[1] - peaks[0] < matrix / 2, "no matrix of one of three models"
    assert peaks[1] < 6 * peaks[0], "as rows and columns do, not as their product"
