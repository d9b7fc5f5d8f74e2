"""Padded token ids: cut to their lengths or refused, and never scored as words."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.fake_engine import FakeEngine
from support.onnx_bundles import WORDS
from support.refusals import holds, naming, refused
from support.scorers import Faked, make_regions, make_token_ids

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import CaptionWarning, DataError
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.runtime.tiles import TileLimits
from sgraf_deploy.runtime.tokens import CaptionReader

MakeFaked = Callable[..., Faked]

REAL = [[1, 4, 5, 2], [1, 6, 2], [1, 7, 8, 9, 10, 2]]
PADDED = np.array([[1, 4, 5, 2, 0, 0], [1, 6, 2, 0, 0, 0], [1, 7, 8, 9, 10, 2]])
LENGTHS = [4, 3, 6]

GIVE_LENGTHS = "encode_captions(captions, lengths=lengths)"

caption = st.lists(st.integers(3, len(WORDS) - 1), max_size=9).map(lambda ids: [1, *ids, 2])
captions = st.lists(caption, min_size=1, max_size=6)


def padded(ids: list[list[int]], extra: int = 0, pad: int = 0) -> NDArray[np.int64]:
    """One array (captions, words), as a DataLoader makes it."""
    made = np.full((len(ids), max(map(len, ids)) + extra), pad)
    for row, each in enumerate(ids):
        made[row, : len(each)] = each
    return made


def new_scorer(bundle: Bundle) -> Scorer:
    return Scorer(bundle, FakeEngine(bundle), precision="fp32", limits=TileLimits())


@given(captions, st.integers(0, 3), st.sampled_from([0, -100, 2]))
def test_padded_ids_with_lengths_are_the_ids(
    bundle: Bundle, ids: list[list[int]], extra: int, pad: int
) -> None:
    """Whatever they are padded with."""
    lengths = [len(each) for each in ids]
    found = CaptionReader(bundle).token_ids(padded(ids, extra, pad), lengths)
    assert [each.tolist() for each in found] == ids


@given(captions, st.integers(1, 3), st.booleans())
def test_padded_ids_without_lengths_are_refused(
    bundle: Bundle, ids: list[list[int]], extra: int, left: bool
) -> None:
    given = padded(ids, extra)
    given = given[:, ::-1] if left else given
    with refused(DataError, 0, expected=naming("<pad>"), hint=GIVE_LENGTHS):
        CaptionReader(bundle).token_ids(given)


@given(captions, st.integers(0, 3))
def test_padded_ids_score_as_they_do_unpadded_and_in_any_batch(
    bundle: Bundle, ids: list[list[int]], extra: int
) -> None:
    scorer, regions = new_scorer(bundle), make_regions(2)
    lengths = [len(each) for each in ids]
    found = scorer.score(regions, scorer.encode_captions(padded(ids, extra), lengths))
    np.testing.assert_array_equal(found, scorer.score(regions, ids))
    for row, each in enumerate(ids):
        # One caption's sums run in another order: float32 similarities below 1.
        alone = scorer.score(regions, scorer.encode_captions([each], [len(each)]))
        np.testing.assert_allclose(found[:, row], alone[:, 0], atol=1e-6)


@pytest.mark.parametrize(
    "lengths",
    [
        LENGTHS,
        tuple(LENGTHS),
        np.array(LENGTHS),
        np.array(LENGTHS, np.uint8),
        torch.tensor(LENGTHS),
        list(torch.tensor(LENGTHS)),
    ],
    ids=["list", "tuple", "int64", "uint8", "tensor", "scalars"],
)
@pytest.mark.parametrize(
    "ids",
    [PADDED, PADDED.tolist(), PADDED.astype(np.uint8), torch.tensor(PADDED), list(PADDED)],
    ids=["array", "lists", "uint8", "tensor", "rows"],
)
def test_a_dataloaders_batch_is_cut(bundle: Bundle, ids: Any, lengths: Any) -> None:
    found = CaptionReader(bundle).token_ids(ids, lengths)
    assert [each.tolist() for each in found] == REAL
    assert {each.dtype for each in found} == {np.dtype(np.int32)}


@pytest.mark.parametrize(
    ("lengths", "expected", "got"),
    [
        ([4, 3], naming(3), 2),
        ([], naming(3), 0),
        ([4, 3, 2**80], naming(), naming()),
        ([4.0, 3.0, 6.0], naming(), naming("list", "float64")),
        ([True, True, True], naming(), naming("bool")),
        (5, naming(), naming("()")),
        ([LENGTHS], naming(), naming("(1, 3)")),
        ("436", naming(), naming("str")),
        ([4, None, 6], naming(), naming("object")),
        ({4, 3, 6}, naming(), naming("set")),
    ],
    ids=repr,
)
def test_other_lengths_are_refused(
    bundle: Bundle, lengths: Any, expected: naming, got: object
) -> None:
    with refused(DataError, "lengths", expected=expected, got=got):
        CaptionReader(bundle).token_ids(PADDED, lengths)


@pytest.mark.parametrize(
    ("lengths", "row", "got"), [([4, 3, 7], 2, 7), ([4, 0, 6], 1, 0), ([4, -1, 6], 1, -1)]
)
def test_a_length_that_the_ids_do_not_have_is_refused(
    bundle: Bundle, lengths: list[int], row: int, got: int
) -> None:
    with refused(DataError, row, expected=naming(1, 6), got=got):
        CaptionReader(bundle).token_ids(PADDED, lengths)


def test_lengths_in_another_order_reach_into_the_padding(bundle: Bundle) -> None:
    with refused(DataError, 0, got=naming("<pad>", 4, 6), hint="lengths") as caught:
        CaptionReader(bundle).token_ids(PADDED, [6, 4, 3])
    assert not holds(str(caught.error.hint), GIVE_LENGTHS)  # they were given


def test_strings_have_no_lengths(bundle: Bundle) -> None:
    with refused(DataError, "lengths", expected=naming(), got=naming()):
        CaptionReader(bundle).token_ids(["a dog"], [4])


def test_without_a_vocabulary_zero_stands_for_padding(sgr_bundle: Bundle) -> None:
    reader = CaptionReader(sgr_bundle)
    with refused(DataError, 0, got=naming(0, "<pad>"), hint=[GIVE_LENGTHS, "--vocab FILE"]):
        reader.token_ids(PADDED)
    assert [ids.tolist() for ids in reader.token_ids(PADDED, LENGTHS)] == REAL


def test_the_vocabulary_says_which_id_is_padding(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Vocabulary, "load", lambda path: Vocabulary(WORDS[::-1]))
    pad, start, end = (len(WORDS) - 1 - index for index in range(3))
    reader = CaptionReader(bundle)
    assert [ids.tolist() for ids in reader.token_ids([[start, 0, end]])] == [[start, 0, end]]
    with refused(DataError, got=naming(pad, "<pad>", 1, 3)):
        reader.token_ids([[start, pad, end]])


def test_wherever_captions_are_given_padding_is_refused(
    faked: MakeFaked, regions: NDArray[np.float32]
) -> None:
    """And before any image is encoded."""
    made = faked()
    scorer, pairs = made.scorer, ([0], [0])
    uses: list[Callable[[], object]] = [
        lambda: scorer.encode_captions(PADDED),
        lambda: scorer.score(regions, PADDED),
        lambda: scorer.logits(regions, PADDED),
        lambda: scorer.count_ranks(regions[:1], padded([REAL[0]] * 5, extra=1)),
        lambda: scorer.score_pairs(regions, PADDED, *pairs),
        lambda: scorer.logits_pairs(regions, PADDED, *pairs),
        lambda: scorer.rerank(PADDED[0], regions),
        lambda: scorer.rerank(PADDED[0].tolist(), regions),
        lambda: scorer.rerank(regions[0], PADDED),
    ]
    for use in uses:
        with refused(DataError, got=naming("<pad>")):
            use()
    assert made.engine.shapes == []


@pytest.mark.parametrize("ids", [[4, 5, 2], [1, 4, 5], [4], [2, 4, 1]], ids=str)
def test_ids_without_start_or_end_are_warned_of_once_a_scorer(
    faked: MakeFaked, regions: NDArray[np.float32], ids: list[int]
) -> None:
    scorer = faked().scorer
    line = inspect.currentframe().f_lineno  # type: ignore[union-attr]
    with pytest.warns(CaptionWarning) as caught:
        scorer.score_pairs(regions, [*REAL, ids], [0], [0])
    assert [(Path(each.filename), each.lineno) for each in caught] == [(Path(__file__), line + 2)]
    assert holds(str(caught[0].message), len(REAL))
    assert holds(str(caught[0].message), "<start>")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scorer.encode_captions([ids])
    with pytest.warns(CaptionWarning):
        faked().scorer.encode_captions([ids])


def test_threads_that_come_together_are_warned_once(bundle: Bundle) -> None:
    reader = CaptionReader(bundle)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: reader.token_ids([[4, 5]] * 50), range(64)))
    assert len(caught) == 1


@pytest.mark.filterwarnings("error")
def test_whole_captions_are_not_warned_of(bundle: Bundle, sgr_bundle: Bundle) -> None:
    CaptionReader(bundle).token_ids(REAL)
    CaptionReader(bundle).token_ids(PADDED, LENGTHS)
    CaptionReader(bundle).token_ids(["a dog"])
    # Which ids they are, a bundle without a vocabulary does not know.
    CaptionReader(sgr_bundle).token_ids([[4, 5]])


def test_a_caption_of_ids_is_bounded(bundle: Bundle, faked: MakeFaked) -> None:
    long = [1, *[4] * 511, 2]
    with refused(DataError, 1, expected=naming(512), got=513, hint="--max-caption-words"):
        faked().scorer.encode_captions([REAL[0], long])
    assert len(CaptionReader(bundle).token_ids([[1, *[4] * 510, 2]])[0]) == 512
    assert len(CaptionReader(bundle, max_words=None).token_ids([long])[0]) == 513
    # It is the caption that is bounded, not the array that it is padded in.
    cut = CaptionReader(bundle).token_ids([[*REAL[0], *[0] * 600]], [4])
    assert [ids.tolist() for ids in cut] == [REAL[0]]


def test_the_batch_of_the_authors_loader(shared: Path, tmp_path: Path) -> None:
    """Ten captions in one array that is padded with zeros, and the same without padding."""
    from sgraf_deploy import load
    from sgraf_deploy.demo.assets import demo_split, export_demo

    case = shared / "field" / "42-padded-ids"
    ids, unpadded = np.load(case / "ids.npy"), json.loads((case / "unpadded.json").read_text())
    regions = demo_split(2).regions
    with load(export_demo(tmp_path / "demo.sgraf").bundle, engine="ort") as scorer:
        right = scorer.score(regions, unpadded)
        with refused(DataError, 0, got=naming("<pad>")):
            scorer.score(regions, ids)
        lengths = [len(caption) for caption in unpadded]
        found = scorer.score(regions, scorer.encode_captions(torch.from_numpy(ids), lengths))
    np.testing.assert_array_equal(found, right)


def test_random_ids_hold_no_padding() -> None:
    assert all(ids.min() > 0 for ids in make_token_ids(50))
