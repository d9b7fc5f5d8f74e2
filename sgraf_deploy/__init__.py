"""Deploys SGRAF image-text models as fast rerankers that provably match the PyTorch reference.

with sgraf_deploy.load("f8k.sgraf") as scorer:
    images = scorer.encode_images(regions)
    captions = scorer.encode_captions(["a dog runs on the beach"])
    similarities = scorer.score(images, captions)  # (images, captions) float32
    best = scorer.rerank("a dog runs on the beach", images, top_k=10)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sgraf_deploy import errors
    from sgraf_deploy.bundle.bundle import Bundle
    from sgraf_deploy.engines.base import EngineOptions
    from sgraf_deploy.engines.ranks import RankCounts
    from sgraf_deploy.explanation.explain import explain
    from sgraf_deploy.explanation.values import Explanation
    from sgraf_deploy.gallery.adaptor import GalleryRanker
    from sgraf_deploy.gallery.ranked import RankedRecord, Reranked, RerankRequest
    from sgraf_deploy.gallery.reranker import Reranker
    from sgraf_deploy.gallery.store import Gallery
    from sgraf_deploy.runtime.best import PairList
    from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
    from sgraf_deploy.runtime.encoding import Encoding
    from sgraf_deploy.runtime.partial import PartialRanks
    from sgraf_deploy.runtime.requests import RerankCall
    from sgraf_deploy.runtime.rerank import RankedItem, RerankResult
    from sgraf_deploy.runtime.scorer import Scorer, load
    from sgraf_deploy.runtime.thresholds import RankThresholds
    from sgraf_deploy.runtime.tiles import TilePlan, TileShape, Tiling
    from sgraf_deploy.runtime.top_k import PartialTopK, TopK

__version__ = "0.2.0"

__all__ = [
    "Bundle",
    "EncodedCaptions",
    "EncodedImages",
    "Encoding",
    "EngineOptions",
    "Explanation",
    "Gallery",
    "GalleryRanker",
    "PairList",
    "PartialRanks",
    "PartialTopK",
    "RankCounts",
    "RankThresholds",
    "RankedItem",
    "RankedRecord",
    "RerankCall",
    "RerankRequest",
    "RerankResult",
    "Reranked",
    "Reranker",
    "Scorer",
    "TilePlan",
    "TileShape",
    "Tiling",
    "TopK",
    "__version__",
    "errors",
    "explain",
    "load",
]

_HOMES = {
    "Bundle": "sgraf_deploy.bundle.bundle",
    "EncodedCaptions": "sgraf_deploy.runtime.encoded",
    "EncodedImages": "sgraf_deploy.runtime.encoded",
    "Encoding": "sgraf_deploy.runtime.encoding",
    "EngineOptions": "sgraf_deploy.engines.base",
    "Explanation": "sgraf_deploy.explanation.values",
    "Gallery": "sgraf_deploy.gallery.store",
    "GalleryRanker": "sgraf_deploy.gallery.adaptor",
    "PairList": "sgraf_deploy.runtime.best",
    "PartialRanks": "sgraf_deploy.runtime.partial",
    "PartialTopK": "sgraf_deploy.runtime.top_k",
    "RankCounts": "sgraf_deploy.engines.ranks",
    "RankThresholds": "sgraf_deploy.runtime.thresholds",
    "RankedItem": "sgraf_deploy.runtime.rerank",
    "RankedRecord": "sgraf_deploy.gallery.ranked",
    "RerankCall": "sgraf_deploy.runtime.requests",
    "RerankRequest": "sgraf_deploy.gallery.ranked",
    "RerankResult": "sgraf_deploy.runtime.rerank",
    "Reranked": "sgraf_deploy.gallery.ranked",
    "Reranker": "sgraf_deploy.gallery.reranker",
    "Scorer": "sgraf_deploy.runtime.scorer",
    "TilePlan": "sgraf_deploy.runtime.tiles",
    "TileShape": "sgraf_deploy.runtime.tiles",
    "Tiling": "sgraf_deploy.runtime.tiles",
    "TopK": "sgraf_deploy.runtime.top_k",
    "explain": "sgraf_deploy.explanation.explain",
    "load": "sgraf_deploy.runtime.scorer",
}
"""Public name -> the module that it is imported from on first use."""


def __getattr__(name: str) -> object:
    """Import a public name on first use, so that `import sgraf_deploy` itself stays light."""
    if name == "errors":
        return importlib.import_module("sgraf_deploy.errors")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
