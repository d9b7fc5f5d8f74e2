"""Throughput of scorers and of the literal loop, measured in interleaved rounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sgraf_deploy.bench.measure import (
    UNSTABLE,
    Clock,
    ProductRate,
    Ratio,
    Timing,
    pair_flop,
    ratios_to_json,
    synchronised,
    timed,
    times_faster,
)
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.torch.literal import LiteralLoop
from sgraf_deploy.evaluation.workload import LITERAL, Inputs
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.scorer import Scorer

SCOPES = {
    "encode images": "from regions on the host to embeddings on the device",
    "encode captions": "from token ids on the host to embeddings on the device",
    "score": "from embeddings on the device to logits on the host, in the caller's order",
}
"""The timed scopes by name, with their start and end; a GPU has finished when the clock is read."""

PRODUCT = "matrix product"

SETTLE_SECONDS = 0.02


def settle() -> None:
    """Wait until threads that spin for work go to sleep."""
    time.sleep(SETTLE_SECONDS)


@dataclass(frozen=True)
class SpeedOptions:
    """The number of measured rounds, of warm-up rounds before them, and of latency queries.

    There are two warm-up rounds because an engine that captures CUDA graphs does so in the second
    one. `settle` waits until PyTorch's threads, which spin for a while after a product, leave the
    processors to the next timed work.
    """

    repeats: int = 10
    warmup: int = 2
    queries: int = 60
    clock: Clock = time.perf_counter
    settle: Callable[[], None] = settle


@dataclass(frozen=True)
class Speed:
    """One engine's timings and rates, units per second, by scope; `end to end` is all three scopes.

    `percent_of_product_rate` is the work per pair after the exact rewrites times the measured pairs
    per second; None for the literal loop, which does more work. Its scatter is the larger one of
    the scores' and the products'.
    """

    engine: str
    timings: dict[str, Timing]
    rates: dict[str, float]
    times_literal: Ratio
    percent_of_product_rate: Ratio | None
    cold: dict[str, float] | None = None
    """Seconds of the very first round by scope; None if it is a measured round."""

    @property
    def unstable(self) -> bool:
        """Whether the scores' timings spread too far for a comparison."""
        return self.timings["score"].spread > UNSTABLE

    @property
    def ratios(self) -> dict[str, Ratio]:
        """The ratios that are not None, by their names in a report."""
        ratios = {
            "times_literal": self.times_literal,
            "percent_of_product_rate": self.percent_of_product_rate,
        }
        return {name: ratio for name, ratio in ratios.items() if ratio is not None}

    def to_json(self) -> dict[str, Any]:
        """All fields and derived values as a JSON object."""
        return {
            "engine": self.engine,
            "seconds": {scope: timing.to_json() for scope, timing in self.timings.items()},
            "cold_seconds": self.cold,
            "per_second": self.rates,
            "percent_of_product_rate": None,
            **ratios_to_json(self.ratios),
            "unstable": self.unstable,
        }


@dataclass(frozen=True)
class Throughput:
    """The speeds of all engines of one run, and the rate of matrix products in the same run."""

    speeds: tuple[Speed, ...]
    product_rate: float
    """FLOP/s, the best of all rounds."""
    product_timing: Timing
    """Seconds per 10⁹ operations, round by round."""
    product_library: str
    product_dtype: str
    flop_per_pair: float
    images: int
    captions: int
    order: tuple[str, ...]
    """What every round runs, in turn; each engine all its scopes."""

    def to_json(self) -> dict[str, Any]:
        """All fields and derived values as a JSON object."""
        return {
            "images": self.images,
            "captions": self.captions,
            "flop_per_pair": self.flop_per_pair,
            "product_rate": self.product_rate,
            "product_library": self.product_library,
            "product_dtype": self.product_dtype,
            "product_spread": self.product_timing.spread,
            "scopes": SCOPES,
            "order": list(self.order),
            "engines": [speed.to_json() for speed in self.speeds],
        }


@dataclass
class _Runner:
    """The three scopes of one engine as calls without arguments."""

    calls: dict[str, Callable[[], object]]
    device: str
    seconds: dict[str, list[float]] = field(default_factory=lambda: {s: [] for s in SCOPES})
    cold: dict[str, float] = field(default_factory=dict)


def measure_throughput(
    bundle: Bundle,
    scorers: dict[str, Scorer],
    yardsticks: dict[str, LiteralLoop],
    inputs: Inputs,
    options: SpeedOptions = SpeedOptions(),
    progress: Progress | None = None,
) -> Throughput:
    """Time every engine and the literal loop, round by round, on the same inputs.

    `yardsticks` are literal loops by name; ratios are relative to the first of them.
    """
    runners = {name: _literal_runner(literal, inputs) for name, literal in yardsticks.items()}
    runners |= {name: _runner(scorer, inputs) for name, scorer in scorers.items()}
    products, rates = ProductRate(options.clock, _device(runners)), []
    rounds = options.warmup + options.repeats
    for index in range(rounds):
        rate = products.measure()
        for runner in runners.values():
            for scope, call in runner.calls.items():
                seconds = timed(synchronised(call, runner.device), options.clock)
                if index >= options.warmup:
                    runner.seconds[scope].append(seconds)
                elif index == 0:
                    runner.cold[scope] = seconds
        if index >= options.warmup:
            rates.append(rate)
        if progress is not None:
            progress(index + 1, rounds)
    configs = [member.config for member in bundle.manifest.members.values()]
    flop = sum(pair_flop(config, inputs.mean_words) for config in configs)
    product = Timing(tuple(1e9 / rate for rate in rates))
    floor = flop / 1e9 * min(product.seconds)
    return Throughput(
        speeds=tuple(
            _speed(name, runner, runners[next(iter(yardsticks))], inputs, (floor, product.spread))
            for name, runner in runners.items()
        ),
        product_rate=max(rates),
        product_timing=product,
        product_library=products.library,
        product_dtype=products.dtype,
        flop_per_pair=flop,
        images=len(inputs.regions),
        captions=len(inputs.token_ids),
        order=(PRODUCT, *runners),
    )


def _device(runners: dict[str, _Runner]) -> str:
    """The GPU if any runner uses one, else the CPU."""
    return next((runner.device for runner in runners.values() if runner.device != "cpu"), "cpu")


def _runner(scorer: Scorer, inputs: Inputs) -> _Runner:
    captions = list(inputs.token_ids)
    encoded = scorer.encode_images(inputs.regions), scorer.encode_captions(captions)
    return _Runner(
        {
            "encode images": lambda: scorer.encode_images(inputs.regions),
            "encode captions": lambda: scorer.encode_captions(captions),
            "score": lambda: scorer.logits(*encoded),
        },
        scorer.device,
    )


def _literal_runner(literal: LiteralLoop, inputs: Inputs) -> _Runner:
    images = literal.encode_images(inputs.regions)
    captions = literal.encode_captions(inputs.token_ids)
    return _Runner(
        {
            "encode images": lambda: literal.encode_images(inputs.regions),
            "encode captions": lambda: literal.encode_captions(inputs.token_ids),
            "score": lambda: literal.logits(images, captions),
        },
        literal.device,
    )


def _speed(
    name: str, runner: _Runner, literal: _Runner, inputs: Inputs, floor: tuple[float, float]
) -> Speed:
    """A runner's speed; `floor` is the seconds per pair at the product rate, and its spread."""
    timings = {scope: Timing(tuple(seconds)) for scope, seconds in runner.seconds.items()}
    whole = Timing(tuple(map(sum, zip(*runner.seconds.values(), strict=True))))
    timings["end to end"] = whole
    units = (len(inputs.regions), len(inputs.token_ids), inputs.pairs, inputs.pairs)
    rates = {
        scope: timing.rate(count)
        for (scope, timing), count in zip(timings.items(), units, strict=True)
    }
    score = Timing(tuple(literal.seconds["score"]))
    return Speed(
        engine=name,
        timings=timings,
        rates=rates,
        times_literal=times_faster(timings["score"], score),
        percent_of_product_rate=None
        if name.startswith(LITERAL)
        else Ratio(100 * floor[0] * rates["score"], max(floor[1], timings["score"].spread)),
        cold=runner.cold or None,
    )
