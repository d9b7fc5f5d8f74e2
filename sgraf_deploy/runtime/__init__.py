"""Engines behind one small interface, and the scorer that encodes, scores and reranks on them."""

from __future__ import annotations

from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.ranks import RankCounts
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

__all__ = [
    "EncodedCaptions",
    "EncodedImages",
    "Encoding",
    "EngineOptions",
    "PairList",
    "PartialRanks",
    "PartialTopK",
    "RankCounts",
    "RankThresholds",
    "RankedItem",
    "RerankCall",
    "RerankResult",
    "Scorer",
    "TilePlan",
    "TileShape",
    "Tiling",
    "TopK",
    "load",
]
