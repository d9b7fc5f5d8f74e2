"""Jina, vLLM, and Cohere's versions 1 and 2: `documents` in, `results` out."""

from __future__ import annotations

from typing import Any

from sgraf_deploy.serve.dialects.dialect import Dialect, Reply


def render(reply: Reply) -> dict[str, Any]:
    """`document` is absent unless it was asked for, and then an object."""
    results: list[dict[str, Any]] = []
    for item in reply.answer.items:
        result: dict[str, Any] = {"index": item.index, "relevance_score": item.similarity}
        if reply.echo:
            result["document"] = reply.echoed(item.index)
        results.append(result)
    tokens = reply.answer.tokens
    return {
        "id": reply.id,
        "object": "rerank",
        "created": reply.created,
        "model": reply.model,
        "results": results,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "meta": {
            "api_version": {"version": reply.version},
            "billed_units": {"search_units": 1},
            "warnings": list(reply.answer.warnings),
        },
    }


RESULTS = Dialect("results", "documents", "top_n", "return_documents", render)
