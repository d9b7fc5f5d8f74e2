"""`Reranker`: the scores of `Scorer` on the same pairs, by the caller's ids."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import naming, refused
from support.scorers import CAPTIONS, assert_logits
from support.small_galleries import (
    BOXES,
    CAPTION_IDS,
    IMAGE_IDS,
    REGIONS,
    SIZE,
    caption_gallery,
    image_gallery,
)

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.gallery.ranked import Reranked, RerankRequest
from sgraf_deploy.gallery.reranker import Reranker
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime import Scorer


@dataclass(frozen=True)
class Galleries:
    """A scorer, and a gallery of images and one of captions that it encoded."""

    scorer: Scorer
    images: Gallery
    captions: Gallery

    @property
    def by_text(self) -> Reranker:
        return Reranker(self.scorer, self.images)

    @property
    def by_image(self) -> Reranker:
        return Reranker(self.scorer, self.captions, images=self.images)


@pytest.fixture
def galleries(scorer: Scorer, tmp_path: Path) -> Galleries:
    return Galleries(
        scorer,
        image_gallery(scorer, tmp_path / "images"),
        caption_gallery(scorer, tmp_path / "captions"),
    )


def check(
    found: Reranked, asked: list[str], all_ids: list[str], logits: NDArray[np.float32]
) -> None:
    """The result ranks what was asked by the logits (all ids,) that `Scorer` computes."""
    expected = np.array([logits[all_ids.index(id_)] for id_ in asked])
    assert len(found) <= len(asked)
    assert [asked[index] for index in found.indices] == list(found.ids)
    assert_logits(found.logits, expected[found.indices])
    assert (np.diff(found.logits) <= 0).all()
    assert len(set(found.indices.tolist())) == len(found)


def of_scorer(scorer: Scorer) -> NDArray[np.float32]:
    """The ensemble's logits (images, captions) of all that the galleries hold."""
    from sgraf_deploy.engines.ensemble import ensemble_logits

    return ensemble_logits(scorer.logits(REGIONS, CAPTIONS))


@pytest.mark.parametrize("top_k", [None, 1, 3, 50])
@pytest.mark.parametrize("chunk_bytes", [1, 2000, 1 << 28], ids=["one", "a few", "all"])
def test_images_for_a_caption(galleries: Galleries, top_k: int | None, chunk_bytes: int) -> None:
    reranker = Reranker(galleries.scorer, galleries.images, chunk_bytes=chunk_bytes)
    asked = ["photo3.jpg", "photo8.jpg", "photo0.jpg", "photo5.jpg", "photo1.jpg"]

    found = reranker.rerank(CAPTIONS[2], asked, top_k)

    assert found.direction == "text_to_image"
    assert len(found) == min(top_k or 5, 5)
    check(found, asked, IMAGE_IDS, of_scorer(galleries.scorer)[:, 2])


@pytest.mark.parametrize("chunk_bytes", [1, 1 << 28], ids=["one", "all"])
@pytest.mark.parametrize("kind", ["regions", "encoded", "id"])
def test_captions_for_an_image(galleries: Galleries, kind: str, chunk_bytes: int) -> None:
    scorer = galleries.scorer
    reranker = Reranker(
        scorer, galleries.captions, images=galleries.images, chunk_bytes=chunk_bytes
    )
    query: Any = {
        "regions": REGIONS[4],
        "encoded": scorer.encode_images(REGIONS)[4],
        "id": "photo4.jpg",
    }[kind]

    found = reranker.rerank(query, CAPTION_IDS[::-1], 4)

    assert found.direction == "image_to_text"
    check(found, CAPTION_IDS[::-1], CAPTION_IDS, of_scorer(scorer)[4])
    assert [item.metadata for item in found] == [
        {"caption": CAPTIONS[CAPTION_IDS.index(id_)]} for id_ in found.ids
    ]


def test_without_ids_the_whole_gallery_is_ranked(galleries: Galleries) -> None:
    found = galleries.by_text.rerank(CAPTIONS[0])

    assert sorted(found.ids) == sorted(IMAGE_IDS)
    check(found, list(galleries.images.ids()), IMAGE_IDS, of_scorer(galleries.scorer)[:, 0])


def requests_for_images(seed: int) -> list[RerankRequest]:
    """Queries of every form, some of them more than once, with candidates of their own."""
    rng = np.random.default_rng(seed)
    texts: list[Any] = [CAPTIONS[row] for row in rng.integers(0, len(CAPTIONS), 6)]
    return [
        RerankRequest(text, [IMAGE_IDS[row] for row in rng.permutation(9)[: rng.integers(0, 8)]])
        for text in texts
    ]


@pytest.mark.parametrize("chunk_bytes", [1, 2000, 1 << 28], ids=["one", "a few", "all"])
@pytest.mark.parametrize("seed", [0, 1])
def test_many_requests_are_answered_as_each_alone(
    galleries: Galleries, seed: int, chunk_bytes: int
) -> None:
    reranker = Reranker(galleries.scorer, galleries.images, chunk_bytes=chunk_bytes)
    requests = requests_for_images(seed)
    logits = of_scorer(galleries.scorer)

    found = reranker.rerank_many(requests)

    assert len(found) == len(requests)
    for request, one in zip(requests, found, strict=True):
        assert request.ids is not None
        assert len(one) == len(request.ids)
        check(one, list(request.ids), IMAGE_IDS, logits[:, CAPTIONS.index(str(request.query))])


def test_many_images_of_every_form_at_once(galleries: Galleries) -> None:
    encoded = galleries.scorer.encode_images(REGIONS)
    queries: list[Any] = [REGIONS[1], encoded[2], "photo3.jpg", REGIONS[4], "photo3.jpg"]
    requests = [RerankRequest(query, CAPTION_IDS[place:]) for place, query in enumerate(queries)]

    found = galleries.by_image.rerank_many(requests)

    logits = of_scorer(galleries.scorer)
    for request, one, row in zip(requests, found, (1, 2, 3, 4, 3), strict=True):
        check(one, list(request.ids or ()), CAPTION_IDS, logits[row])


def test_details_are_those_of_the_record(galleries: Galleries) -> None:
    found = galleries.by_text.rerank(CAPTIONS[1])

    for item in found:
        row = IMAGE_IDS.index(item.id)
        assert item.metadata == ({"row": row} if row % 2 == 0 else None)
        if row % 2 == 0:
            assert (item.boxes, item.size) == (None, None)
        else:
            np.testing.assert_array_equal(item.boxes, BOXES + row)
            assert item.size == SIZE


def test_an_id_that_is_there_twice_is_two_candidates(galleries: Galleries) -> None:
    asked = ["photo2.jpg", "photo5.jpg", "photo2.jpg"]

    found = galleries.by_text.rerank(CAPTIONS[3], asked)

    assert sorted(found.ids) == sorted(asked)
    first, second = (item for item in found if item.id == "photo2.jpg")
    assert (first.index, second.index) == (0, 2)
    assert first.logit == second.logit


def test_ties_keep_the_order_of_the_ids(galleries: Galleries) -> None:
    asked = ["photo6.jpg"] * 5

    assert galleries.by_text.rerank(CAPTIONS[0], asked).indices.tolist() == [0, 1, 2, 3, 4]
    reranker = Reranker(galleries.scorer, galleries.images, chunk_bytes=1)
    assert reranker.rerank(CAPTIONS[0], asked, 2).indices.tolist() == [0, 1]


def test_ids_that_the_gallery_lacks_are_named(galleries: Galleries) -> None:
    with refused(DataError, 2, got=naming("none.jpg", "other.jpg"), hint="sgraf-deploy index"):
        galleries.by_text.rerank(CAPTIONS[0], ["photo1.jpg", "none.jpg", "other.jpg"])


def test_ids_that_the_gallery_lacks_can_be_left_out(galleries: Galleries) -> None:
    reranker = Reranker(galleries.scorer, galleries.images, missing="skip")
    asked = ["none.jpg", "photo1.jpg", "other.jpg", "photo0.jpg", "none.jpg"]

    alone = reranker.rerank(CAPTIONS[1], ["other.jpg"])
    some, none, nothing = reranker.rerank_many(
        [
            RerankRequest(CAPTIONS[0], asked),
            RerankRequest(CAPTIONS[1], ["other.jpg"]),
            RerankRequest(CAPTIONS[2], []),
        ]
    )

    assert some.missing == ("none.jpg", "other.jpg", "none.jpg")
    assert sorted(some.indices.tolist()) == [1, 3]
    check(some, asked, [*IMAGE_IDS, "none.jpg", "other.jpg"], _padded(galleries.scorer))
    assert (len(alone), alone.missing) == (0, ("other.jpg",))
    assert (len(none), none.missing) == (0, ("other.jpg",))
    assert (len(nothing), nothing.missing) == (0, ())


def _padded(scorer: Scorer) -> NDArray[np.float32]:
    return np.append(of_scorer(scorer)[:, 0], np.full(2, np.nan, np.float32))


@pytest.mark.parametrize(
    "make",
    [
        lambda galleries: galleries.by_text.rerank(REGIONS[0], IMAGE_IDS),
        lambda galleries: galleries.by_text.rerank(None, IMAGE_IDS),
        lambda galleries: galleries.by_image.rerank([1, 2, 3], CAPTION_IDS),
        lambda galleries: Reranker(galleries.scorer, galleries.captions).rerank("photo0.jpg"),
    ],
    ids=["an image for images", "nothing", "a caption for captions", "an id without a gallery"],
)
def test_what_is_no_query_of_the_gallery_is_refused(
    galleries: Galleries, make: Callable[[Galleries], object]
) -> None:
    with refused(InputError, "query", expected=naming(), got=naming()):
        make(galleries)


def test_an_image_that_its_gallery_lacks_is_named(galleries: Galleries) -> None:
    with refused(DataError, 1, got=repr("none.jpg")):
        galleries.by_image.rerank("none.jpg", CAPTION_IDS)


def test_a_request_that_is_refused_is_named(galleries: Galleries) -> None:
    good = RerankRequest(CAPTIONS[0], ["photo0.jpg"])
    for bad in (
        RerankRequest(CAPTIONS[0], ["photo0.jpg"], top_k=0),
        RerankRequest(REGIONS[0], ["photo0.jpg"]),
        RerankRequest(CAPTIONS[0], "photo0.jpg"),
        RerankRequest(CAPTIONS[0], ["photo0.jpg", 7]),  # type: ignore[list-item]
        RerankRequest(CAPTIONS[0], 7),  # type: ignore[arg-type]
    ):
        with refused(InputError, "request 2"):
            galleries.by_text.rerank_many([good, good, bad])


def test_galleries_of_the_wrong_kind_are_refused(galleries: Galleries) -> None:
    with refused(InputError, "images", expected=naming("images"), got=naming("captions")):
        Reranker(galleries.scorer, galleries.captions, images=galleries.captions)
    with refused(InputError, "missing", got=repr("ignore")):
        Reranker(galleries.scorer, galleries.images, missing="ignore")  # type: ignore[arg-type]


def test_sixteen_threads_get_what_one_gets(galleries: Galleries) -> None:
    reranker = galleries.by_text
    requests = [request for seed in range(16) for request in requests_for_images(seed)]
    alone = [reranker.rerank(one.query, one.ids) for one in requests]

    def ask(place: int) -> list[Reranked]:
        turned = requests[place:] + requests[:place]
        return reranker.rerank_many(turned[:40]) + [
            reranker.rerank(one.query, one.ids) for one in turned[40:]
        ]

    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(ask, range(16)))

    for place, results in enumerate(found):
        for expected, one in zip(alone[place:] + alone[:place], results, strict=True):
            assert_logits(np.sort(one.logits), np.sort(expected.logits))
            assert sorted(one.ids) == sorted(expected.ids)


def test_each_record_is_gathered_once_and_a_chunk_is_within_its_bytes(
    galleries: Galleries, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []
    gather = Gallery.gather

    def watched(self: Gallery, scorer: Scorer, ids: list[str], **more: Any) -> Any:
        seen.append(ids)
        return gather(self, scorer, ids, **more)

    monkeypatch.setattr(Gallery, "gather", watched)
    one = galleries.scorer.encode_images(REGIONS[:1]).nbytes
    reranker = Reranker(galleries.scorer, galleries.images, chunk_bytes=3 * one)

    reranker.rerank_many(
        [RerankRequest(text, IMAGE_IDS[place:]) for place, text in enumerate(CAPTIONS)]
    )

    assert [len(chunk) for chunk in seen] == [3, 3, 3]
    assert sorted(id_ for chunk in seen for id_ in chunk) == sorted(IMAGE_IDS)


@pytest.mark.parametrize("images", [1, 4, None], ids=["room for one", "for four", "for all"])
@pytest.mark.parametrize("missing", ["error", "skip"])
def test_a_resident_gallery_gives_the_same(
    galleries: Galleries, images: int | None, missing: Any
) -> None:
    one = galleries.scorer.encode_images(REGIONS[:1]).nbytes
    resident = Gallery.open(
        galleries.images.path, resident="all" if images is None else images * one
    )
    reranker = Reranker(galleries.scorer, resident, missing=missing)
    requests = requests_for_images(3)

    for _ in range(2):
        for found, expected in zip(
            reranker.rerank_many(requests), galleries.by_text.rerank_many(requests), strict=True
        ):
            assert sorted(found.ids) == sorted(expected.ids)
            assert_logits(np.sort(found.logits), np.sort(expected.logits))
            for item in found:
                assert (item.metadata is None) == (IMAGE_IDS.index(item.id) % 2 == 1)


def test_what_is_deleted_meanwhile_is_not_missed_from_the_whole_gallery(
    galleries: Galleries, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = galleries.images.ids()
    monkeypatch.setattr(Gallery, "ids", lambda self: ids)
    galleries.images.delete(["photo3.jpg"])

    found = galleries.by_text.rerank(CAPTIONS[0])

    assert sorted(found.ids) == sorted({*ids} - {"photo3.jpg"})
    assert found.missing == ()
    with refused(DataError, 1, got=repr("photo3.jpg")):
        galleries.by_text.rerank_many(
            [RerankRequest(CAPTIONS[0]), RerankRequest(CAPTIONS[0], ["photo3.jpg"])]
        )
