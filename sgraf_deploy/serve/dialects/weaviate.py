"""Weaviate's reranker-transformers: `property` beside `documents` in, `scores` out."""

from __future__ import annotations

from typing import Any

from sgraf_deploy.serve.dialects.dialect import Dialect, Reply

MISSING = 0.0
"""The score of an image that the gallery lacks: below every similarity."""


def render(reply: Reply) -> dict[str, Any]:
    """A score for each document, in the order in which they were sent: Weaviate sorts them."""
    found = {item.index: item.similarity for item in reply.answer.items}
    return {
        "scores": [
            {"document": reply.text(index), "score": found.get(index, MISSING)}
            for index in range(len(reply.sent))
        ]
    }


WEAVIATE = Dialect("weaviate", "documents", None, None, render, frozenset({"property"}))
