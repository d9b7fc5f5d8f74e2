"""What every operation of a scorer works with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Event, Lock

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import GraphName, ModelConfig
from sgraf_deploy.engines.base import Engine, Graph
from sgraf_deploy.engines.bounds import Rest
from sgraf_deploy.errors import DataError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.caption_cache import CaptionCache
from sgraf_deploy.runtime.origin import Origin
from sgraf_deploy.runtime.retry import OutOfMemoryRetry, W
from sgraf_deploy.runtime.tiles import TileLimits, TileShape, Tiling
from sgraf_deploy.runtime.tiling import make_tiling
from sgraf_deploy.runtime.trials import Trials
from sgraf_deploy.runtime.workers import SharedWork, WorkerPool

WORK: dict[GraphName, str] = {
    "image_encoder": "batches of images",
    "text_encoder": "batches of captions",
    "scorer": "tiles",
    "pair_scorer": "batches of pairs",
}
"""What messages call the pieces of work on a graph."""


class ScoredPairs:
    """How many pairs each member has scored; threads may share it."""

    def __init__(self, members: Iterable[str], within: ScoredPairs | None = None) -> None:
        """Begin at 0; what is added here is added to `within` too."""
        self._counts = dict.fromkeys(members, 0)
        self._within, self._lock = within, Lock()

    def begin(self) -> ScoredPairs:
        """Count one piece of work by itself, and here too."""
        return ScoredPairs(self._counts, self)

    def add(self, pairs: Mapping[str, int]) -> None:
        """Count so many more pairs, by member."""
        with self._lock:
            for member, number in pairs.items():
                self._counts[member] += number
        if self._within is not None:
            self._within.add(pairs)

    def counts(self) -> dict[str, int]:
        """The pairs so far, by member."""
        with self._lock:
            return dict(self._counts)


@dataclass(frozen=True, eq=False)
class Context:
    """An engine, the models of its bundle, and how much memory work on it may take."""

    origin: Origin
    limits: TileLimits = field(default_factory=TileLimits)
    shape: TileShape | None = None
    """A fixed size of all tiles; None for the size that the limits give."""
    pool: WorkerPool = field(default_factory=WorkerPool)
    cache: CaptionCache = field(default_factory=lambda: CaptionCache(0))
    """Captions that queries asked for; by default none is kept."""
    warned_of_regions: Event = field(default_factory=Event)
    """Set once this scorer has warned that regions have to be converted."""
    prune: bool = True
    """Whether members may be left out where they cannot change a result."""

    @cached_property
    def scored(self) -> ScoredPairs:
        """How many pairs each member has scored since the bundle was opened."""
        return ScoredPairs(self.configs)

    @cached_property
    def trials(self) -> Trials:
        """What short lists have gained from leaving members out."""
        return Trials()

    @property
    def prunes(self) -> bool:
        """Whether members are left out: there are several, and the engine's pairs are exact."""
        return self.prune and len(self.configs) > 1 and self.engine.exact_pairs

    @cached_property
    def by_cost(self) -> tuple[str, ...]:
        """The members in the order in which they score where some are left out: cheapest first.

        By the operations of a word; members that cost the same keep the bundle's order.
        """
        return tuple(sorted(self.configs, key=lambda name: self.configs[name].word_flop))

    @cached_property
    def _retries(self) -> Mapping[GraphName, OutOfMemoryRetry]:
        return {graph: OutOfMemoryRetry(what) for graph, what in WORK.items()}

    @property
    def engine(self) -> Engine:
        """The engine that runs the graphs."""
        return self.origin.engine

    @property
    def configs(self) -> Mapping[str, ModelConfig]:
        """The models by member."""
        return self.origin.configs

    def graphs(self, name: GraphName) -> dict[str, Graph]:
        """Every member's graph of this name."""
        return {member: self.engine.open(member, name) for member in self.configs}

    def rests(self) -> list[Rest]:
        """The members not known yet, once the first, the first two, … of `by_cost` are."""
        ranges = [self.engine.logit_range(member) for member in self.by_cost]
        return [Rest(ranges[known:]) for known in range(1, len(ranges))]

    def share(
        self, graph: GraphName, pieces: Iterable[W], total: int, progress: Progress | None
    ) -> SharedWork[W]:
        """Prepare pieces of work on a graph, of `total` units in all, to be shared by threads.

        What is learnt about the engine's memory is kept for later work on the same graph.
        """
        return SharedWork(pieces, self._retries[graph], total=total, progress=progress)

    def at_most(self, graph: GraphName, axis: str, wanted: int) -> int:
        """Return `wanted`, or the largest size along an axis that the engine's graph takes."""
        return min([wanted, *(sizes[axis] for sizes in self.engine.largest(graph))])

    def check_words(self, lengths: NDArray[np.int32]) -> None:
        """Refuse captions of lengths (captions,) that are too long for the engine.

        Raises DataError, which names the first of them.
        """
        most = self.at_most("scorer", "words", np.iinfo(np.int32).max)
        most = self.at_most("text_encoder", "words", most)
        if (lengths > most).any():
            row = int(np.argmax(lengths > most))
            raise DataError(
                f"caption {row} (counted from 0)",
                expected=f"at most {most} tokens, which the engine was built for",
                got=int(lengths[row]),
                hint=f"build it with `sgraf-deploy compile --max-words {int(lengths.max())}`",
            )

    def tiling(self, images: int, lengths: NDArray[np.int32]) -> Tiling:
        """Cut the matrix of so many images, and captions (captions,) of these lengths."""
        return make_tiling(
            images,
            lengths,
            list(self.configs.values()),
            replace(self.limits, profiles=self.engine.largest("scorer")),
            self.shape,
            workers=self.engine.workers,
        )
