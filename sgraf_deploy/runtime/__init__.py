"""Engines behind one small interface, and the scorer that encodes, scores and reranks on them."""

from __future__ import annotations

from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.ranks import RankCounts
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.encoding import Encoding
from sgraf_deploy.runtime.requests import RerankCall
from sgraf_deploy.runtime.rerank import RankedItem, RerankResult
from sgraf_deploy.runtime.scorer import Scorer, load
from sgraf_deploy.runtime.tiles import TilePlan, TileShape, Tiling

__all__ = [
    "EncodedCaptions",
    "EncodedImages",
    "Encoding",
    "EngineOptions",
    "RankCounts",
    "RankedItem",
    "RerankCall",
    "RerankResult",
    "Scorer",
    "TilePlan",
    "TileShape",
    "Tiling",
    "load",
]
