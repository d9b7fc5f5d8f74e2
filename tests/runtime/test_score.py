"""The matrix: every similarity as if its pair were alone, wherever it is written to."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.closeness import assert_similar
from support.fake_engine import FakeGraph
from support.onnx_bundles import write_bundle
from support.refusals import holds, naming, refused
from support.scorers import (
    CAPTIONS,
    Faked,
    assert_logits,
    assert_similarities,
    make_regions,
    make_token_ids,
    one_by_one,
)

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.base import TileAdvice
from sgraf_deploy.engines.ensemble import combine_logits, ensemble_logits, similarities
from sgraf_deploy.errors import DataError, EngineMemoryError, InputError
from sgraf_deploy.runtime import Scorer, TileShape, load
from sgraf_deploy.runtime.tiles import TileLimits

MakeFaked = Callable[..., Faked]

SHAPES = [TileShape(1, 1), TileShape(2, 3), TileShape(100, 2), TileShape(3, 100), None]
THREE_IMAGES = TileLimits(advice=TileAdvice(encoder_bytes=4 * 4 * 42 * 3))
"""Batches of the encoders are of three images."""


@pytest.mark.parametrize("tile", SHAPES, ids=str)
def test_a_pair_scores_the_same_alone_and_in_any_tile(
    faked: MakeFaked, regions: NDArray[np.float32], tile: TileShape | None
) -> None:
    captions = make_token_ids(12)
    expected = one_by_one(faked().scorer, regions, captions)
    found = faked(tile=tile).scorer.score(regions, captions)
    assert found.dtype == np.float32
    assert len(np.unique(expected)) == expected.size
    assert_similarities(found, expected)


def test_every_engine_scores_alone_as_in_a_matrix(
    scorer: Scorer, regions: NDArray[np.float32]
) -> None:
    expected = one_by_one(scorer, regions, CAPTIONS)
    assert_similarities(scorer.score(regions, CAPTIONS), expected)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_runtime_agrees_with_the_fake_engine(
    faked: MakeFaked, bundle: Bundle, regions: NDArray[np.float32], precision: Any
) -> None:
    expected = faked(precision=precision).scorer.logits(regions, CAPTIONS)
    with load(bundle, engine="ort", precision=precision) as scorer:
        found = scorer.logits(regions, CAPTIONS)
    assert list(found) == list(expected) == ["sgr", "saf"]
    for member, logits in expected.items():
        assert_logits(found[member], logits, precision)


def test_the_ensemble_is_combined_from_its_members(
    scorer: Scorer, regions: NDArray[np.float32]
) -> None:
    logits = scorer.logits(regions, CAPTIONS)
    assert not np.allclose(logits["sgr"], logits["saf"], atol=0.1)
    combined = combine_logits(logits["sgr"], logits["saf"])
    assert_similarities(scorer.score(regions, CAPTIONS), similarities(combined))


def test_one_member_is_not_combined(faked: MakeFaked, sgr_bundle: Bundle) -> None:
    regions, captions = make_regions(3), make_token_ids(4)
    scorer = faked(of=sgr_bundle).scorer
    logits = scorer.logits(regions, captions)
    assert list(logits) == ["sgr"]
    assert_similarities(scorer.score(regions, captions), similarities(logits["sgr"]))


@pytest.mark.parametrize("kind", ["float16", "memory-map", "fortran", "every-other"])
def test_regions_of_any_layout_are_read(
    scorer: Scorer, regions: NDArray[np.float32], tmp_path: Path, kind: str
) -> None:
    expected = scorer.score(regions, CAPTIONS)
    np.save(tmp_path / "regions.npy", regions)
    given: NDArray[Any] = {
        "float16": regions.astype(np.float16),
        "memory-map": np.load(tmp_path / "regions.npy", mmap_mode="r"),
        "fortran": np.asfortranarray(regions),
        "every-other": np.repeat(regions, 2, axis=0)[::2],
    }[kind]
    found = scorer.score(given, CAPTIONS)
    if kind == "float16":
        assert_similar(found, expected, depth=regions.shape[-1], dtype=np.float16)
    else:
        assert_similarities(found, expected)


@pytest.mark.parametrize("kind", ["array", "column-order", "part", "memory-map"])
def test_the_result_goes_where_it_is_told(
    scorer: Scorer, regions: NDArray[np.float32], tmp_path: Path, kind: str
) -> None:
    shape = (len(regions), len(CAPTIONS))
    out: NDArray[np.float32] = {
        "array": np.full(shape, np.nan, np.float32),
        "column-order": np.full(shape, np.nan, np.float32, order="F"),
        "part": np.full((20, 9), np.nan, np.float32)[::2][:9, 1:8],
        "memory-map": np.memmap(tmp_path / "out", np.float32, "w+", shape=shape),
    }[kind]
    found = scorer.score(regions, CAPTIONS, out=out)
    assert found is out
    assert np.array_equal(found, scorer.score(regions, CAPTIONS))


def test_logits_go_where_they_are_told(scorer: Scorer, regions: NDArray[np.float32]) -> None:
    out = {name: np.empty((9, 7), np.float32) for name in ("saf", "sgr")}
    found = scorer.logits(regions, CAPTIONS, out=out)
    for name, logits in scorer.logits(regions, CAPTIONS).items():
        assert found[name] is out[name]
        assert np.array_equal(out[name], logits)


@pytest.mark.parametrize(
    ("out", "expected", "got"),
    [
        (np.empty((9, 6), np.float32), naming("float32", "(9, 7)"), naming("float32", "(9, 6)")),
        (np.empty((7, 9), np.float32), naming("float32", "(9, 7)"), naming("float32", "(7, 9)")),
        (np.empty((9, 7)), naming("float32"), naming("float64")),
        (np.empty((9, 7), ">f4"), naming("float32"), naming(">f4")),
        ([[0.0] * 7] * 9, naming("float32"), "list"),
        (np.frombuffer(bytes(9 * 7 * 4), np.float32).reshape(9, 7), naming(), naming()),
    ],
    ids=["too-narrow", "transposed", "float64", "big-endian", "list", "read-only"],
)
def test_an_unfit_out_is_refused_before_any_work(
    faked: MakeFaked, regions: NDArray[np.float32], out: Any, expected: naming, got: object
) -> None:
    made = faked()
    images, captions = made.scorer.encode_images(regions), made.scorer.encode_captions(CAPTIONS)
    with refused(DataError, "out", expected=expected, got=got):
        made.scorer.score(images, captions, out=out)
    assert made.engine.calls["scorer"] == 0


def test_out_for_logits_names_the_members(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    scorer = faked().scorer
    with refused(InputError, "out", expected=naming("saf", "sgr"), got=["sgr"]):
        scorer.logits(regions, CAPTIONS, out={"sgr": np.empty((9, 7), np.float32)})
    wrong = {name: np.empty((9, 1), np.float32) for name in ("sgr", "saf")}
    with refused(DataError, "out['sgr']", expected=naming("float32", "(9, 7)")):
        scorer.logits(regions, CAPTIONS, out=wrong)


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)], ids=str)
def test_nothing_scores_nothing(faked: MakeFaked, shape: tuple[int, int]) -> None:
    made = faked()
    found = made.scorer.score(make_regions(shape[0]), CAPTIONS[: shape[1]])
    assert found.shape == shape
    assert made.engine.calls["scorer"] == 0


@pytest.mark.parametrize(
    ("regions", "expected", "got"),
    [
        (np.zeros((2, 4, 6), complex), naming("float32", "float16"), naming("<c16")),
        (np.zeros((2, 4, 6), np.int32), naming("float32", "float16"), naming("<i4")),
        (np.zeros((2, 4, 5), np.float32), naming("(any, 4, 6)"), "(2, 4, 5)"),
        (np.zeros((2, 3, 6), np.float32), naming("(any, 4, 6)"), "(2, 3, 6)"),
        (np.zeros((4, 6), np.float32), naming("(any, 4, 6)"), "(4, 6)"),
        ([[[0.0] * 6] * 4], naming("(images, 4, 6)"), "list"),
        (None, naming("(images, 4, 6)"), "NoneType"),
    ],
    ids=["complex", "int32", "img_dim", "regions", "one-image", "list", "none"],
)
def test_unfit_regions_are_refused(
    faked: MakeFaked, regions: Any, expected: naming, got: object
) -> None:
    made = faked()
    with refused(DataError, "regions", expected=expected, got=got):
        made.scorer.score(regions, CAPTIONS)
    assert made.engine.shapes == []


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_image_that_is_not_finite_is_named(faked: MakeFaked, value: float, dtype: Any) -> None:
    regions = make_regions(8).astype(dtype)
    regions[7, 2, 5] = value
    made = faked(limits=THREE_IMAGES)
    with refused(DataError, "regions", 7, 2, got=value):
        made.scorer.encode_images(regions)
    assert made.engine.calls["image_encoder"] == 4


def test_a_logit_that_is_nan_is_an_error(
    faked: MakeFaked, monkeypatch: pytest.MonkeyPatch, regions: NDArray[np.float32]
) -> None:
    made = faked(tile=TileShape(2, 2))
    images, captions = made.scorer.encode_images(regions), made.scorer.encode_captions(CAPTIONS)
    images.members["saf"].image_global[5] = np.nan
    with refused(DataError, 5, 2, got="NaN", hint="sgraf-deploy verify"):
        made.scorer.score(images, captions)
    with refused(DataError, 5, 4, got="NaN", hint="sgraf-deploy verify"):
        made.scorer.score_pairs(images, captions, [1, 5, 2], [0, 4, 4])


def test_an_encoder_works_in_batches_of_bounded_size(
    faked: MakeFaked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sgraf_deploy.runtime.encode.SMALLEST_TEXT_BATCH", 12)
    made, seen = faked(limits=THREE_IMAGES), []
    made.scorer.encode_images(make_regions(8), progress=lambda *p: seen.append(p))
    assert seen == [(3, 8), (6, 8), (8, 8)]
    made.scorer.encode_captions(make_token_ids(40), progress=lambda *p: seen.append(p))
    assert seen[-1] == (40, 40)
    texts = [shape for name, shape in made.engine.shapes if name == "text_encoder"]
    assert len(texts) > 2 * 9
    assert max(captions * words for captions, words in texts) <= 12


def test_one_long_caption_does_not_stretch_the_others(faked: MakeFaked) -> None:
    made = faked(max_words=None)
    captions: list[Any] = [np.ones(5, np.int32)] * 50
    captions[20] = np.ones(4000, np.int32)
    encoded = made.scorer.encode_captions(captions)
    shapes = [shape for name, shape in made.engine.shapes if name == "text_encoder"]
    assert shapes[::2] == [(49, 5), (1, 4000)]
    assert encoded.lengths.tolist() == [5] * 20 + [4000] + [5] * 29


def test_progress_counts_pairs(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    seen: list[tuple[int, int]] = []
    scorer = faked(tile=TileShape(4, 3)).scorer
    scorer.score(regions, CAPTIONS, progress=lambda *p: seen.append(p))
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert {total for _, total in seen} == {63}
    assert seen[-1] == (63, 63)


def test_captions_are_gathered_once_for_all_images(faked: MakeFaked) -> None:
    made = faked(tile=TileShape(2, 4))
    images, captions = made.scorer.encode_images(make_regions(20)), make_token_ids(4, longest=1)
    encoded = made.scorer.encode_captions(captions)
    gathers = []
    gather = made.engine.gather

    def counting(buffer: Any, rows: Any) -> Any:
        gathers.append(rows)
        return gather(buffer, rows)

    made.engine.gather = counting  # type: ignore[method-assign]
    made.scorer.score(images, encoded)
    assert made.engine.calls["scorer"] == 2 * 10
    assert sum(not isinstance(rows, slice) for rows in gathers) == 2 * 2


def test_nothing_of_a_tile_is_kept_for_the_next(
    faked: MakeFaked, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = faked(tile=TileShape(4, 3))
    images = made.scorer.encode_images(make_regions(8))
    captions = made.scorer.encode_captions(make_token_ids(20))
    gather, run = made.engine.gather, FakeGraph.run
    gathered: list[weakref.ref[Any]] = []
    logits: list[weakref.ref[Any]] = []
    held: dict[str, list[int]] = {"texts": [], "logits": []}

    def alive(references: list[weakref.ref[Any]]) -> int:
        return sum(reference() is not None for reference in references)

    def gathering(buffer: Any, rows: Any) -> Any:
        found = gather(buffer, rows)
        if not isinstance(rows, slice):
            held["texts"].append(alive(gathered))
            gathered.append(weakref.ref(found))
        return found

    def running(graph: FakeGraph, *given: Any) -> Any:
        held["logits"].append(alive(logits))
        found = run(graph, *given)
        logits.append(weakref.ref(found["logits"]))
        return found

    monkeypatch.setattr(made.engine, "gather", gathering)
    monkeypatch.setattr(FakeGraph, "run", running)
    made.scorer.score(images, captions)
    # Of each of two members words and vectors; and logits, until the second member's are there.
    assert held["texts"] == [0, 1, 2, 3] * (len(gathered) // 4)
    assert held["logits"] == [0, 1] * (len(logits) // 2)
    assert len(gathered) > 4 * 2


@pytest.mark.parametrize("memory", [1, 9, 20, 100], ids="memory-{}".format)
def test_out_of_memory_halves_the_tiles_and_goes_on(
    faked: MakeFaked, caplog: pytest.LogCaptureFixture, memory: int
) -> None:
    regions, captions = make_regions(8), make_token_ids(10, longest=1)
    roomy, tight = faked(), faked(memory=memory)
    expected = roomy.scorer.score(regions, captions)
    seen: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING):
        found = tight.scorer.score(regions, captions, progress=lambda *p: seen.append(p))
        tight.scorer.score(regions, captions)
    assert_similarities(found, expected)
    assert seen[-1] == (80, 80)
    works = {"images", "captions", "tiles"}
    warned = [work for work in works for line in caplog.messages if holds(line, work)]
    assert len(warned) == len(set(warned)) == len(caplog.messages)
    assert ("tiles" in warned) == (memory < 16)


def test_workers_change_nothing(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    alone, together = faked(tile=TileShape(2, 1)), faked(tile=TileShape(2, 1))
    together.engine.workers = 3
    expected = alone.scorer.score(regions, CAPTIONS)
    for _ in range(5):
        assert np.array_equal(together.scorer.score(regions, CAPTIONS), expected)
    assert together.scorer.logits_pairs(regions, CAPTIONS, [0, 1], [1, 0]).keys() == {"sgr", "saf"}


def test_halved_tiles_are_remembered(faked: MakeFaked) -> None:
    made = faked(memory=30)
    images = made.scorer.encode_images(make_regions(8))
    captions = made.scorer.encode_captions(make_token_ids(10, longest=1))
    made.scorer.score(images, captions)
    made.engine.shapes.clear()
    made.scorer.score(images, captions)
    assert max(np.prod(shape) for _, shape in made.engine.shapes) <= 30


def test_a_pair_that_does_not_fit_is_an_error(faked: MakeFaked) -> None:
    made = faked()
    images = made.scorer.encode_images(make_regions(2))
    captions = made.scorer.encode_captions([[1, 2], [1, 2, 3, 4, 5]])
    made.engine.memory = 4
    assert made.scorer.score(images, captions[0]).shape == (2, 1)
    with refused(EngineMemoryError, "tiles", 5, hint=naming()):
        made.scorer.score(images, captions)


def test_the_tiling_is_what_score_does(faked: MakeFaked) -> None:
    made = faked(limits=TileLimits(advice=TileAdvice(400)))
    images = made.scorer.encode_images(make_regions(30))
    captions = made.scorer.encode_captions(make_token_ids(40))
    tiling = made.scorer.tiling(images, captions)
    made.engine.shapes.clear()
    made.scorer.score(images, captions)
    expected = [
        (tile.end_image - tile.first_image, tile.end_caption - tile.first_caption, tile.words)
        for tile in tiling
    ]
    found = [shape for _, shape in made.engine.shapes]
    assert found[::2] == found[1::2] == expected
    assert (tiling.pairs, tiling.result_bytes) == (1200, 4800)
    assert 0 < tiling.tile_bytes < 20_000
    assert 0 <= tiling.padding < 0.3
    assert list(made.scorer.plan(images, captions)) == list(tiling)  # its name before


def test_memory_beyond_the_result_is_that_of_a_tile(
    faked: MakeFaked, monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0
    for size in (20, 80):
        made = faked(limits=TileLimits(advice=TileAdvice(2000)))
        images = made.scorer.encode_images(make_regions(size))
        captions = made.scorer.encode_captions(make_token_ids(size))
        made.engine.largest_gather = 0
        made.scorer.score(images, captions)
        largest = max(largest, made.engine.largest_gather)
    assert 0 < largest <= 2000 * 9 / 8


def test_all_members_out_of_one_bundle_are_listed(tmp_path: Path, faked: MakeFaked) -> None:
    saf = write_bundle(tmp_path / "saf.sgraf", "SAF", precisions=["fp32"])
    scorer = faked(of=saf).scorer
    assert scorer.members == ("saf",)
    logits = scorer.logits(make_regions(2), CAPTIONS)
    assert np.array_equal(ensemble_logits(logits), logits["saf"])
