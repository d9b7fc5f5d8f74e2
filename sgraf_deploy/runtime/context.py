"""What every operation of a scorer works with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from threading import Event

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import GraphName, ModelConfig
from sgraf_deploy.engines.base import Engine
from sgraf_deploy.engines.buffers import Buffer
from sgraf_deploy.errors import DataError
from sgraf_deploy.runtime.encoded import Origin
from sgraf_deploy.runtime.retry import OutOfMemoryRetry
from sgraf_deploy.runtime.tiles import TileLimits, TileShape, Tiling
from sgraf_deploy.runtime.tiling import make_tiling
from sgraf_deploy.runtime.workers import WorkerPool

KINDS: dict[GraphName, str] = {
    "image_encoder": "batches of images",
    "text_encoder": "batches of captions",
    "scorer": "tiles",
    "pair_scorer": "batches of pairs",
}
"""What the work on a graph is called."""


@dataclass(frozen=True, eq=False)
class Context:
    """An engine, the models of its bundle, and how much memory work on it may take."""

    origin: Origin
    limits: TileLimits = field(default_factory=TileLimits)
    shape: TileShape | None = None
    pool: WorkerPool = field(default_factory=WorkerPool)
    warned_of_regions: Event = field(default_factory=Event)

    @cached_property
    def retries(self) -> Mapping[GraphName, OutOfMemoryRetry]:
        """By graph, all with one pool."""
        return {graph: OutOfMemoryRetry(what, self.pool) for graph, what in KINDS.items()}

    @property
    def engine(self) -> Engine:
        """What runs the graphs."""
        return self.origin.engine

    @property
    def configs(self) -> Mapping[str, ModelConfig]:
        """The models by member."""
        return self.origin.configs

    def run(
        self,
        member: str,
        graph: GraphName,
        inputs: Mapping[str, Buffer],
        outputs: Mapping[str, Buffer] | None = None,
    ) -> dict[str, Buffer]:
        """Run a member's graph on device buffers."""
        return self.engine.open(member, graph).run(inputs, outputs)

    def at_most(self, graph: GraphName, axis: str, wanted: int) -> int:
        """So many along an axis, or as many as the engine's graph takes."""
        return min([wanted, *(sizes[axis] for sizes in self.engine.largest(graph))])

    def check_words(self, lengths: NDArray[np.int32]) -> None:
        """DataError, which names the first, for captions (captions,) too long for the engine."""
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
