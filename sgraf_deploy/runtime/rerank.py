"""One query against candidates: what it means, and the ranked answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.logits import Logits, similarities

Direction = Literal["image_to_text", "text_to_image"]


@dataclass(frozen=True, eq=False)
class RerankResult:
    """The best candidates, the best first; ties stand in the order of the candidates.

    `indices` (k,) int64 are rows of the candidates as they were given, `similarities` and `logits`
    (k,) float32. The order is that of the logits.
    """

    direction: Direction
    indices: NDArray[np.int64]
    similarities: NDArray[np.float32]
    logits: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.indices)


def query_direction(query: object) -> Direction:
    """Which way a query asks, by what it is; InputError for what is no query.

    An image is one EncodedImages or regions (regions, img_dim); a caption is one EncodedCaptions,
    a string, or token ids (words,).
    """
    if isinstance(query, EncodedImages | EncodedCaptions):
        if len(query) != 1:
            raise InputError("query", expected="one image or caption", got=f"{len(query)} of them")
        return "image_to_text" if isinstance(query, EncodedImages) else "text_to_image"
    if isinstance(query, str):
        return "text_to_image"
    if isinstance(query, np.ndarray):
        if query.ndim == 2 and query.dtype.kind == "f":
            return "image_to_text"
        if query.ndim == 1 and query.dtype.kind in "iu":
            return "text_to_image"
    elif isinstance(query, Sequence) and all(isinstance(x, int | np.integer) for x in query):
        return "text_to_image"
    raise InputError(
        "query",
        expected="one string, one caption's token ids, one image's regions (regions, img_dim), "
        "or one encoded image or caption",
        got=_describe(query),
    )


def rank(direction: Direction, logits: Logits, top_k: int | None) -> RerankResult:
    """The `top_k` best of logits (candidates,), all of them if it is None."""
    order = np.argsort(-logits, kind="stable")[:top_k]
    best = logits[order]
    return RerankResult(direction, order, similarities(best), best)


def check_top_k(top_k: object) -> None:
    """Raise InputError unless `top_k` is None or a positive integer."""
    if top_k is None:
        return
    if isinstance(top_k, bool) or not isinstance(top_k, int | np.integer) or top_k < 1:
        raise InputError("top_k", expected="a positive integer, or None for all", got=top_k)


def _describe(query: Any) -> str:
    if isinstance(query, np.ndarray):
        return f"{query.dtype} of shape {query.shape}"
    return type(query).__name__
