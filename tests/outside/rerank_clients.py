"""Reranks with every installed client of the list, unchanged: `rerank_clients.py URL KEY REQUESTS`.

It runs in an environment of the clients' own, without this package. REQUESTS is JSON: by direction
`query`, `documents` and how many of the best are asked for. It prints JSON: by client and direction
the indices in the order of the answer, and their scores.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable
from typing import Any

Found = list[tuple[int, float]]
Ask = Callable[[str, list[str], int], Found]
MODEL = "sgraf"


def cohere(url: str, key: str) -> dict[str, Ask]:
    import cohere

    def by(client: Any) -> Ask:
        def ask(query: str, documents: list[str], top: int) -> Found:
            found = client.rerank(model=MODEL, query=query, documents=documents, top_n=top)
            return [(item.index, item.relevance_score) for item in found.results]

        return ask

    return {
        "cohere Client": by(cohere.Client(key, base_url=url)),
        "cohere ClientV2": by(cohere.ClientV2(key, base_url=url)),
    }


def langchain_cohere(url: str, key: str) -> dict[str, Ask]:
    import cohere
    from langchain_cohere import CohereRerank
    from pydantic import SecretStr

    def ask(query: str, documents: list[str], top: int) -> Found:
        client = cohere.ClientV2(key, base_url=url)
        reranker = CohereRerank(
            client=client, model=MODEL, top_n=top, cohere_api_key=SecretStr(key)
        )
        found = reranker.rerank(documents, query)
        return [(item["index"], item["relevance_score"]) for item in found]

    return {"langchain-cohere": ask}


def litellm(url: str, key: str) -> dict[str, Ask]:
    import litellm

    litellm.telemetry = False

    def by(provider: str, base: str) -> Ask:
        def ask(query: str, documents: list[str], top: int) -> Found:
            found = litellm.rerank(
                model=f"{provider}/{MODEL}",
                query=query,
                documents=documents,
                top_n=top,
                api_base=base,
                api_key=key,
            )
            return [(item["index"], item["relevance_score"]) for item in found.results]

        return ask

    bases = {
        "cohere": f"{url}/v2/rerank",
        "jina_ai": f"{url}/v1/rerank",
        "hosted_vllm": url,
        "huggingface": url,
    }
    return {f"litellm {provider}": by(provider, base) for provider, base in bases.items()}


def rerankers(url: str, key: str) -> dict[str, Ask]:
    from rerankers.models.api_rankers import APIRanker

    def by(provider: str, path: str) -> Ask:
        reranker = APIRanker(MODEL, key, provider, verbose=0, url=url + path)

        def ask(query: str, documents: list[str], top: int) -> Found:
            found = reranker.rank(query, documents).top_k(top)
            return [(int(item.document.doc_id), item.score) for item in found]

        return ask

    paths = {
        "cohere": "/v2/rerank",
        "jina": "/v1/rerank",
        "voyage": "/v1/rerank",
        "text-embeddings-inference": "/rerank",
    }
    return {f"rerankers {provider}": by(provider, path) for provider, path in paths.items()}


def voyageai(url: str, key: str) -> dict[str, Ask]:
    import voyageai

    def ask(query: str, documents: list[str], top: int) -> Found:
        client = voyageai.Client(api_key=key, base_url=f"{url}/v1", max_retries=0)
        found = client.rerank(query, documents, model=MODEL, top_k=top)
        return [(item.index, item.relevance_score) for item in found.results]

    return {"voyageai": ask}


CLIENTS = (cohere, langchain_cohere, litellm, rerankers, voyageai)


def main() -> None:
    url, key, requests = sys.argv[1:]
    for variable in ("HF_HUB_OFFLINE", "DO_NOT_TRACK", "LITELLM_LOCAL_MODEL_COST_MAP"):
        os.environ[variable] = "True"
    found: dict[str, dict[str, Found]] = {}
    for clients in CLIENTS:
        if importlib.util.find_spec(clients.__name__) is None:
            continue
        for name, ask in clients(url, key).items():
            found[name] = {
                direction: ask(asked["query"], asked["documents"], asked["top"])
                for direction, asked in json.loads(requests).items()
            }
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
