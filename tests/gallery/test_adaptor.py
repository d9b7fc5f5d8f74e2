"""`GalleryRanker` behind the interface of the package `rerankers`, with the real package."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.refusals import naming, refused
from support.scorers import CAPTIONS
from support.small_galleries import (
    CAPTION_IDS,
    REGIONS,
    caption_gallery,
    image_gallery,
)

from sgraf_deploy.errors import DataError, InputError, UnavailableError
from sgraf_deploy.gallery.adaptor import GalleryRanker
from sgraf_deploy.gallery.reranker import Reranker
from sgraf_deploy.runtime import Scorer

ASKED = ["photo3.jpg", "photo8.jpg", "photo0.jpg", "photo5.jpg"]
QUERY = CAPTIONS[2]


@pytest.fixture
def reranker(scorer: Scorer, tmp_path: Path) -> Reranker:
    return Reranker(scorer, image_gallery(scorer, tmp_path / "images"))


@pytest.fixture
def package() -> Any:
    return pytest.importorskip("rerankers", reason="needs the package rerankers, of the group dev")


@pytest.fixture
def ranker(package: Any, reranker: Reranker) -> GalleryRanker:
    return GalleryRanker(reranker)


def test_without_the_package_an_error_says_how_to_install_it(
    reranker: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [*sys.modules]:
        if name.partition(".")[0] == "rerankers":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "rerankers", None)
    with refused(UnavailableError, "rerankers", hint="pip install"):
        GalleryRanker(reranker)


def test_it_ranks_as_the_reranker_in_the_packages_own_types(
    ranker: GalleryRanker, reranker: Reranker
) -> None:
    from rerankers.documents import Document
    from rerankers.models.ranker import BaseRanker
    from rerankers.results import RankedResults, Result

    found = ranker.rank(QUERY, ["a", "b", "c", "d"], doc_ids=ASKED)

    expected = reranker.rerank(QUERY, ASKED)
    assert isinstance(ranker, BaseRanker)
    assert type(found) is RankedResults
    assert (found.query, found.has_scores) == (QUERY, True)
    assert found.results_count() == len(ASKED)
    for rank, (one, item) in enumerate(zip(found, expected, strict=True), start=1):
        assert (type(one), type(one.document)) == (Result, Document)
        assert (one.rank, one.doc_id) == (rank, item.id)
        assert one.score == pytest.approx(item.similarity, abs=1e-6)
        assert one.text == "abcd"[item.index]
        assert one.document_type == "image"
        assert one.document.metadata == (item.metadata or {})
    best = expected[0]
    assert found.top_k(2)[0].doc_id == best.id
    assert found.get_score_by_docid(best.id) == found[0].score


def forms(make: Callable[..., Any]) -> dict[str, tuple[tuple[Any, ...], list[Any]]]:
    """The arguments of a call by how documents are named, and the `doc_id`s of its results."""
    named = [make(text="a photo", doc_id=id_) for id_ in ASKED]
    pictures = [make(document_type="image", image_path=id_, base64="aGk=") for id_ in ASKED]
    return {
        "texts": ((ASKED,), [0, 1, 2, 3]),
        "texts with ids": ((["a", "b", "c", "d"], ASKED), ASKED),
        "documents": ((named,), ASKED),
        "documents of images": ((pictures,), [0, 1, 2, 3]),
        "documents with ids": ((pictures, ASKED), ASKED),
        "an array of ids": ((["a", "b", "c", "d"], np.array(ASKED)), ASKED),
    }


@pytest.mark.parametrize("form", [*forms(dict)])
def test_documents_are_named_in_every_form(
    ranker: GalleryRanker, reranker: Reranker, package: Any, form: str
) -> None:
    arguments, doc_ids = forms(package.Document)[form]

    found = ranker.rank(QUERY, *arguments)

    expected = reranker.rerank(QUERY, ASKED)
    assert [one.doc_id for one in found] == [doc_ids[index] for index in expected.indices]


def test_documents_of_the_caller_are_left_as_they_are(ranker: GalleryRanker, package: Any) -> None:
    document = package.Document("a", doc_id="photo2.jpg", metadata={"row": "mine", "more": 1})

    (found,) = ranker.rank(QUERY, document)
    (replaced,) = ranker.rank(QUERY, document, metadata=[{"other": 3}])

    assert found.document is not document
    assert found.metadata == {"row": "mine", "more": 1}
    assert replaced.metadata == {"row": 2, "other": 3}
    assert document.metadata == {"row": "mine", "more": 1}


def test_a_single_document_and_none(ranker: GalleryRanker) -> None:
    (one,) = ranker.rank(QUERY, "a", "photo1.jpg")
    assert one.doc_id == "photo1.jpg"
    assert ranker.rank(QUERY, []).results_count() == 0


def test_an_integer_stands_for_the_text_of_its_digits(ranker: GalleryRanker) -> None:
    with refused(DataError, 1, got=repr("7")):
        ranker.rank(QUERY, ["a"], doc_ids=[7])


def test_it_ranks_in_a_thread_beside_an_event_loop(ranker: GalleryRanker) -> None:
    async def both() -> Any:
        return await asyncio.gather(
            ranker.rank_async(QUERY, ASKED), ranker.rank_async(CAPTIONS[0], ["a"], ["photo1.jpg"])
        )

    first, second = asyncio.run(both())

    assert [one.doc_id for one in first] == [one.doc_id for one in ranker.rank(QUERY, ASKED)]
    assert second[0].doc_id == "photo1.jpg"


def test_a_score_is_the_similarity(ranker: GalleryRanker, reranker: Reranker, package: Any) -> None:
    (expected,) = reranker.rerank(QUERY, ["photo4.jpg"])
    documents = ["photo4.jpg", package.Document("a", doc_id="photo4.jpg")]
    assert [ranker.score(QUERY, one) for one in documents] == [expected.similarity] * 2


def test_captions_are_ranked_for_an_image(package: Any, scorer: Scorer, tmp_path: Path) -> None:
    captions = caption_gallery(scorer, tmp_path / "captions")
    ranker = GalleryRanker(
        Reranker(scorer, captions, images=image_gallery(scorer, tmp_path / "images"))
    )

    by_id = ranker.rank("photo4.jpg", CAPTION_IDS)
    by_regions = ranker.rank(REGIONS[4], CAPTION_IDS)

    assert [one.text for one in by_id] == [one.text for one in by_regions]
    assert by_id[0].document_type == "text"
    assert by_id[0].caption == CAPTIONS[CAPTION_IDS.index(by_id[0].text)]


def test_ids_that_are_missing_are_left_out_only_if_the_reranker_does(
    package: Any, scorer: Scorer, tmp_path: Path
) -> None:
    gallery = image_gallery(scorer, tmp_path / "images")
    lenient = GalleryRanker(Reranker(scorer, gallery, missing="skip"))
    strict = GalleryRanker(Reranker(scorer, gallery))

    (found,) = lenient.rank(QUERY, ["none.jpg", "photo1.jpg"])

    assert (found.doc_id, found.text) == (1, "photo1.jpg")
    for ranker in (lenient, strict):
        with refused(DataError, got=naming("none.jpg")):
            ranker.score(QUERY, "none.jpg")


def test_what_does_not_fit_is_refused(ranker: GalleryRanker, package: Any) -> None:
    with refused(InputError, "doc_ids", expected=naming(2), got=1):
        ranker.rank(QUERY, ["a", "b"], doc_ids=["photo1.jpg"])
    with refused(InputError, "metadata", expected=naming(1), got=2):
        ranker.rank(QUERY, ["photo1.jpg"], metadata=[{}, {}])
    with refused(InputError, "docs", expected=naming(), got="int"):
        ranker.rank(QUERY, [7])
    with refused(InputError, "document 0", expected=naming("doc_id"), got=naming()):
        ranker.rank(QUERY, package.Document(document_type="image", base64="aGk="))
