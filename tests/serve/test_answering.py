"""`Answerer`: the scores of `Scorer`, whatever shares a batch with whatever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.refusals import refused
from support.scorers import CAPTIONS, assert_logits
from support.served import Server
from support.small_galleries import CAPTION_IDS, IMAGE_IDS, REGIONS, caption_gallery

from sgraf_deploy.engines.ensemble import ensemble_logits
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.serve.answering import Answerer
from sgraf_deploy.serve.calls import (
    Answer,
    Call,
    CaptionText,
    NotFoundError,
    Part,
    RegionsArray,
    StoredId,
    UnprocessableError,
    merge,
)


def random_call(seed: int) -> Call:
    """A call in either direction, of images of both forms."""
    rng = np.random.default_rng(seed)

    def image(row: int) -> Part:
        stored = rng.random() < 0.7
        return StoredId(IMAGE_IDS[row]) if stored else RegionsArray(REGIONS[row])

    count = int(rng.integers(1, 9))
    top_n = None if rng.random() < 0.5 else int(rng.integers(1, 5))
    if rng.random() < 0.5:
        documents = tuple(image(row) for row in rng.integers(0, 9, count))
        return Call(CaptionText(CAPTIONS[rng.integers(7)]), documents, top_n)
    texts = tuple(CaptionText(CAPTIONS[row]) for row in rng.integers(0, 7, count))
    return Call(image(int(rng.integers(9))), texts, top_n)


def logit(scorer: Scorer, one: Part, other: Part) -> float:
    caption, image = (one, other) if isinstance(one, CaptionText) else (other, one)
    assert isinstance(caption, CaptionText)
    regions = REGIONS[IMAGE_IDS.index(image.id)] if isinstance(image, StoredId) else image.array  # type: ignore[union-attr]
    return float(ensemble_logits(scorer.logits(regions[None], [caption.text]))[0, 0])


def check(scorer: Scorer, call: Call, answer: Any) -> None:
    """The answer ranks the documents by the logits that `Scorer` computes of each alone."""
    assert isinstance(answer, Answer)
    expected = np.array([logit(scorer, call.query, one) for one in call.documents], np.float32)
    indices = [item.index - call.first for item in answer.items]
    assert len(set(indices)) == len(indices) == min(call.top_n or call.pairs, call.pairs)
    found = np.array([item.logit for item in answer.items], np.float32)
    assert_logits(found, expected[indices])
    assert (np.diff(found) <= 0).all()
    left_out = np.delete(expected, indices)
    assert not len(left_out) or left_out.max() <= found[-1] + 1e-4


@pytest.mark.parametrize("chunk_bytes", [1, 2000, 1 << 28], ids=["one", "a few", "all"])
def test_a_batch_is_answered_as_each_call_alone(server: Server, chunk_bytes: int) -> None:
    calls = [random_call(seed) for seed in range(40)]
    answerer = Answerer(server.scorer, server.gallery, chunk_bytes=chunk_bytes)

    answers = answerer.answer_many(calls)

    assert len(answers) == len(calls)
    for call, answer in zip(calls, answers, strict=True):
        check(server.scorer, call, answer)


def test_parts_of_a_call_merge_into_its_answer(server: Server) -> None:
    answerer = Answerer(server.scorer, server.gallery)
    for seed in range(12):
        call = random_call(seed)
        parts = [call.part(start, min(call.pairs, start + 3)) for start in range(0, call.pairs, 3)]
        answers = [one for one in answerer.answer_many(parts) if isinstance(one, Answer)]
        (whole,) = answerer.answer_many([call])
        assert isinstance(whole, Answer)
        merged = merge(call, answers)
        assert [item.index for item in merged.items] == [item.index for item in whole.items]
        assert merged.tokens == whole.tokens


def test_one_that_cannot_be_answered_leaves_the_others_alone(server: Server) -> None:
    calls = [random_call(0), random_call(1)]
    bad = [
        Call(CaptionText(" "), (StoredId("photo0.jpg"),)),
        Call(CaptionText("a dog"), (StoredId("photo0.jpg"), StoredId("none")), first=5),
        Call(StoredId("none"), (CaptionText("a dog"),), missing="skip"),
        Call(StoredId("photo0.jpg"), (CaptionText("a"), CaptionText("dog " * 600)), first=10),
    ]

    answers = Answerer(server.scorer, server.gallery).answer_many([*bad, *calls])

    expected = (
        *((UnprocessableError, "query"), (NotFoundError, "documents[6]")),
        *((NotFoundError, "query"), (UnprocessableError, "documents[11]")),
    )
    for answer, (kind, param) in zip(answers, expected, strict=False):
        assert type(answer) is kind
        assert answer.param == param
    for call, answer in zip(calls, answers[4:], strict=True):
        check(server.scorer, call, answer)


def test_missing_documents_are_left_out_where_that_is_asked_for(server: Server) -> None:
    ids = ("none", "photo3.jpg", "other", "photo1.jpg")
    call = Call(CaptionText("a dog"), tuple(map(StoredId, ids)), missing="skip", first=100)
    nothing = Call(CaptionText("a dog"), (StoredId("none"),), missing="skip")

    some, none = Answerer(server.scorer, server.gallery).answer_many([call, nothing])

    assert isinstance(some, Answer)
    assert isinstance(none, Answer)
    assert sorted(item.index for item in some.items) == [101, 103]
    assert some.missing == (100, 102)
    assert len(some.warnings) == 1
    assert (none.items, none.missing) == ((), (0,))


def test_equal_documents_keep_their_order(server: Server) -> None:
    call = Call(CaptionText("a dog"), (StoredId("photo3.jpg"),) * 5, 3)
    (answer,) = Answerer(server.scorer, server.gallery).answer_many([call])

    assert isinstance(answer, Answer)
    assert [item.index for item in answer.items] == [0, 1, 2]


def test_equal_documents_are_scored_once(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that rounds by the place in a batch cannot order them."""
    scored: list[int] = []
    best_pairs = Scorer.best_pairs

    def by_place(self: Scorer, *sides: Any) -> Any:
        found = best_pairs(self, *sides)
        scored.append(len(sides[2]))
        return found + np.arange(len(found), dtype=np.float32)

    monkeypatch.setattr(Scorer, "best_pairs", by_place)
    other, sent = IMAGE_IDS.index("photo1.jpg"), RegionsArray(REGIONS[3])
    half = REGIONS[3].astype(np.float16).astype(np.float32)
    calls = [
        Call(CaptionText("a dog"), (StoredId("photo3.jpg"), StoredId("photo1.jpg")) * 5),
        Call(StoredId("photo3.jpg"), (CaptionText("a dog"), CaptionText("a cat")) * 3),
        Call(CaptionText("a dog"), (sent, RegionsArray(REGIONS[other]), RegionsArray(REGIONS[3]))),
        Call(CaptionText("a dog"), (RegionsArray(half), RegionsArray(half.astype(np.float16)))),
    ]
    answers = Answerer(server.scorer, server.gallery).answer_many(calls)

    assert sum(scored) == 2 + 1 + 2 + 1
    for answer in answers:
        assert isinstance(answer, Answer)
        by_logit: dict[float, list[int]] = {}
        for item in answer.items:
            by_logit.setdefault(item.logit, []).append(item.index)
        assert len(by_logit) < len(answer.items)
        assert all(indices == sorted(indices) for indices in by_logit.values())
    assert [len({item.logit for item in answer.items}) for answer in answers] == [2, 2, 2, 1]  # type: ignore[union-attr]


def test_images_are_gathered_once_each(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[str] = []
    gather = Gallery.gather

    def watched(self: Gallery, scorer: Scorer, ids: Any, **more: Any) -> Any:
        gathered.extend(ids)
        return gather(self, scorer, ids, **more)

    monkeypatch.setattr(Gallery, "gather", watched)
    documents = tuple(StoredId(IMAGE_IDS[row]) for row in (4, 2, 4))
    calls = [Call(CaptionText(text), documents) for text in CAPTIONS]
    Answerer(server.scorer, server.gallery).answer_many(calls)

    assert sorted(gathered) == [IMAGE_IDS[2], IMAGE_IDS[4]]


def test_what_took_how_long_is_told(server: Server) -> None:
    told: dict[str, float] = {}

    class Timings:
        def encoded(self, seconds: float) -> None:
            told["encoded"] = seconds

        def scored(self, seconds: float) -> None:
            told["scored"] = seconds

    ticks = iter(range(100))
    answerer = Answerer(
        server.scorer, server.gallery, timings=Timings(), clock=lambda: float(next(ticks))
    )
    answerer.answer_many([Call(CaptionText("a dog"), (StoredId("photo3.jpg"),))])

    assert told == {"encoded": 2.0, "scored": 1.0}


def test_captions_that_come_again_are_not_encoded_again(server: Server) -> None:
    answerer = Answerer(server.scorer, server.gallery)
    call = Call(CaptionText("a dog on a far beach"), tuple(map(StoredId, IMAGE_IDS[:3])))
    hits, misses = server.scorer.cache_counts()
    first, second = (answerer.answer_many([call])[0] for _ in range(2))

    assert first == second
    assert server.scorer.cache_counts() == (hits + 1, misses + 1)


def test_resident_images_are_counted(server: Server) -> None:
    gallery = Gallery.open(server.gallery.path, resident="all")
    answerer = Answerer(server.scorer, gallery)
    call = Call(CaptionText("a dog"), tuple(map(StoredId, IMAGE_IDS[:3])))
    assert gallery.resident_counts() == (0, 0)
    for _ in range(3):
        answerer.answer_many([call])

    assert gallery.resident_counts() == (6, 3)


def test_a_gallery_of_captions_or_of_another_model_is_refused(
    server: Server, tmp_path: Path, sgr_bundle: Any
) -> None:
    captions = caption_gallery(server.scorer, tmp_path / "captions")
    assert len(captions) == len(CAPTION_IDS)
    with refused(InputError, "gallery"):
        Answerer(server.scorer, captions)
    from sgraf_deploy.runtime import load

    with load(sgr_bundle, engine="ort") as other, refused(DataError):
        Answerer(other, server.gallery)
