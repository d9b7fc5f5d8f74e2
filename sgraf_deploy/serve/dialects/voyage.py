"""Voyage: `top_k` in, the results in `data`."""

from __future__ import annotations

from typing import Any

from sgraf_deploy.serve.dialects.dialect import Dialect, Reply


def render(reply: Reply) -> dict[str, Any]:
    """`document` is absent unless it was asked for, and then a string."""
    data: list[dict[str, Any]] = []
    for item in reply.answer.items:
        result: dict[str, Any] = {"index": item.index, "relevance_score": item.similarity}
        if reply.echo:
            result["document"] = reply.text(item.index)
        data.append(result)
    return {
        "object": "list",
        "data": data,
        "model": reply.model,
        "usage": {"total_tokens": reply.answer.tokens},
        "meta": {"warnings": list(reply.answer.warnings)},
    }


VOYAGE = Dialect("voyage", "documents", "top_k", "return_documents", render)
