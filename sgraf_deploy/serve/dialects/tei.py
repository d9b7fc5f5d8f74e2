"""text-embeddings-inference: `texts` in, a list out."""

from __future__ import annotations

from typing import Any

from sgraf_deploy.serve.dialects.dialect import Dialect, Reply


def render(reply: Reply) -> list[dict[str, Any]]:
    """`text` is absent unless it was asked for."""
    items = reply.answer.items
    if not reply.echo:
        return [{"index": item.index, "score": item.similarity} for item in items]
    return [
        {"index": item.index, "text": reply.text(item.index), "score": item.similarity}
        for item in items
    ]


TEI = Dialect("tei", "texts", "top_n", "return_text", render)
