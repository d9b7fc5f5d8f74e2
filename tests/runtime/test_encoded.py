"""Encoded galleries: parts of them, joined ones, and whose they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.onnx_bundles import write_bundle
from support.refusals import naming, refused
from support.scorers import CAPTIONS, Faked, assert_similarities

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.runtime import EncodedCaptions, EncodedImages, Scorer

MakeFaked = Callable[..., Faked]

ROWS: list[Any] = [
    0,
    -1,
    slice(2, 5),
    slice(None, None, -2),
    slice(3, 3),
    [6, 0, 6, 3],
    np.array([1, 2]),
    [],
]


@pytest.mark.parametrize("rows", ROWS, ids=str)
def test_a_part_scores_like_its_rows(
    scorer: Scorer, regions: NDArray[np.float32], rows: Any
) -> None:
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    whole = scorer.score(images, captions)
    index = np.atleast_1d(np.arange(len(CAPTIONS))[rows]).astype(int)
    some_images, some_captions = images[np.arange(7)][rows], captions[rows]
    assert (len(some_images), len(some_captions)) == (len(index), len(index))
    assert_similarities(scorer.score(some_images, some_captions), whole[np.ix_(index, index)])


def test_a_slice_of_images_shares_memory(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    images = faked().scorer.encode_images(regions)
    for part, shares in ((images[2:4], True), (images[[2, 3]], False)):
        one, whole = part.members["sgr"], images.members["sgr"]
        assert np.shares_memory(one.region_embeddings, whole.region_embeddings) == shares


def test_captions_share_their_words(faked: MakeFaked) -> None:
    captions = faked().scorer.encode_captions(CAPTIONS)
    part = captions[[4, 1]]
    assert part.members["saf"].word_embeddings is captions.members["saf"].word_embeddings
    assert part.lengths.tolist() == captions.lengths[[4, 1]].tolist()


def test_words_are_ragged_and_padding_is_zero(faked: MakeFaked) -> None:
    captions = faked().scorer.encode_captions([[1, 2, 3], [4], [5, 6]])
    words = captions.members["sgr"].word_embeddings
    assert captions.lengths.tolist() == [3, 1, 2]
    assert captions.offsets.tolist() == [0, 3, 4]
    assert words.shape == (7, 8)
    assert np.flatnonzero(~words.any(axis=1)).tolist() == [6]
    rows = captions.word_rows(np.array([2, 0]), 4)
    assert rows.tolist() == [[4, 5, 6, 6], [0, 1, 2, 6]]
    assert rows.dtype == np.int32


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_bytes_are_those_of_the_buffers(
    faked: MakeFaked, regions: NDArray[np.float32], precision: str
) -> None:
    scorer = faked(precision=precision).scorer
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    stored = {"fp32": np.float32, "fp16": np.float16}[precision]
    held = 0
    for member in images.members.values():
        assert member.region_embeddings.dtype == stored
        held += member.region_embeddings.nbytes + member.image_global.nbytes
        held += 0 if member.region_gram is None else member.region_gram.nbytes
    assert images.nbytes == held
    held = captions.lengths.nbytes + captions.offsets.nbytes
    for text in captions.members.values():
        assert text.word_embeddings.dtype == stored
        held += text.word_embeddings.nbytes + text.text_global.nbytes
    assert captions.nbytes == held
    assert captions[:2].nbytes < captions.nbytes / 2


def test_iterating_gives_galleries_of_one(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    scorer = faked().scorer
    assert [len(image) for image in scorer.encode_images(regions)] == [1] * 9
    captions = scorer.encode_captions(CAPTIONS)
    assert [int(one.lengths[0]) for one in captions] == captions.lengths.tolist()


def test_joined_parts_are_the_whole(scorer: Scorer, regions: NDArray[np.float32]) -> None:
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    joined_images = EncodedImages.concatenate([images[3:], images[[0, 2]]])
    joined_captions = EncodedCaptions.concatenate([captions[[5, 1]], captions[2:], captions[0]])
    assert (len(joined_images), len(joined_captions)) == (8, 8)
    rows, columns = [3, 4, 5, 6, 7, 8, 0, 2], [5, 1, 2, 3, 4, 5, 6, 0]
    found = scorer.score(joined_images, joined_captions)
    assert_similarities(found, scorer.score(images, captions)[np.ix_(rows, columns)])


def test_nothing_cannot_be_joined() -> None:
    with refused(InputError, "images", expected=naming()):
        EncodedImages.concatenate([])
    with refused(InputError, "captions", expected=naming()):
        EncodedCaptions.concatenate([])


def test_another_scorers_are_refused(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    one, other = faked().scorer, faked().scorer
    images, captions = other.encode_images(regions), other.encode_captions(CAPTIONS)
    with refused(InputError, "images", expected=None, hint=naming()):
        one.score(images, CAPTIONS)
    with refused(InputError, "captions", expected=None, hint=naming()):
        one.score(regions, captions)
    with refused(InputError, "images", expected=None, hint=naming()):
        EncodedImages.concatenate([images, one.encode_images(regions)])
    with refused(InputError, "captions", expected=None, hint=naming()):
        EncodedCaptions.concatenate([captions, one.encode_captions(CAPTIONS)])


def test_another_precisions_are_refused(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    images = faked(precision="fp16").scorer.encode_images(regions)
    with refused(InputError, "images", "precision", expected="fp32", got="fp16"):
        faked().scorer.score(images, CAPTIONS)


def test_another_image_encoders_are_refused(
    faked: MakeFaked, regions: NDArray[np.float32], bundle: Bundle, tmp_path: Any
) -> None:
    ours = bundle.manifest.members["saf"].image_encoder_fingerprint
    path = write_bundle(tmp_path / "other.sgraf").path
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["members"]["saf"]["image_encoder_fingerprint"] = "0" * 64
    (path / "manifest.json").write_text(json.dumps(manifest))
    images = faked(of=Bundle.open(path)).scorer.encode_images(regions)
    with refused(InputError, "images", "fingerprint", "saf", expected=ours, got="0" * 64):
        faked().scorer.score(images, CAPTIONS)


def test_images_for_captions_are_refused(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    scorer = faked().scorer
    images: Any = scorer.encode_images(regions)
    captions: Any = scorer.encode_captions(CAPTIONS)
    with refused(InputError, expected="images", got=naming("captions")):
        scorer.score(captions, captions)
    with refused(InputError, expected="captions", got=naming("images")):
        scorer.score(images, images)


def test_rows_out_of_range_are_refused(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    images = faked().scorer.encode_images(regions)
    with refused(DataError, "image", 0, expected=naming(-9, 8), got=9):
        _ = images[9]
