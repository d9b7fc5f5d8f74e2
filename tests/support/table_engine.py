"""An engine whose logits are read from tables: for tests of what is done with awkward logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GraphName
from sgraf_deploy.data.vocabulary import SPECIAL_WORDS
from sgraf_deploy.engines.base import Engine, EngineOptions, Graph
from sgraf_deploy.engines.bounds import ANY, Range
from sgraf_deploy.engines.buffers import Array, Sizes
from sgraf_deploy.errors import EngineMemoryError
from sgraf_deploy.runtime import EncodedCaptions, EncodedImages, Scorer, TileShape
from sgraf_deploy.runtime.tiles import TileLimits

Tables = Mapping[str, NDArray[np.float32]]
"""Logits (images, captions) float32 by member."""

TILE = TileShape(3, 4)


class TableEngine(Engine):
    """Its images and captions carry their rows in their global vectors.

    Of texts only those that begin with a word of `small_models.WORDS` are encoded: `word7 …` is the
    caption in column 7.
    """

    name = "fake"
    executed = "fp32"
    exact_pairs = True

    def __init__(
        self, bundle: Bundle, tables: Tables, ranges: Mapping[str, Range] | None = None
    ) -> None:
        super().__init__(bundle, "fp32", EngineOptions())
        self.tables, self.ranges = tables, ranges or {}
        self.runs: list[tuple[str, GraphName, int]] = []
        self.memory: int | None = None
        """The most pairs of a run; None for any number."""

    @classmethod
    def check_available(cls, device: str) -> None:
        return None

    def logit_range(self, member: str) -> Range:
        return self.ranges.get(member, ANY)

    def _open(self, member: str, graph: GraphName) -> Graph:
        return _TableGraph(self, member, graph)


class _TableGraph(Graph):
    def __init__(self, engine: TableEngine, member: str, name: GraphName) -> None:
        super().__init__(engine.signature(member, name))
        self._engine, self._member, self._name = engine, member, name

    def _run(
        self, inputs: Mapping[str, Array], outputs: Mapping[str, Array], sizes: Sizes
    ) -> dict[str, Array]:
        if self._name == "text_encoder":
            token_ids = inputs["token_ids"]
            words, overall = (spec.axes[-1] for spec in self.signature.outputs)
            columns = token_ids[:, 1] - len(SPECIAL_WORDS)  # After <start>.
            zeros = np.zeros((*token_ids.shape, int(words)), np.float32)
            return self._named([zeros, _rows(columns, int(overall))], outputs)
        rows, columns = (
            inputs[name][:, 0].astype(np.int64) for name in ("image_global", "text_global")
        )
        table = self._engine.tables[self._member]
        if self._name == "scorer":
            logits = table[np.ix_(rows, columns)]
        else:
            logits = table[rows[inputs["image_index"]], columns[inputs["caption_index"]]]
        if self._engine.memory is not None and logits.size > self._engine.memory:
            raise EngineMemoryError("no room")
        self._engine.runs.append((self._member, self._name, logits.size))
        return self._named([logits], outputs)


def table_scorer(
    bundle: Bundle,
    tables: Tables,
    *,
    prune: bool = True,
    ranges: Mapping[str, Range] | None = None,
    tile: TileShape = TILE,
) -> tuple[Scorer, EncodedImages, EncodedCaptions]:
    """A scorer of tables, with the images and captions that stand for their rows and columns."""
    engine = TableEngine(bundle, tables, ranges)
    made = Scorer(bundle, engine, precision="fp32", limits=TileLimits(), tile=tile, prune=prune)
    images, captions = next(iter(tables.values())).shape
    image_rows: dict[str, dict[str, Any]] = {}
    caption_rows: dict[str, dict[str, Any]] = {}
    lengths = (1 + np.arange(captions) * 5 % 3).astype(np.int32)
    for name, member in bundle.manifest.members.items():
        config = member.config
        image_rows[name] = {
            "region_embeddings": np.zeros((images, config.regions, config.embed), np.float32),
            "image_global": _numbered(images, config.embed),
            "region_gram": np.zeros((images, config.regions, config.regions), np.float32),
        }
        caption_rows[name] = {
            "word_embeddings": np.zeros((int(lengths.sum()), config.embed), np.float32),
            "text_global": _numbered(captions, config.embed),
        }
    return made, made.images_from_host(image_rows), made.captions_from_host(lengths, caption_rows)


def _numbered(rows: int, embed: int) -> NDArray[np.float32]:
    return _rows(np.arange(rows), embed)


def _rows(rows: NDArray[Any], embed: int) -> NDArray[np.float32]:
    return np.repeat(rows.astype(np.float32)[:, None], embed, axis=1)
