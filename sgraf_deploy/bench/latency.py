"""Latency of one caption against a gallery, compared with the literal loop and a matrix product.

Queries follow each other in blocks, as in a service under load. The same number of products of the
query's size runs in between, so that other load on the machine shows in both. The floor is the time
of the query's arithmetic at the rate of the machine's best products, measured in the same run. The
cost of the first query of each length (kernels compiled or chosen, graphs captured) is reported
separately.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from sgraf_deploy.bench.measure import (
    Clock,
    Product,
    ProductRate,
    Ratio,
    Timing,
    pair_flop,
    ratios_to_json,
    synchronised,
    timed,
    times_faster,
)
from sgraf_deploy.bench.speed import SpeedOptions
from sgraf_deploy.engines.torch.literal import LiteralCaptions, LiteralLoop
from sgraf_deploy.evaluation.workload import Inputs
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.scorer import Scorer

CANDIDATES = (10, 100, 1000)
"""The numbers of images that one caption is reranked against."""

PERCENTILES = (50, 95, 99)

BLOCK = 10
"""Queries in a row, after as many control products; the literal loop and the matrix-product rate
are measured once per block."""

COLD = {"score": "score", "end to end": "end_to_end"}
"""The scopes of the engine, whose first times are reported separately -> their report names."""

_CONTROL_WIDTHS = (1024, 256)
"""The control product is (m, 1024) x (1024, 256), with m rows for the same work as the query."""


@dataclass(frozen=True)
class Latency:
    """Latency of one caption against `candidates` encoded images, in seconds.

    `score` is for an encoded caption, and `end_to_end` from its token ids. `floor` is the time of
    the score's arithmetic at the matrix-product rate. The rounds of a ratio are the blocks.
    """

    engine: str
    candidates: int
    score: Timing
    end_to_end: Timing
    literal: Timing
    control: Timing
    product: Timing
    """Seconds per operation at the matrix-product rate, block by block."""
    flop: float
    """Operations of the score's arithmetic, at the mean length of the captions."""
    cold: Mapping[str, Timing] = field(default_factory=dict)
    """By scope, `score` before `end_to_end`: the first query of every length.

    They are not among the other timings, because each length is queried twice before these.
    """

    @property
    def floor(self) -> float:
        """Seconds of the score's arithmetic at the best rate of all blocks."""
        return self.flop * min(self.product.seconds)

    @property
    def times_floor(self) -> Ratio:
        """The median of the score over the floor; its scatter is the larger one of the two."""
        scatter = max(_blocks(self.score).spread, self.product.spread)
        return Ratio(self.score.median / self.floor, scatter)

    @property
    def times_literal(self) -> Ratio:
        """The literal loop's median over the score's.

        The scatter is that of the ratios for the same captions, the first of each block.
        """
        same = Timing(self.score.seconds[::BLOCK])
        scatter = times_faster(same, self.literal).scatter
        return Ratio(self.literal.median / self.score.median, scatter)

    @property
    def tail(self) -> Ratio:
        """p99 / p50 of the score over that of the control product; scatters like their blocks."""
        scatter = max(_blocks(self.score).spread, _blocks(self.control).spread)
        return Ratio(_tail(self.score) / _tail(self.control), scatter)

    @property
    def ratios(self) -> dict[str, Ratio]:
        """The ratios by their names in a report."""
        return {
            "times_floor": self.times_floor,
            "times_literal": self.times_literal,
            "tail_over_control": self.tail,
        }

    def to_json(self) -> dict[str, Any]:
        """Percentiles in milliseconds by scope, and the ratios."""
        scopes = {
            "score": self.score,
            "end_to_end": self.end_to_end,
            "literal": self.literal,
            "control_product": self.control,
        }
        return {
            "engine": self.engine,
            "candidates": self.candidates,
            **{f"{scope}_ms": _percentiles(timing) for scope, timing in scopes.items()},
            "floor_ms": 1e3 * self.floor,
            "cold_ms": {scope: _cold(timing) for scope, timing in self.cold.items()},
            **ratios_to_json(self.ratios),
        }


def measure_latency(
    name: str,
    scorer: Scorer,
    literal: LiteralLoop,
    inputs: Inputs,
    options: SpeedOptions,
    progress: Progress | None = None,
) -> list[Latency]:
    """Rerank one caption after the other against 10, 100 and 1,000 images.

    If there are fewer images, they are repeated. 100 images are queried half as often as 10, and
    1,000 a third as often.
    """
    images = scorer.encode_images(inputs.regions)
    captions = scorer.encode_captions(list(inputs.token_ids))
    literal_images = literal.encode_images(inputs.regions)
    latencies = []
    for place, count in enumerate(CANDIDATES):
        rows = np.resize(np.arange(len(images)), count)
        whole = count == len(images)
        queries = _Queries(
            scorer=scorer,
            gallery=images if whole else images[rows],
            captions=captions,
            literal=literal,
            literal_gallery={member: value[rows] for member, value in literal_images.items()},
            token_ids=inputs.token_ids,
        )
        repeats = max(3, options.queries // (place + 1))
        latencies.append(queries.measure(name, repeats, options))
        if progress is not None:
            progress(place + 1, len(CANDIDATES))
    return latencies


@dataclass
class _Queries:
    """Queries with one caption after the other against one gallery."""

    scorer: Scorer
    gallery: Any
    captions: Any
    literal: LiteralLoop
    literal_gallery: dict[str, Any]
    token_ids: Sequence[Any]
    seconds: dict[str, list[float]] = field(
        default_factory=lambda: {
            scope: [] for scope in ("control", "score", "end to end", "literal")
        }
    )

    def measure(self, name: str, repeats: int, options: SpeedOptions) -> Latency:
        rates = ProductRate(options.clock, self.scorer.device)
        calls = self._calls()
        cold = self._warm_up(calls, repeats, options.clock)
        product = []
        for first in range(0, repeats, BLOCK):
            rows = [row % len(self.token_ids) for row in range(first, min(repeats, first + BLOCK))]
            product.append(1 / rates.measure())
            for scope, call in calls.items():
                options.settle()
                for row in rows[:1] if scope == "literal" else rows:
                    self.seconds[scope].append(timed(partial(call, row), options.clock))
        timings = {scope: Timing(tuple(seconds)) for scope, seconds in self.seconds.items()}
        return Latency(
            engine=name,
            candidates=len(self.gallery),
            score=timings["score"],
            end_to_end=timings["end to end"],
            literal=timings["literal"],
            control=timings["control"],
            product=Timing(tuple(product)),
            flop=self._flop(),
            cold=cold,
        )

    def _warm_up(
        self, calls: dict[str, Callable[[int], object]], repeats: int, clock: Clock
    ) -> dict[str, Timing]:
        """Query with a caption of every length twice in a row; first seconds by scope."""
        rows: dict[int, int] = {}
        for row, ids in enumerate(self.token_ids[:repeats]):
            rows.setdefault(len(ids), row)
        cold = {}
        for scope, call in calls.items():
            if scope in COLD:
                first = []
                for _, row in sorted(rows.items()):
                    first.append(timed(partial(call, row), clock))
                    call(row)
                cold[COLD[scope]] = Timing(tuple(first))
            else:
                call(0)
        return cold

    def _calls(self) -> dict[str, Callable[[int], object]]:
        """The calls that are timed, by scope; each takes the row of a caption."""
        captions = [self.captions[row : row + 1] for row in range(len(self.captions))]
        control = self._control()
        literal_captions = [
            self.literal.encode_captions([ids]) for ids in self.token_ids[::BLOCK]
        ]  # the first caption of each block
        return {
            "control": lambda _: control.run(),
            "score": lambda row: self.scorer.rerank(captions[row], self.gallery, 10),
            "end to end": lambda row: self.scorer.rerank(self.token_ids[row], self.gallery, 10),
            "literal": lambda row: self._literal(literal_captions[row // BLOCK]),
        }

    def _literal(self, caption: LiteralCaptions) -> None:
        run = partial(self.literal.logits, self.literal_gallery, caption)
        synchronised(run, self.literal.device)()

    def _flop(self) -> float:
        """Operations of a query, at the mean length of the captions."""
        words = float(np.mean([len(ids) for ids in self.token_ids]))
        configs = [member.config for member in self.scorer.bundle.manifest.members.values()]
        return len(self.gallery) * sum(pair_flop(config, words) for config in configs)

    def _control(self) -> Product:
        k, n = _CONTROL_WIDTHS
        return Product((max(1, round(self._flop() / (2 * k * n))), k, n), self.scorer.device)


def _percentiles(timing: Timing) -> dict[str, float]:
    return {f"p{percent}": 1e3 * timing.percentile(percent) for percent in PERCENTILES} | {
        "repeats": len(timing.seconds)
    }


def _cold(timing: Timing) -> dict[str, float]:
    seconds = timing.seconds
    return {"lengths": len(seconds), "median": 1e3 * timing.median, "largest": 1e3 * max(seconds)}


def _blocks(timing: Timing) -> Timing:
    """The median of each block, which hardly depends on the lengths of the block's captions."""
    starts = range(0, len(timing.seconds), BLOCK)
    return Timing(tuple(Timing(timing.seconds[at : at + BLOCK]).median for at in starts))


def _tail(timing: Timing) -> float:
    return timing.percentile(99) / timing.median
