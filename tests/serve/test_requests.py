"""Which requests are scored, which are refused, and in what shape."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import numpy as np
import pytest
from support.scorers import CAPTIONS
from support.served import Client, Server, by_scorer, by_scorer_captions, regions_of
from support.small_galleries import IMAGE_IDS, REGIONS

from sgraf_deploy.serve.settings import Limits, Settings

CAPTION = "a dog runs on the beach"
NAMED = [f"image:{id_}" for id_ in IMAGE_IDS[:3]]
GOOD = {"query": CAPTION, "documents": NAMED}


def check_refused(
    response: httpx.Response, status: int, code: str | None = None, param: str | None = None
) -> str:
    """The response is an error in the one shape; returns its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"error", "detail"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["detail"] == body["error"]["message"] != ""
    assert isinstance(body["error"]["type"], str)
    assert "Traceback" not in response.text
    if code is not None:
        assert body["error"]["code"] == code
    assert body["error"]["param"] == param
    return str(body["detail"])


def refusal(server: Server, body: Any, settings: Settings | None = None) -> httpx.Response:
    return server.talk(lambda client: client.rerank(body), settings)


ID = {"image_id": "photo1.jpg"}
REGIONS_SENT = regions_of(REGIONS[1])
HALF = regions_of(REGIONS[1].astype(np.float16))
TOO_LARGE = regions_of(np.full_like(REGIONS[1], np.finfo(np.float32).max))


@pytest.mark.parametrize("query", [CAPTION, {"text": CAPTION}], ids=["string", "object"])
@pytest.mark.parametrize("one", ["image:photo1.jpg", ID, REGIONS_SENT], ids=["string", "id", "raw"])
def test_images_of_every_form(server: Server, query: Any, one: Any) -> None:
    body = {"query": query, "documents": [NAMED[0], one, {"image_id": "photo2.jpg"}]}

    found = server.talk(lambda client: client.ranked(body))

    assert found == by_scorer(server.scorer, CAPTION, IMAGE_IDS[:3])


@pytest.mark.parametrize(
    "query", ["image:photo1.jpg", ID, REGIONS_SENT], ids=["string", "id", "raw"]
)
@pytest.mark.parametrize("wrapped", [False, True], ids=["strings", "objects"])
def test_captions_of_every_form(server: Server, query: Any, wrapped: bool) -> None:
    documents = [{"text": text} for text in CAPTIONS] if wrapped else CAPTIONS

    found = server.talk(lambda client: client.ranked({"query": query, "documents": documents}))

    assert found == by_scorer_captions(server.scorer, "photo1.jpg", CAPTIONS)


def test_half_precision_regions_are_taken(server: Server) -> None:
    body = {"query": CAPTION, "documents": [HALF]}
    (item,) = server.talk(lambda client: client.rerank(body)).json()["results"]

    expected = server.scorer.rerank(CAPTION, REGIONS[1:2].astype(np.float16).astype(np.float32))
    assert abs(item["relevance_score"] - expected[0].similarity) <= 2e-6


def test_a_query_for_images_is_a_caption_whatever_it_begins_with(server: Server) -> None:
    query = "image:photo1.jpg"
    found = server.talk(lambda client: client.ranked({"query": query, "documents": NAMED}))

    assert found == by_scorer(server.scorer, query, IMAGE_IDS[:3])


def test_a_text_is_never_read_as_an_id(server: Server) -> None:
    body = {"query": ID, "documents": [{"text": "image:photo1.jpg"}, "a cat"]}
    found = server.talk(lambda client: client.ranked(body))

    texts = ["image:photo1.jpg", "a cat"]
    assert found == by_scorer_captions(server.scorer, "photo1.jpg", texts)


@pytest.mark.parametrize("prefix", ["img://", "", "photo"])
def test_the_prefix_can_be_chosen(server: Server, prefix: str) -> None:
    documents = [f"{prefix}{id_}" for id_ in IMAGE_IDS[:4]]
    body = {"query": CAPTION, "documents": documents}
    settings = Settings(image_prefix=prefix)

    found = server.talk(lambda client: client.ranked(body), settings)

    assert found == by_scorer(server.scorer, CAPTION, IMAGE_IDS[:4])


def test_an_empty_prefix_is_for_documents_alone(server: Server) -> None:
    settings = Settings(image_prefix="")
    documents = [{"text": text} for text in CAPTIONS]

    found = server.talk(
        lambda client: client.ranked({"query": ID, "documents": documents}), settings
    )
    assert found == by_scorer_captions(server.scorer, "photo1.jpg", CAPTIONS)

    response = refusal(server, {"query": "photo1.jpg", "documents": documents}, settings)
    check_refused(response, 422, "same_kind", "query")


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"query": CAPTION, "documents": CAPTIONS}, "same_kind", "query"),
        ({"query": {"text": CAPTION}, "documents": ["a cat"]}, "same_kind", "query"),
        ({"query": ID, "documents": NAMED}, "same_kind", "query"),
        ({"query": REGIONS_SENT, "documents": NAMED}, "same_kind", "query"),
        ({"query": CAPTION, "documents": [*NAMED, "a cat"]}, "mixed_documents", "documents[3]"),
        ({"query": ID, "documents": ["a cat", "image:x"]}, "mixed_documents", "documents[1]"),
        ({"query": CAPTION, "documents": []}, "no_documents", "documents"),
        ({"query": CAPTION, "documents": None}, "missing_field", "documents"),
        ({"query": None, "documents": NAMED}, "missing_field", "query"),
        ({"query": CAPTION}, "missing_field", "documents"),
        ({"query": CAPTION, "texts": [7]}, "no_document", "texts[0]"),
        ({"query": CAPTION, "documents": [NAMED[0], None]}, "no_document", "documents[1]"),
        ({"query": CAPTION, "documents": "image:x"}, "no_document", "documents"),
        ({"query": 7, "documents": NAMED}, "no_document", "query"),
        ({"query": {"content": [{"type": "text"}]}, "documents": NAMED}, "no_document", "query"),
        ({"query": CAPTION, "documents": [{"image": "x"}]}, "no_document", "documents[0]"),
        ({"query": CAPTION, "documents": [{**ID, "title": "x"}]}, "no_document", "documents[0]"),
        ({"query": CAPTION, "documents": [{}]}, "no_document", "documents[0]"),
        ({"query": CAPTION, "documents": [{**ID, "text": "x"}]}, "no_document", "documents[0]"),
        ({"query": CAPTION, "documents": [{**ID, "dtype": "x"}]}, "no_document", "documents[0]"),
        ({"query": "", "documents": NAMED}, "invalid_caption", "query"),
        ({"query": ID, "documents": ["a cat", " "]}, "invalid_caption", "documents[1]"),
        ({"query": ID, "documents": ["dog " * 600]}, "invalid_caption", "documents[0]"),
        ({"query": ID, "texts": ["a", "dog " * 600]}, "invalid_caption", "texts[1]"),
        ({"query": CAPTION, "documents": [NAMED[0], TOO_LARGE]}, "invalid_regions", "documents[1]"),
        ({**GOOD, "top_n": -1}, "invalid_field", "top_n"),
        ({**GOOD, "top_n": "3"}, "invalid_field", "top_n"),
        ({**GOOD, "top_n": True}, "invalid_field", "top_n"),
        ({**GOOD, "top_k": 1.5}, "invalid_field", "top_k"),
        ({**GOOD, "return_documents": "yes"}, "invalid_field", "return_documents"),
        ({**GOOD, "model": 7}, "invalid_field", "model"),
    ],
)
def test_what_cannot_be_scored_is_refused_by_name(
    server: Server, body: Any, code: str, param: str
) -> None:
    check_refused(refusal(server, body), 422, code, param)


@pytest.mark.parametrize(
    "address",
    [
        *("http://x/y.jpg", "https://x", " HTTPS://X/Y ", "file:///etc/passwd", "s3://b/k"),
        *("data:image/png;base64,iVBORw0KGgo=", "data:,hello world", "gopher://127.0.0.1:1/_x"),
    ],
)
@pytest.mark.parametrize("field", ["query", "documents"])
def test_addresses_are_neither_fetched_nor_scored(server: Server, address: str, field: str) -> None:
    for one in (address, {"text": address}):
        body = {**GOOD, "query": one} if field == "query" else {"query": ID, "documents": [one]}
        param = "query" if field == "query" else "documents[0]"
        check_refused(refusal(server, body), 422, "address", param)


@pytest.mark.parametrize("model", ["sgraf", "rerank-english-v3.0", None])
def test_a_served_name_is_answered_with_itself(server: Server, model: str | None) -> None:
    settings = Settings(models=("sgraf", "rerank-english-v3.0"))
    answer = server.talk(lambda client: client.rerank({**GOOD, "model": model}), settings).json()

    assert answer["model"] == (model or "sgraf")


def test_another_model_is_not_found_and_names_those_that_are(server: Server) -> None:
    settings = Settings(models=("one", "two/three"))
    response = refusal(server, {**GOOD, "model": "gpt"}, settings)

    message = check_refused(response, 404, "model_not_found", "model")
    assert "one" in message
    assert "two/three" in message


def test_the_models_are_listed(server: Server) -> None:
    settings = Settings(models=("one", "two"))
    answer = server.talk(lambda client: client.http.get("/v1/models"), settings).json()

    assert answer["object"] == "list"
    assert [model["id"] for model in answer["data"]] == ["one", "two"]


def test_an_image_that_the_gallery_lacks_is_named(server: Server) -> None:
    body = {"query": CAPTION, "documents": [NAMED[0], "image:none.jpg"]}
    message = check_refused(refusal(server, body), 404, "image_not_found", "documents[1]")
    assert "none.jpg" in message

    body = {"query": "image:none.jpg", "documents": CAPTIONS}
    for settings in (None, Settings(missing="skip")):
        check_refused(refusal(server, body, settings), 404, "image_not_found", "query")


@pytest.mark.parametrize("texts", [False, True], ids=["results", "tei"])
def test_missing_images_can_be_left_out(server: Server, texts: bool) -> None:
    field = "texts" if texts else "documents"
    documents = ["image:none.jpg", *NAMED, "image:other.jpg"]
    settings = Settings(missing="skip")

    answer = refusal(server, {"query": CAPTION, field: documents}, settings).json()

    items = answer if texts else answer["results"]
    expected = [row + 1 for row in by_scorer(server.scorer, CAPTION, IMAGE_IDS[:3])]
    assert [item["index"] for item in items] == expected
    if not texts:
        assert len(answer["meta"]["warnings"]) == 1


def test_weaviate_gets_the_lowest_score_for_a_missing_image(server: Server) -> None:
    documents = ["image:none.jpg", *NAMED]
    body = {"query": CAPTION, "documents": documents, "property": "name"}
    answer = refusal(server, body, Settings(missing="skip")).json()

    assert [item["document"] for item in answer["scores"]] == documents
    scores = [item["score"] for item in answer["scores"]]
    assert scores[0] == 0.0
    assert min(scores[1:]) > 0


def test_long_captions_can_be_cut(server: Server) -> None:
    long = "a red cat sleeps " * 200
    cut = " ".join(long.split()[:510])
    settings = Settings(truncate=True)
    body = {"query": ID, "documents": ["dog", long, "a" * 100_000]}

    answer = refusal(server, body, settings).json()

    expected = by_scorer_captions(server.scorer, "photo1.jpg", ["dog", cut, "a" * 8000])
    assert [item["index"] for item in answer["results"]] == expected
    assert answer["usage"]["total_tokens"] == 3 + 512 + 3
    scores = dict(_scores(server.scorer.rerank(REGIONS[1], ["dog", cut, "a" * 8000])))
    for item in answer["results"]:
        assert abs(item["relevance_score"] - scores[item["index"]]) <= 2e-6
    assert len(answer["meta"]["warnings"]) == 2
    assert "documents[1]" in answer["meta"]["warnings"][0]
    check_refused(
        refusal(server, {"query": ID, "documents": [" "]}, settings), 422, None, "documents[0]"
    )


def test_foreign_fields_are_ignored_with_a_warning(server: Server) -> None:
    foreign = {"max_tokens_per_doc": 7, "truncation": True, "rank_fields": ["x"], "user": None}
    answer = refusal(server, {**GOOD, **foreign}).json()

    warnings = answer["meta"]["warnings"]
    assert len(warnings) == 3
    assert all(name in " ".join(warnings) for name in list(foreign)[:3])


@pytest.mark.parametrize(
    ("echo", "documents", "expected"),
    [
        (True, ["image:photo0.jpg"], {"text": "image:photo0.jpg"}),
        (True, [{"image_id": "photo0.jpg"}], {"image_id": "photo0.jpg"}),
        (True, [REGIONS_SENT], {"dtype": "float32", "shape": [4, 6]}),
        (False, ["image:photo0.jpg"], None),
        (None, ["image:photo0.jpg"], None),
    ],
)
def test_documents_come_back_only_if_asked_for(
    server: Server, echo: bool | None, documents: Any, expected: Any
) -> None:
    body = {"query": CAPTION, "documents": documents, "return_documents": echo}
    (item,) = refusal(server, body).json()["results"]

    assert item.get("document") == expected
    assert ("document" in item) == (echo is True)


@pytest.mark.parametrize("top_n", [2.0, 2, 10**30, 1e30])
def test_a_whole_number_is_one_however_it_is_written(server: Server, top_n: float) -> None:
    answer = server.talk(lambda client: client.rerank({**GOOD, "top_n": top_n}))

    assert len(answer.json()["results"]) == min(top_n, 3)


def test_a_client_shortens_its_deadline(server: Server) -> None:
    async def hurry(client: Client, given: str) -> httpx.Response:
        return await client.rerank(GOOD, headers={"x-timeout-ms": given})

    seen = []

    async def conversation(client: Client) -> None:
        submit = client.batcher.submit

        async def watched(call: Any, timeout_s: float, **more: Any) -> Any:
            seen.append(timeout_s)
            return await submit(call, timeout_s, **more)

        client.batcher.submit = watched  # type: ignore[method-assign]
        for given in ("15000", "600000"):
            assert (await hurry(client, given)).status_code == 200
        for given in ("0", "-1", "x", "1e3", "9999999999"):
            check_refused(await hurry(client, given), 400, None, "x-timeout-ms")

    server.talk(conversation, Settings(timeout_s=20.0))
    assert seen == [15.0, 20.0]


@pytest.mark.parametrize("partial", [None, "true", "false"])
def test_an_answer_names_its_bundle(server: Server, partial: str | None) -> None:
    headers = {} if partial is None else {"x-allow-partial": partial}
    response = server.talk(lambda client: client.rerank(GOOD, headers=headers))

    assert response.status_code == 200
    assert response.headers["x-sgraf-bundle"] == server.scorer.bundle.sha256
    assert "x-sgraf-partial" not in response.headers


def test_partial_answers_are_taken_or_not(server: Server) -> None:
    headers = {"x-allow-partial": "yes"}
    response = server.talk(lambda client: client.rerank(GOOD, headers=headers))

    check_refused(response, 400, None, "x-allow-partial")


def test_many_requests_at_once_are_answered_as_each_alone(server: Server) -> None:
    rng = np.random.default_rng(0)
    images = [
        (CAPTIONS[rng.integers(len(CAPTIONS))], [IMAGE_IDS[i] for i in rng.permutation(9)[:count]])
        for count in rng.integers(1, 10, 60)
    ]
    texts = [(IMAGE_IDS[i], list(rng.permutation(CAPTIONS))) for i in rng.integers(0, 9, 40)]
    bodies: list[Any] = [
        {"query": q, "documents": [f"image:{i}" for i in ids]} for q, ids in images
    ]
    bodies += [{"query": f"image:{q}", "documents": captions} for q, captions in texts]

    async def all_at_once(client: Client) -> list[httpx.Response]:
        return await asyncio.gather(*(client.rerank(body) for body in bodies))

    found = server.talk(all_at_once)

    expected = [dict(_scores(server.scorer.rerank(q, _rows(ids)))) for q, ids in images]
    for q, captions in texts:
        expected.append(dict(_scores(server.scorer.rerank(REGIONS[IMAGE_IDS.index(q)], captions))))
    for response, scores in zip(found, expected, strict=True):
        items = response.json()["results"]
        assert {item["index"] for item in items} == set(scores)
        assert all(abs(one["relevance_score"] - scores[one["index"]]) <= 2e-6 for one in items)


def _rows(ids: list[str]) -> Any:
    return REGIONS[[IMAGE_IDS.index(id_) for id_ in ids]]


def _scores(result: Any) -> list[tuple[int, float]]:
    return [(item.index, item.similarity) for item in result]


def test_more_documents_than_the_limit_are_too_many(server: Server) -> None:
    settings = Settings(limits=Limits(documents=3))
    assert refusal(server, GOOD, settings).status_code == 200
    body = {"query": CAPTION, "documents": [*NAMED, NAMED[0]]}
    check_refused(refusal(server, body, settings), 413, "too_many_documents", "documents")
