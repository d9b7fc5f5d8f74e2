"""The full matrix of images x captions, tile by tile.

`score_tiles` is the one way from encoded inputs to logits: it cuts the matrix into tiles, and for
each of them gathers the inputs, runs the members' scorers, and hands the logits to `Results`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.base import Engine, Graph
from sgraf_deploy.engines.buffers import Buffer
from sgraf_deploy.engines.ensemble import Logits, ensemble_logits, not_a_number, similarities
from sgraf_deploy.engines.ranks import RankCounter
from sgraf_deploy.errors import EngineMemoryError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.context import Context, ScoredPairs
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.share import Share
from sgraf_deploy.runtime.tiles import Tile
from sgraf_deploy.runtime.top_k import BestFinder
from sgraf_deploy.runtime.workers import Turns

Matrix = NDArray[np.float32]
"""(images, captions) float32."""


def similarity_matrix(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    out: Matrix | None,
    progress: Progress | None = None,
) -> Matrix:
    """Score every image with every caption: similarities (images, captions) float32.

    They are written into `out` if it is given; `outputs.check_outputs` has checked it.
    """
    result = np.empty((len(images), len(captions)), np.float32) if out is None else out
    score_tiles(context, images, captions, Results(similarities=result), progress)
    return result


def ensemble_matrix(context: Context, images: EncodedImages, captions: EncodedCaptions) -> Matrix:
    """Compute the logits to rank by, (images, captions) float32, all members combined."""
    result = np.empty((len(images), len(captions)), np.float32)
    score_tiles(context, images, captions, Results(ensemble=result))
    return result


def member_matrices(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    out: Mapping[str, Matrix] | None,
    progress: Progress | None = None,
) -> dict[str, Matrix]:
    """Compute every member's logits (images, captions) float32.

    They are written into the arrays of `out`, by member, if it is given.
    """
    shape = (len(images), len(captions))
    result = {
        name: np.empty(shape, np.float32) if out is None else out[name] for name in context.configs
    }
    score_tiles(context, images, captions, Results(members=result), progress)
    return result


def member_matrix(
    context: Context, images: EncodedImages, captions: EncodedCaptions, member: str, share: Share
) -> Matrix:
    """Compute one member's logits (images, captions) float32; `share` is the whole matrix."""
    result = np.empty((len(images), len(captions)), np.float32)
    graphs = {member: context.engine.open(member, "scorer")}
    results = Results(members={member: result})
    WholeTiles(context, images, captions, share, graphs, context.scored, results).run(None)
    return result


@dataclass(frozen=True, eq=False)
class Results:
    """Where the logits of tiles go; None for what is not wanted.

    `similarities` and `ensemble` (images, captions) float32 take the members' logits combined,
    `members` each member's, `best` keeps the best of those combined, and `ranks` counts the logits
    where they lie on the device.
    """

    similarities: Matrix | None = None
    ensemble: Matrix | None = None
    members: Mapping[str, Matrix] | None = None
    best: BestFinder | None = None
    ranks: RankCounter | None = None

    def add(
        self,
        engine: Engine,
        rows: slice,
        columns: NDArray[np.int64],
        buffers: Mapping[str, Buffer],
    ) -> None:
        """Take a tile's logits by member; several threads may add different tiles.

        Raises DataError for a logit that is NaN.
        """
        on_host = (self.similarities, self.ensemble, self.members, self.best)
        if any(each is not None for each in on_host):
            logits = {name: engine.fetch(buffer) for name, buffer in buffers.items()}
            for tile in logits.values():
                check_numbers(tile, rows.start, columns)
            if self.similarities is not None:
                self.similarities[rows, columns] = similarities(ensemble_logits(logits))
            if self.ensemble is not None:
                self.ensemble[rows, columns] = ensemble_logits(logits)
            for name, matrix in (self.members or {}).items():
                matrix[rows, columns] = logits[name]
            if self.best is not None:
                self.best.add(rows.start, columns, ensemble_logits(logits))
        if self.ranks is not None:  # Last: a tile that does not fit must not have been counted.
            self.ranks.add(rows.start, columns.astype(np.int32), buffers)


def score_tiles(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    results: Results,
    progress: Progress | None = None,
) -> None:
    """Score the whole matrix; see `score_share`."""
    share = Share.whole(context.tiling(len(images), captions.lengths))
    score_share(context, images, captions, results, share, context.scored, progress)


def score_share(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    results: Results,
    share: Share,
    scored: ScoredPairs,
    progress: Progress | None = None,
) -> None:
    """Score tiles one by one, by as many threads as the engine wants.

    Nothing of a tile is kept once its results are written. A tile that does not fit the engine's
    memory is scored in halves, and every result is written once. Raises EngineMemoryError if not
    even one pair fits, and DataError for a logit that is NaN.
    """
    graphs = context.graphs("scorer")
    WholeTiles(context, images, captions, share, graphs, scored, results).run(progress)


@dataclass(frozen=True, eq=False)
class TileScoring(ABC):
    """What every thread that scores tiles needs: inputs and the members' graphs."""

    context: Context
    images: EncodedImages
    captions: EncodedCaptions
    share: Share
    graphs: Mapping[str, Graph]
    scored: ScoredPairs
    """Where the pairs that each member scores are counted."""

    def run(self, progress: Progress | None) -> None:
        """Score all tiles of the share, by as many threads as the engine wants."""
        context, share = self.context, self.share
        work = context.share("scorer", share, share.pairs, progress)
        context.pool.run(work, self.score_turns, context.engine.workers)

    def score_turns(self, tiles: Turns[Tile]) -> None:
        """Score tiles until none is left; every thread does this with its turns."""
        block: tuple[slice, int] | None = None
        texts: dict[str, dict[str, Buffer]] = {}
        for tile in tiles:
            try:
                if block != (tile.captions, tile.words):
                    block, texts = None, {}  # Freed before the next captions are gathered.
                    rows = self.share.tiling.order[tile.captions]
                    texts = self.captions.inputs(self.graphs, rows, tile.words)
                    block = tile.captions, tile.words
                self.score_tile(tile, texts)
            except EngineMemoryError as error:
                tiles.halve(tile, error)

    @abstractmethod
    def score_tile(self, tile: Tile, texts: Mapping[str, dict[str, Buffer]]) -> None:
        """Score a tile and add its results, last of all: it may run out of memory before.

        `texts` are the inputs of the tile's captions by member. Whatever else a tile needs is freed
        when this returns.
        """

    def inputs(self, tile: Tile, member: str) -> dict[str, Buffer]:
        """Gather what a member's scorer takes of a tile's images."""
        first = self.share.first_image
        rows = slice(tile.first_image - first, tile.end_image - first)
        return self.images.members[member].inputs(self.graphs[member], self.context.engine, rows)


@dataclass(frozen=True, eq=False)
class WholeTiles(TileScoring):
    """Tiles whose pairs are scored by every member."""

    results: Results

    def score_tile(self, tile: Tile, texts: Mapping[str, dict[str, Buffer]]) -> None:
        """Run every member's scorer, and add the results."""
        logits = {}
        for name, graph in self.graphs.items():
            logits[name] = graph.run(self.inputs(tile, name) | texts[name])["logits"]
        columns = self.share.tiling.order[tile.captions]
        self.results.add(self.context.engine, tile.images, columns, logits)
        self.scored.add(dict.fromkeys(logits, tile.units))


def check_numbers(logits: Logits, first_image: int, columns: NDArray[np.integer[Any]]) -> None:
    """Raise DataError, which names the pair, for a tile with a logit that is NaN."""
    wrong = np.isnan(logits)
    if wrong.any():
        row, column = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
        raise not_a_number(first_image + int(row), int(columns[column]))
