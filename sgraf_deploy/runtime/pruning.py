"""Ranks of the ensemble, counted exactly although most pairs are scored by its first member alone.

The cheapest member scores every tile. Where the bounds of the ensemble's logit (`engines.bounds`)
lie on one side of both thresholds of a pair, the other members cannot change a count. The pairs
that are left are scored by the next member, and so on; the counts are those of all members, bit for
bit, because a pair has the same bits alone and in a tile. Which pairs are left, and how they are
scored, depends on logits alone, never on time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.base import Graph
from sgraf_deploy.engines.bounds import Rest
from sgraf_deploy.engines.buffers import Buffer
from sgraf_deploy.engines.ensemble import Logits, combine_logits
from sgraf_deploy.engines.ranks import HostRankCounter, Thresholds, check_finite
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.context import Context, ScoredPairs
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.matrix import TileScoring
from sgraf_deploy.runtime.share import Share
from sgraf_deploy.runtime.tiles import Tile

WHOLE = 7 / 8
"""The share of a tile's pairs from which on a member scores all of them. Measured: engine native
takes 1.1 to 1.2 times as long for a pair that is listed as for one of a whole tile."""


def count_pruned(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    thresholds: Thresholds,
    share: Share,
    scored: ScoredPairs,
    progress: Progress | None = None,
) -> HostRankCounter:
    """Count what some tiles hold of the ensemble, whose thresholds alone are given.

    Raises DataError for a logit that is not finite, among those that are computed: the first
    member's of every pair, and every member's of the ground truths, which hold every image and
    every caption.
    """
    counter = HostRankCounter(context.engine.fetch, thresholds)
    scorers, listed = context.graphs("scorer"), context.graphs("pair_scorer")
    inputs = context, images, captions, share, scorers, scored
    (model,) = thresholds.captions
    _RankedTiles(*inputs, listed, context.rests(), counter, model).run(progress)
    return counter


@dataclass(frozen=True, eq=False)
class PrunedTiles(TileScoring):
    """Tiles of which members score those pairs alone that are needed."""

    listed: Mapping[str, Graph]
    """The members' pair scorers."""
    rests: Sequence[Rest]
    """The members that come after the first, after the first two, …"""

    def score_needed(
        self, tile: Tile, name: str, texts: dict[str, Buffer], needed: NDArray[np.bool_]
    ) -> tuple[Logits, int]:
        """A member's logits (images, captions), 0 where they are not needed; how many it scored."""
        if not needed.any():
            return np.zeros(needed.shape, np.float32), 0
        engine, inputs = self.context.engine, self.inputs(tile, name) | texts
        if np.count_nonzero(needed) >= WHOLE * needed.size:
            return engine.fetch(self.graphs[name].run(inputs)["logits"]), needed.size
        logits = np.zeros(needed.shape, np.float32)
        caption_index, image_index = (each.astype(np.int32) for each in np.nonzero(needed.T))
        index = {"image_index": image_index, "caption_index": caption_index}
        index = {axis: engine.put(rows) for axis, rows in index.items()}
        listed = self.listed[name].run(inputs | index)["logits"]
        logits[image_index, caption_index] = engine.fetch(listed)
        return logits, len(image_index)


@dataclass(frozen=True, eq=False)
class _RankedTiles(PrunedTiles):
    """Tiles of which each member scores the pairs whose ranks those before it left open."""

    counter: HostRankCounter
    model: str
    """The ensemble's name."""

    def score_tile(self, tile: Tile, texts: Mapping[str, dict[str, Buffer]]) -> None:
        """Score a tile by member after member, as far as it is open, and count it."""
        columns = self.share.tiling.order[tile.captions].astype(np.int32)
        needed = np.ones((tile.end_image - tile.first_image, len(columns)), bool)
        lower, upper = np.empty((2, *needed.shape), np.float32)
        found: dict[str, Logits] = {}
        scored: dict[str, int] = {}
        for name, rest in zip(self.context.by_cost, [*self.rests, None], strict=True):
            found[name], scored[name] = self.score_needed(tile, name, texts[name], needed)
            check_finite(found[name], tile.first_image, columns)
            if rest is None:
                break
            known = [each[needed] for each in found.values()]
            lower[needed], upper[needed] = rest.bounds(known)
            needed &= self.counter.open(tile.first_image, columns, lower, upper)
        # In the bundle's order, in which sums of several members are rounded.
        lower[needed] = combine_logits(*(found[name][needed] for name in self.graphs))
        self.counter.count(tile.first_image, columns, {self.model: lower})
        self.scored.add(scored)
