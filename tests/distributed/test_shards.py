"""A call split over shards, and put together again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.refusals import refused
from support.scorers import CAPTIONS
from support.served import Server
from support.small_galleries import IMAGE_IDS, REGIONS

from sgraf_deploy.distributed.shards import join, shard_of, split
from sgraf_deploy.gallery.rows import Batch
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.serve.answering import Answerer
from sgraf_deploy.serve.calls import (
    Answer,
    Call,
    CaptionText,
    FailedError,
    Item,
    NotFoundError,
    OverloadedError,
    RegionsArray,
    RequestError,
    StoredId,
    TimedOutError,
    UnprocessableError,
)

A_DOG = CaptionText("a dog")
SPREAD = tuple(StoredId(id_) for id_ in IMAGE_IDS)
"""Images of more than one of two shards, and of three."""


def answered(call: Call) -> Answer:
    """An answer of decreasing logits."""
    items = (Item(row, 0.5, -float(row)) for row in range(call.pairs))
    return Answer(tuple(items), tokens=2, bundles=("one",))


def test_the_shard_of_an_id_never_changes() -> None:
    ids = ["photo0.jpg", "photo1.jpg", "ein Bild.jpg", "図", ""]
    assert [shard_of(id_, 5) for id_ in ids] == [4, 3, 0, 1, 1]
    assert {shard_of(str(row), 3) for row in range(50)} == {0, 1, 2}
    assert shard_of("x", 1) == 0


@pytest.mark.parametrize("shards", [1, 2, 3])
@pytest.mark.parametrize("seed", range(8))
def test_shards_answer_as_the_whole_gallery_does(server: Server, shards: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    galleries = []
    for shard in range(shards):
        rows = [row for row, id_ in enumerate(IMAGE_IDS) if shard_of(id_, shards) == shard]
        gallery = Gallery.create(server.folder / f"{shard}", server.scorer, "images")
        encoded = server.scorer.encode_images(REGIONS[rows])
        gallery.write(Batch.of([IMAGE_IDS[row] for row in rows], encoded))
        galleries.append(gallery)
    answerers = [Answerer(server.scorer, gallery) for gallery in galleries]
    ids = [StoredId(IMAGE_IDS[row]) for row in rng.integers(0, 9, 6)]
    regions = [RegionsArray(REGIONS[row]) for row in rng.integers(0, 9, 2)]
    documents: tuple[Any, ...] = tuple(rng.permutation(np.array([*ids, *regions], object)))
    texts = tuple(CaptionText(text) for text in CAPTIONS)
    for call in (
        Call(CaptionText(CAPTIONS[seed % 7]), documents, [None, 3][seed % 2]),
        Call(A_DOG, (*documents, StoredId("none")), missing="skip"),
        Call(ids[0], texts, 2),
        Call(regions[0], texts),
    ):
        shares = split(call, shards, seed % shards)
        found = [answerers[share.shard].answer_many([share.call])[0] for share in shares]

        whole = Answerer(server.scorer, server.gallery).answer_many([call])[0]
        joined = join(call, shares, found)

        assert isinstance(whole, Answer)
        assert [item.index for item in joined.items] == [item.index for item in whole.items]
        assert [item.logit for item in joined.items] == pytest.approx(
            [item.logit for item in whole.items], abs=1e-5
        )
        assert (joined.missing, joined.warnings) == (whole.missing, whole.warnings)
        assert (joined.tokens, joined.bundles) == (whole.tokens, whole.bundles)
        assert not joined.partial


def test_only_shards_that_have_something_are_asked() -> None:
    one = next(id_ for id_ in IMAGE_IDS if shard_of(id_, 2) == 1)
    for call in (
        Call(A_DOG, (StoredId(one), RegionsArray(REGIONS[0]))),
        Call(StoredId(one), (A_DOG,)),
        Call(A_DOG, (RegionsArray(REGIONS[0]),)),
    ):
        (share,) = split(call, 2, 1)
        assert share.shard == 1
        assert share.call.documents == call.documents
    assert sorted(share.shard for share in split(Call(A_DOG, SPREAD), 3, 0)) == [0, 1, 2]


def test_what_no_shard_has_is_an_error_of_its_place_in_the_request(server: Server) -> None:
    documents = (*SPREAD[:3], StoredId("none"), StoredId("other"))
    call = Call(A_DOG, documents)
    shares = split(call, 2, 0)
    answers = Answerer(server.scorer, server.gallery).answer_many([each.call for each in shares])

    with refused(NotFoundError, "documents[3]") as found:
        join(call, shares, answers)
    assert isinstance(found.error, NotFoundError)
    assert found.error.param == "documents[3]"


@pytest.mark.parametrize("error", [FailedError("down"), TimedOutError("late")])
def test_a_shard_that_is_down_fails_the_call_or_is_left_out_of_it(error: RequestError) -> None:
    for partial in (False, True):
        call = Call(A_DOG, SPREAD, 4, partial=partial)
        shares = split(call, 3, 0)
        outcomes: list[Answer | RequestError] = [answered(share.call) for share in shares]
        outcomes[1] = error
        if not partial:
            with refused(type(error)):
                join(call, shares, outcomes)
            continue
        found = join(call, shares, outcomes)

        assert found.partial
        assert set(found.missing) == set(shares[1].indices)
        assert not {item.index for item in found.items} & set(shares[1].indices)
        (warning,) = found.warnings
        assert str(len(shares[1].indices)) in warning
        assert f"shard {shares[1].shard}" in warning


def test_a_partial_answer_needs_a_shard_that_answers_and_hides_no_refusal() -> None:
    call = Call(A_DOG, SPREAD, partial=True)
    shares = split(call, 2, 0)
    with refused(FailedError):
        join(call, shares, [FailedError("down"), FailedError("down")])
    for error in (OverloadedError("full"), UnprocessableError("query")):
        with refused(type(error)):
            join(call, shares, [answered(shares[0].call), error])


def test_shards_with_two_bundles_are_told_of() -> None:
    call = Call(A_DOG, SPREAD)
    shares = split(call, 2, 0)
    one = Answer((Item(0, 0.5, 0.0),), bundles=("one",))
    two = Answer((Item(0, 0.5, 1.0),), bundles=("two",))

    found = join(call, shares, [one, two])

    assert found.bundles == ("one", "two")
    assert len(found.warnings) == 1
    assert len(join(call, shares, [one, one]).warnings) == 0
