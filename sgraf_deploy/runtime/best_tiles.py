"""The best candidates of all queries of some tiles, without every member's every pair; exactly.

Tiles are searched in rounds. In a round's first pass the cheapest member scores every pair, and its
logits are held, with the most that the ensemble's can be (`engines.bounds`). In three more passes
all members score pairs, from the highest bounds down: those that are among the k highest of their
image or of their caption; then those down to halfway between these and the k-th best that are known
by now; then all that can still reach it, of their image or of their caption. No list can hold the
others.

What is scored depends on logits and the tiles alone: lists are compared as they are between passes,
never as another thread is changing them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.bounds import Rest
from sgraf_deploy.engines.buffers import Buffer
from sgraf_deploy.engines.ensemble import Logits, combine_logits
from sgraf_deploy.engines.tallies import Touched
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.context import Context, ScoredPairs
from sgraf_deploy.runtime.encoded import EncodedCaptions, EncodedImages
from sgraf_deploy.runtime.matrix import TileScoring, check_numbers
from sgraf_deploy.runtime.pruning import WHOLE, PrunedTiles
from sgraf_deploy.runtime.share import Share
from sgraf_deploy.runtime.tiles import Tile
from sgraf_deploy.runtime.top_k import BestFinder, LastBest

ROUND = 1 << 23
"""The most pairs of a round, of which 9 bytes each are held: more than MSCOCO's 1,000 images x
5,000 captions, so that an ordinary evaluation is one round."""

PASSES = 4
"""How often the tiles of a round are gone through. The halfway pass pays: of 500 x 2,500 pairs of
Flickr8k SGR scored 38 % without it for lists of 10, and 11.7 % with it, as with another one. If the
final lists were known before, it would be 11.3 %."""

Columns = NDArray[np.int64]


def may_gain(k: int, touched: Touched) -> bool:
    """Whether lists of `k` are so short that asking one member first can gain."""
    return k < WHOLE * min(len(touched.images), len(touched.captions))


def search_best(
    context: Context,
    images: EncodedImages,
    captions: EncodedCaptions,
    share: Share,
    scored: ScoredPairs,
    finder: BestFinder,
    progress: Progress | None = None,
) -> None:
    """Put the best candidates that some tiles hold into `finder`, of all members combined.

    Raises DataError for a logit that is NaN, among those that are computed: the first member's of
    every pair, and every member's of the best of every image and every caption.
    """
    search = _Search(context, images, captions, scored, finder, finder.begin())
    passes = _Passes(progress, share.pairs)
    for part, box in _rounds(share):
        search.run(part, _Held.of(box), passes)


@dataclass(frozen=True, eq=False)
class _Search:
    """What all rounds work with."""

    context: Context
    images: EncodedImages
    captions: EncodedCaptions
    scored: ScoredPairs
    finder: BestFinder
    likely: BestFinder
    """Finds the best by the first member alone."""

    def run(self, share: Share, held: _Held, passes: _Passes) -> None:
        """Search the tiles of a round."""
        inputs = self.context, self.images, self.captions, share
        rests, graphs = self.context.rests(), self.context.graphs("scorer")
        first = {name: graphs.pop(name) for name in self.context.by_cost[:1]}
        _FirstTiles(*inputs, first, self.scored, held, self.likely, rests[0]).run(passes.begin())
        listed = self.context.graphs("pair_scorer")
        more = (*inputs, graphs, self.scored, listed, rests, held, self.finder)
        guess = self.likely.last()
        goal = guess.upper(rests[0])
        _NextTiles(*more, self.finder.last(), goal, guess).run(passes.begin())
        last = self.finder.last()
        _NextTiles(*more, last, goal.halfway(last)).run(passes.begin())
        _NextTiles(*more, self.finder.last()).run(passes.begin())


@dataclass(frozen=True, eq=False)
class _Held:
    """What is known of the pairs of a round, by image and by place in the tiling's order."""

    box: Tile
    """All images x all captions of the round's tiles."""
    first: Logits
    """The first member's logits."""
    upper: Logits
    """The most that the ensemble's can be, by the first member's."""
    done: NDArray[np.bool_]
    """Whether all members have scored the pair, or enough to tell that no list can hold it."""

    @classmethod
    def of(cls, box: Tile) -> _Held:
        """Nothing is known yet."""
        shape = box.end_image - box.first_image, box.end_caption - box.first_caption
        first, upper = np.empty(shape, np.float32), np.empty(shape, np.float32)
        return cls(box, first, upper, np.zeros(shape, bool))

    def place(self, tile: Tile) -> tuple[slice, slice]:
        """Where a tile's pairs are."""
        row, column = self.box.first_image, self.box.first_caption
        return (
            slice(tile.first_image - row, tile.end_image - row),
            slice(tile.first_caption - column, tile.end_caption - column),
        )


@dataclass(frozen=True, eq=False)
class _FirstTiles(TileScoring):
    """Tiles whose pairs the first member scores; its logits are held, and its own best kept."""

    held: _Held
    best: BestFinder
    rest: Rest

    def score_tile(self, tile: Tile, texts: Mapping[str, dict[str, Buffer]]) -> None:
        ((name, graph),) = self.graphs.items()
        found = graph.run(self.inputs(tile, name) | texts[name])["logits"]
        logits: Logits = self.context.engine.fetch(found)
        columns, place = self.share.tiling.order[tile.captions], self.held.place(tile)
        check_numbers(logits, tile.first_image, columns)
        self.held.first[place], self.held.upper[place] = logits, self.rest.upper([logits])
        self.best.add(tile.first_image, columns, logits)
        self.scored.add({name: tile.units})


@dataclass(frozen=True, eq=False)
class _NextTiles(PrunedTiles):
    """Tiles of which the other members score pairs that may be in a list, and reach a goal."""

    held: _Held
    finder: BestFinder
    last: LastBest
    """What a pair has to reach to be in a list."""
    goal: LastBest | None = None
    """What the bounds of the pairs of this pass reach, too."""
    guess: LastBest | None = None
    """Where lists may end. If nearly all pairs of a tile could be in such ones, there is no goal
    for it: nothing would be gained."""

    def score_tile(self, tile: Tile, texts: Mapping[str, dict[str, Buffer]]) -> None:
        columns, place = self.share.tiling.order[tile.captions], self.held.place(tile)
        first, upper, done = (
            getattr(self.held, each)[place] for each in ("first", "upper", "done")
        )
        if done.all() or not (needed := self._needed(tile, columns, upper) & ~done).any():
            return
        new, taken = done.size - int(np.count_nonzero(done)), needed.copy()
        name, *others = self.context.by_cost
        found: dict[str, Logits] = {name: first}
        scored: dict[str, int] = {}
        for name, rest in zip(others, [*self.rests[1:], None], strict=True):
            found[name], number = self.score_needed(tile, name, texts[name], needed)
            check_numbers(found[name], tile.first_image, columns)
            scored[name] = min(number, new)  # Of a whole tile, some are scored again.
            if rest is not None:
                lower = np.full(needed.shape, -np.inf, np.float32)
                lower[needed] = rest.upper([each[needed] for each in found.values()])
                needed &= self.last.reached(tile.first_image, columns, lower)
        logits = np.zeros(needed.shape, np.float32)
        # In the bundle's order, in which sums of several members are rounded.
        logits[needed] = combine_logits(*(found[each][needed] for each in self.context.configs))
        self.finder.add(tile.first_image, columns, logits, needed)
        done |= taken
        self.scored.add(scored)

    def _needed(self, tile: Tile, columns: Columns, upper: Logits) -> NDArray[np.bool_]:
        """Which pairs of a tile are needed in this pass."""
        place = tile.first_image, columns
        needed = self.last.reached(*place, upper)
        if self.guess is not None:
            could = self.guess.reached(*place, upper)
            if np.count_nonzero(could) >= WHOLE * could.size:
                return needed
        return needed if self.goal is None else needed & self.goal.reached(*place, upper)


class _Passes:
    """Tells of pairs that tiles hold in several passes: each pass is a part of a pair."""

    def __init__(self, progress: Progress | None, pairs: int) -> None:
        self._progress, self._pairs, self._passed = progress, pairs, 0

    def begin(self) -> Progress | None:
        """The progress of the next pass, of a round's pairs."""
        progress, before = self._progress, self._passed
        if progress is None:
            return None

        def tell(done: int, _: int) -> None:
            self._passed = before + done
            progress(self._passed // PASSES, self._pairs)

        return tell


def _rounds(share: Share) -> Iterator[tuple[Share, Tile]]:
    """Cut a share into rounds; each with the images x captions that hold all of its tiles."""
    start, box = 0, next(iter(share))
    for number, tile in enumerate(share):
        around = replace(
            box,
            first_image=min(box.first_image, tile.first_image),
            end_image=max(box.end_image, tile.end_image),
            first_caption=min(box.first_caption, tile.first_caption),
            end_caption=max(box.end_caption, tile.end_caption),
        )
        if number > start and around.units > ROUND:
            yield replace(share, numbers=share.numbers[start:number]), box
            start, around = number, tile
        box = around
    yield replace(share, numbers=share.numbers[start:]), box
