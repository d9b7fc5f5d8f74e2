"""Requests as clients and search engines send them, recorded, and the answers that they read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from support.scorers import CAPTIONS
from support.served import Client, Server, by_scorer, by_scorer_captions
from support.small_galleries import IMAGE_IDS

IDS = IMAGE_IDS[:5]
NAMED = [f"image:{id_}" for id_ in IDS]
CAPTION = "a dog runs on the beach"
COUNT = len(IDS)


@dataclass(frozen=True)
class Recorded:
    """One request of a client: its path, its fields beside query and documents, its headers."""

    client: str
    path: str
    more: dict[str, Any]
    documents: str = "documents"
    headers: dict[str, str] = field(default_factory=dict)


KEYED = {"authorization": "Bearer k", "content-type": "application/json"}
SGRAF = {"model": "sgraf"}

RESULTS = [
    Recorded("cohere ClientV2", "/v2/rerank", {**SGRAF, "top_n": COUNT}, headers=KEYED),
    Recorded("cohere Client", "/v1/rerank", {**SGRAF, "return_documents": True}),
    Recorded(
        "langchain-cohere",
        "/v2/rerank",
        {**SGRAF, "top_n": COUNT, "max_tokens_per_doc": None},
        headers={"x-client-name": "langchain:partner"},
    ),
    Recorded("llama-index cohere", "/v2/rerank", {**SGRAF, "top_n": COUNT}),
    Recorded("llama-index jinaai", "/v1/rerank", {**SGRAF, "top_n": COUNT}),
    Recorded("rerankers jina", "/v1/rerank", {**SGRAF, "top_n": COUNT, "return_documents": True}),
    Recorded("rerankers cohere", "/v2/rerank", {**SGRAF, "top_n": COUNT, "return_documents": True}),
    Recorded("litellm cohere", "/v2/rerank", {**SGRAF, "top_n": COUNT}),
    Recorded("litellm jina_ai", "/v1/rerank", {**SGRAF, "top_n": COUNT}),
    Recorded("litellm hosted_vllm", "/rerank", {**SGRAF, "top_n": COUNT}),
    Recorded("langchain JinaRerank", "/v1/rerank", {**SGRAF, "top_n": COUNT}),
    Recorded(
        "infinity-client", "/rerank", {**SGRAF, "return_documents": False, "raw_scores": False}
    ),
    Recorded("haystack JinaRanker", "/v1/rerank", {**SGRAF, "top_n": None}),
    Recorded("vLLM's own", "/v1/rerank", {**SGRAF, "top_n": 0, "truncate_prompt_tokens": -1}),
    Recorded("Milvus vllm", "/rerank", {}),
    Recorded("Milvus vllm with parameters", "/rerank", {"truncate_prompt_tokens": 100}),
    Recorded("OpenSearch connector", "/v1/rerank", {**SGRAF, "top_n": COUNT}),
    Recorded("Elasticsearch custom", "/v1/rerank", SGRAF),
]
TEI = [
    Recorded("llama-index tei", "/rerank", {}, "texts"),
    Recorded("rerankers TEI", "/rerank", {**SGRAF, "top_n": COUNT, "return_text": True}, "texts"),
    Recorded("litellm huggingface", "/rerank", {"truncation_direction": "Right"}, "texts"),
    Recorded("Milvus tei", "/rerank", {"truncate": True, "raw_scores": False}, "texts"),
]
VOYAGE = [
    Recorded("voyageai", "/v1/rerank", {**SGRAF, "top_k": COUNT, "truncation": True}),
    Recorded("voyageai without top_k", "/v1/rerank", {**SGRAF, "top_k": None, "truncation": True}),
    Recorded("rerankers voyage", "/v1/rerank", {**SGRAF, "top_k": COUNT, "return_documents": True}),
]
WEAVIATE = [Recorded("Weaviate", "/rerank", {"property": ""})]


async def sent(client: Client, one: Recorded, query: str, documents: list[str]) -> httpx.Response:
    body = {"query": query, one.documents: documents, **one.more}
    response = await client.http.post(one.path, json=body, headers=one.headers)
    assert response.status_code == 200, response.text
    return response


def order(answer: Any) -> list[int]:
    """The indices of an answer in any dialect but Weaviate's, the best first."""
    items = answer if isinstance(answer, list) else answer.get("results", answer.get("data"))
    return [item["index"] for item in items]


def names(recorded: list[Recorded]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("one", recorded, ids=lambda one: one.client)


@names([*RESULTS, *TEI, *VOYAGE])
def test_images_come_in_the_order_of_the_scorer(server: Server, one: Recorded) -> None:
    response = server.talk(lambda client: sent(client, one, CAPTION, NAMED))

    assert order(response.json()) == by_scorer(server.scorer, CAPTION, IDS)


@names([*RESULTS, *TEI, *VOYAGE])
def test_captions_come_in_the_order_of_the_scorer(server: Server, one: Recorded) -> None:
    more = {key: value for key, value in one.more.items() if value != COUNT}
    whole = Recorded(one.client, one.path, more, one.documents, one.headers)
    if one in VOYAGE:
        whole.more["top_k"] = None
    response = server.talk(lambda client: sent(client, whole, "image:photo3.jpg", CAPTIONS))

    expected = by_scorer_captions(server.scorer, "photo3.jpg", CAPTIONS)
    assert order(response.json()) == expected


@names(RESULTS)
def test_results_have_what_their_clients_read(server: Server, one: Recorded) -> None:
    answer = server.talk(lambda client: sent(client, one, CAPTION, NAMED)).json()

    assert answer["object"] == "rerank"
    assert {type(answer[name]) for name in ("id", "model")} == {str}
    assert isinstance(answer["created"], int)
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] == 8
    version = {"version": "2" if one.path.startswith("/v2") else "1"}
    assert answer["meta"]["api_version"] == version
    assert isinstance(answer["meta"]["billed_units"]["search_units"], int)
    foreign = {"raw_scores", "truncate_prompt_tokens"} & set(one.more)
    assert len(answer["meta"]["warnings"]) == len(foreign)
    for item in answer["results"]:
        assert 0 < item["relevance_score"] < 1
        if one.more.get("return_documents"):
            assert item["document"] == {"text": NAMED[item["index"]]}
        else:
            assert "document" not in item


@names(TEI)
def test_tei_has_what_its_clients_read(server: Server, one: Recorded) -> None:
    answer = server.talk(lambda client: sent(client, one, CAPTION, NAMED)).json()

    assert isinstance(answer, list)
    assert len(answer) == COUNT
    for item in answer:
        assert 0 < item["score"] < 1
        assert item.get("text") == (NAMED[item["index"]] if "return_text" in one.more else None)


@names(VOYAGE)
def test_voyage_has_what_its_clients_read(server: Server, one: Recorded) -> None:
    answer = server.talk(lambda client: sent(client, one, CAPTION, NAMED)).json()

    assert answer["object"] == "list"
    assert isinstance(answer["usage"]["total_tokens"], int)
    for item in answer["data"]:
        asked = "return_documents" in one.more
        assert item.get("document") == (NAMED[item["index"]] if asked else None)


def test_weaviate_gets_a_score_for_each_document_in_their_order(server: Server) -> None:
    (one,) = WEAVIATE
    answer = server.talk(lambda client: sent(client, one, CAPTION, NAMED)).json()

    assert [item["document"] for item in answer["scores"]] == NAMED
    scores = [item["score"] for item in answer["scores"]]
    best_first = sorted(range(COUNT), key=lambda row: -scores[row])
    assert best_first == by_scorer(server.scorer, CAPTION, IDS)


def test_weaviate_asks_for_meta_when_it_starts(server: Server) -> None:
    answer = server.talk(lambda client: client.http.get("/meta"))

    assert answer.status_code == 200
    assert isinstance(answer.json(), dict)


def test_a_body_without_a_content_type_is_json(server: Server) -> None:
    async def bare(client: Client) -> httpx.Response:
        content = b'{"query": "a dog", "documents": ["image:photo0.jpg"], "property": ""}'
        return await client.http.post("/rerank", content=content)

    assert server.talk(bare).status_code == 200


@pytest.mark.parametrize("top_n", [1, 3, 50])
def test_the_best_are_answered_with_their_scores(server: Server, top_n: int) -> None:
    body = {"query": CAPTION, "documents": NAMED, "top_n": top_n}
    answer = server.talk(lambda client: client.rerank(body)).json()

    rows = [IMAGE_IDS.index(id_) for id_ in IDS]
    from support.small_galleries import REGIONS

    expected = list(server.scorer.rerank(CAPTION, REGIONS[rows], top_n))
    assert [item["index"] for item in answer["results"]] == [item.index for item in expected]
    for item, one in zip(answer["results"], expected, strict=True):
        assert abs(item["relevance_score"] - one.similarity) <= 2e-6
