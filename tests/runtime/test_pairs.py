"""Single pairs score as they do in the matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.onnx_bundles import write_bundle
from support.refusals import holds, naming, refused
from support.scorers import (
    CAPTIONS,
    Faked,
    assert_logits,
    assert_similarities,
    make_regions,
    make_token_ids,
)

from sgraf_deploy.config import Module
from sgraf_deploy.engines.base import TileAdvice
from sgraf_deploy.errors import DataError, EngineMemoryError
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.runtime.tiles import TileLimits

MakeFaked = Callable[..., Faked]

SMALL_BATCHES = TileLimits(tile_bytes=10_000, advice=TileAdvice(1_000))


def random_pairs(images: int, captions: int, pairs: int) -> tuple[NDArray[Any], NDArray[Any]]:
    rng = np.random.default_rng(pairs)
    return rng.integers(0, images, pairs), rng.integers(0, captions, pairs)


@pytest.mark.parametrize("pairs", [1, 2, 200])
def test_pairs_score_as_in_the_matrix(
    scorer: Scorer, regions: NDArray[np.float32], pairs: int
) -> None:
    rows, columns = random_pairs(9, 7, pairs)
    found = scorer.score_pairs(regions, CAPTIONS, rows, columns)
    assert found.shape == (pairs,)
    assert found.dtype == np.float32
    expected = scorer.score(regions, CAPTIONS)[rows, columns]
    assert_similarities(found, expected)


def test_without_indices_pairs_are_rows(scorer: Scorer, regions: NDArray[np.float32]) -> None:
    images, captions = scorer.encode_images(regions[:7]), scorer.encode_captions(CAPTIONS)
    for sides in ((images, captions), (regions[:7], CAPTIONS)):
        found = scorer.score_pairs(*sides)
        assert found.shape == (7,)
        np.testing.assert_allclose(found, scorer.score(images, captions).diagonal(), atol=1e-6)
    logits = scorer.logits_pairs(images, captions)
    for member, matrix in scorer.logits(images, captions).items():
        np.testing.assert_allclose(logits[member], matrix.diagonal(), atol=1e-6)


def test_logits_of_pairs_are_those_of_the_members(
    scorer: Scorer, regions: NDArray[np.float32]
) -> None:
    rows, columns = random_pairs(9, 7, 30)
    found = scorer.logits_pairs(regions, CAPTIONS, rows, columns)
    whole = scorer.logits(regions, CAPTIONS)
    assert list(found) == ["sgr", "saf"]
    for member, logits in found.items():
        assert_logits(logits, whole[member][rows, columns])


def test_pairs_run_in_batches_of_similar_length(faked: MakeFaked) -> None:
    made = faked(limits=SMALL_BATCHES)
    captions = make_token_ids(30)
    rows, columns = random_pairs(20, 30, 300)
    images = made.scorer.encode_images(make_regions(20))
    encoded = made.scorer.encode_captions(captions)
    seen: list[tuple[int, int]] = []
    found = made.scorer.score_pairs(
        images, encoded, rows, columns, progress=lambda *p: seen.append(p)
    )
    assert_similarities(found, made.scorer.score(images, encoded)[rows, columns])
    assert len(seen) > 10
    assert seen[-1] == (300, 300)
    shapes = [shape for name, shape in made.engine.shapes if name == "pair_scorer"]
    words = [words for _, _, words, _ in shapes]
    assert words == sorted(words)
    assert len(set(words)) >= 5, "captions of 1 … 9 words"


@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_what_all_members_gather_fits_the_budget(
    faked: MakeFaked, tmp_path: Path, count: int
) -> None:
    """No pair shares a row with another."""
    modules: tuple[Module, ...] = ("SGR", "SAF", "SGR", "SGR", "SAF", "SAF")
    limits = TileLimits(tile_bytes=20_000, advice=TileAdvice(2_000))
    made = faked(limits=limits, of=write_bundle(tmp_path / "many.sgraf", *modules[:count]))
    images = made.scorer.encode_images(make_regions(40))
    captions = made.scorer.encode_captions(make_token_ids(40))

    made.scorer.score_pairs(images, captions, np.arange(40), np.arange(40))

    members = made.scorer.bundle.manifest.members.values()
    embeds = sum(member.config.embed for member in members)
    shapes = [shape for name, shape in made.engine.shapes if name == "pair_scorer"]
    assert len(shapes) > 3 * count
    several = [shape for shape in shapes if shape[-1] > 1]
    assert several
    for rows, columns, words, _ in several:
        gathered = embeds * (rows * (4 + 1) + columns * words) + count * rows * 4**2
        assert 4 * gathered <= 4 * 2_000


def test_only_the_rows_of_a_batch_are_gathered(faked: MakeFaked) -> None:
    made = faked()
    images = made.scorer.encode_images(make_regions(50))
    captions = made.scorer.encode_captions([[1, 2, 3]] * 40)
    made.scorer.score_pairs(images, captions, [7, 7, 49], [3, 20, 3])
    shapes = [shape for name, shape in made.engine.shapes if name == "pair_scorer"]
    assert shapes == [(2, 2, 3, 3)] * 2


def test_no_pairs_are_no_scores(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    made = faked()
    assert made.scorer.score_pairs(regions, CAPTIONS, [], []).shape == (0,)
    assert made.engine.calls["pair_scorer"] == 0


@pytest.mark.parametrize(
    ("rows", "columns", "names", "got"),
    [
        ([9], [0], ["image_index", 0], 9),
        ([0, 1], [0, 7], ["caption_index", 1], 7),
        ([-1], [0], ["image_index", 0], -1),
        ([0, 1], [0], ["image_index", "caption_index"], naming(2, 1)),
        ([0.0], [0], ["image_index"], naming("float64")),
        ([0], [[0]], ["caption_index"], naming("(1, 1)")),
        (0, [0], ["image_index"], naming("int64", "()")),
        (None, None, ["images", "captions"], naming(9, 7)),
        ([0], None, ["image_index", "caption_index"], "image_index"),
        (None, [0], ["image_index", "caption_index"], "caption_index"),
    ],
    ids=str,
)
def test_an_unfit_index_is_refused(
    faked: MakeFaked,
    regions: NDArray[np.float32],
    rows: Any,
    columns: Any,
    names: list[object],
    got: object,
) -> None:
    made = faked()
    with refused(DataError, *names, expected=naming(), got=got):
        made.scorer.score_pairs(regions, CAPTIONS, rows, columns)
    assert not made.engine.calls, "it is refused before anything is encoded"


def test_out_of_memory_halves_the_batches(
    faked: MakeFaked, caplog: pytest.LogCaptureFixture
) -> None:
    made = faked()
    images = made.scorer.encode_images(make_regions(6))
    captions = made.scorer.encode_captions(make_token_ids(5, longest=4))
    rows, columns = random_pairs(6, 5, 60)
    expected = made.scorer.score_pairs(images, captions, rows, columns)
    made.engine.memory = 9
    found = made.scorer.score_pairs(images, captions, rows, columns)
    assert_similarities(found, expected)
    assert sum(holds(line, "pairs") for line in caplog.messages) == 1
    made.engine.memory = 0
    with refused(EngineMemoryError, "pairs", hint=naming()):
        made.scorer.score_pairs(images, captions, rows, columns)
