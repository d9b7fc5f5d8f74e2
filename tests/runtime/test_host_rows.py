"""Encoded images and captions come from rows on the host as they went there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import ANY, naming, refused
from support.scorers import CAPTIONS, Faked

from sgraf_deploy.errors import DataError
from sgraf_deploy.runtime import Scorer

MakeFaked = Callable[..., Faked]
Rows = dict[str, dict[str, Any]]


def test_they_score_the_same(scorer: Scorer, regions: NDArray[np.float32]) -> None:
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    whole = scorer.score(images, captions)
    some, others = images[[5, 2, 2]], captions[[6, 0, 3]]
    one = scorer.images_from_host(some.to_host())
    two = scorer.captions_from_host(others.lengths.tolist(), others.to_host())
    assert (len(one), len(two), two.padding_row) == (3, 3, others.lengths.sum())
    assert one.nbytes == some.nbytes
    assert np.array_equal(scorer.score(one, two), whole[np.ix_([5, 2, 2], [6, 0, 3])])


def test_another_scorer_takes_them(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    one, two = faked().scorer, faked().scorer
    images = one.encode_images(regions)
    two.image_encoding.check(images.encoding, "images")
    found = two.score(two.images_from_host(images.to_host()), CAPTIONS)
    assert np.array_equal(found, one.score(images, CAPTIONS))


def test_none_are_an_empty_gallery(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    scorer = faked().scorer
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    assert len(scorer.images_from_host(images[:0].to_host())) == 0
    assert len(scorer.captions_from_host([], captions[:0].to_host())) == 0


def test_the_callers_arrays_stay_as_they_are(faked: MakeFaked) -> None:
    scorer = faked().scorer
    captions = scorer.encode_captions(CAPTIONS)
    lengths = captions.lengths.copy()
    scorer.captions_from_host(lengths, captions.to_host())
    assert lengths.flags.writeable


def without(name: str) -> Callable[[Rows], None]:
    return lambda rows: rows["saf"].pop(name)


def with_(name: str, change: Callable[[Any], Any]) -> Callable[[Rows], None]:
    return lambda rows: rows["saf"].update({name: change(rows["saf"].get(name))})


IMAGES: dict[str, tuple[Callable[[Rows], Any], str, Any, Any]] = {
    "no-member": (lambda rows: rows.pop("saf"), "members", "saf, sgr", "sgr"),
    "another-member": (lambda rows: rows.update(cat={}), "members", ANY, naming("cat")),
    "no-array": (without("image_global"), "saf", ANY, naming("region_embeddings")),
    "another-array": (with_("tail", lambda _: None), "saf", ANY, naming("tail")),
    "float64": (with_("image_global", lambda x: x.astype(float)), "image_global", ANY, ANY),
    "float16": (with_("image_global", lambda x: x.astype(np.float16)), "image_global", ANY, ANY),
    "big-endian": (with_("image_global", lambda x: x.astype(">f4")), "image_global", ANY, ANY),
    "a-list": (with_("image_global", lambda x: x.tolist()), "saf.image_global", ANY, "list"),
    "fewer": (with_("image_global", lambda x: x[1:]), "image_global", naming("(9, 9)"), ANY),
    "narrower": (with_("image_global", lambda x: x[:, 1:]), "image_global", ANY, naming("(9, 8)")),
    "flat": (with_("region_embeddings", lambda x: x.ravel()), "region_embeddings", ANY, ANY),
    "a-number": (with_("region_embeddings", lambda x: x[0, 0, 0]), "region_embeddings", ANY, ANY),
}


@pytest.mark.parametrize("wrong", IMAGES)
def test_unfit_images_are_refused(
    faked: MakeFaked, regions: NDArray[np.float32], wrong: str
) -> None:
    scorer = faked().scorer
    rows: Any = scorer.encode_images(regions).to_host()
    change, name, expected, got = IMAGES[wrong]
    change(rows)
    with refused(DataError, name, expected=expected, got=got):
        scorer.images_from_host(rows)


@pytest.mark.parametrize(
    ("lengths", "got"),
    [
        ([3, 0], 0),
        ([3, -1], -1),
        ([[3, 4]], naming("(1, 2)")),
        ([3.0, 4.0], naming("float64")),
        (7, naming("()")),
        ([3, 2**31], 2**31),
    ],
    ids=str,
)
def test_unfit_lengths_are_refused(faked: MakeFaked, lengths: Any, got: Any) -> None:
    scorer = faked().scorer
    captions = scorer.encode_captions([[1, 2, 3], [4, 5, 6, 7]])
    with refused(DataError, "lengths", expected=naming(), got=got):
        scorer.captions_from_host(lengths, captions.to_host())


def test_words_that_are_not_as_long_are_refused(faked: MakeFaked) -> None:
    scorer = faked().scorer
    rows = scorer.encode_captions([[1, 2, 3], [4, 5, 6, 7]]).to_host()
    with refused(DataError, "word_embeddings", expected=naming("(8, 8)"), got=naming("(7, 8)")):
        scorer.captions_from_host([4, 4], rows)
    with refused(DataError, "text_global", expected=naming("(1, 8)"), got=naming("(2, 8)")):
        scorer.captions_from_host([7], rows)
