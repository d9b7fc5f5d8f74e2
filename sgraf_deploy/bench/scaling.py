"""Speed and memory as the matrix grows, and speed as captions grow.

Every point is measured in a child process, so that none leaves memory to the next. Rounds go up and
down in turn, so that a drifting processor clock favours no size.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from sgraf_deploy.bench.measure import Ratio, Timing, pair_flop, ratios_to_json, times_faster
from sgraf_deploy.bench.point import Job, to_json
from sgraf_deploy.bench.run import SEED, processor
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.policy import Choice
from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.progress import Progress
from sgraf_deploy.versions import tool_versions

PAIRS = (10_000, 100_000, 1_000_000, 10_000_000)
CAPTIONS_PER_IMAGE = 5

FEWEST, MOST = 8, 20
"""The range of words per caption while the matrix grows, evenly spread."""

WORD_COUNTS = (5, 10, 20, 40, 80)
PAIRS_OF_LENGTHS = 100_000
"""The approximate number of pairs while captions grow; all captions have the same length."""

COMMAND = (sys.executable, "-P", "-m", "sgraf_deploy.bench.point")
"""The child process; `-P` keeps it from importing modules of the working folder."""

Measure = Callable[[Job], dict[str, Any]]
"""Measures one point, by default in a child process; `point.measure` describes the result."""


@dataclass(frozen=True)
class Size:
    """A matrix of images x captions."""

    images: int
    captions: int

    @property
    def pairs(self) -> int:
        """Images x captions."""
        return self.images * self.captions

    @staticmethod
    def of_pairs(pairs: int) -> Size:
        """A matrix of about `pairs` pairs, with five captions per image."""
        images = max(1, round(math.sqrt(pairs / CAPTIONS_PER_IMAGE)))
        return Size(images, CAPTIONS_PER_IMAGE * images)


@dataclass(frozen=True)
class ScalingOptions:
    """The engine, sizes and lengths to measure; `max_pairs` leaves out larger sizes and limits the
    matrix of the growing captions."""

    engine: Choice
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    sizes: tuple[Size, ...] = tuple(Size.of_pairs(pairs) for pairs in PAIRS)
    word_counts: tuple[int, ...] = WORD_COUNTS
    max_pairs: int | None = None
    repeats: int = 5

    def chosen_sizes(self) -> list[Size]:
        """The sizes that `choose_sizes` chooses."""
        return choose_sizes(self.sizes, self.max_pairs)

    def size_of_lengths(self) -> Size:
        """The matrix of the growing captions."""
        return Size.of_pairs(min(PAIRS_OF_LENGTHS, self.max_pairs or PAIRS_OF_LENGTHS))


def choose_sizes(sizes: Sequence[Size], max_pairs: int | None) -> list[Size]:
    """The sizes of at most `max_pairs` pairs, in ascending order; InputError if there are none."""
    limit = max_pairs or max(size.pairs for size in sizes)
    # `Size.of_pairs(10_000)` is 45 x 225, which is a little more than 10,000.
    chosen = [size for size in sizes if size.pairs <= 1.02 * limit]
    if not chosen:
        smallest = min(size.pairs for size in sizes)
        raise InputError("--max-pairs", expected=f"at least {smallest:,}", got=f"{limit:,}")
    return sorted(chosen, key=lambda size: size.pairs)


@dataclass(frozen=True, eq=False)
class Point:
    """One size or length over all rounds.

    `plan` has the values that do not depend on the machine's speed: shapes, tiles, bytes. `cost` is
    the seconds per pair relative to the first point of its series, round by round. RssAnon is the
    largest of the rounds, None if the system does not report it.
    """

    plan: dict[str, Any]
    timing: Timing
    cpu: Timing
    cost: Ratio
    flop_per_pair: float
    rss_anon_peak: int | None
    rss_anon_inputs: int | None
    """RssAnon of the raw inputs."""

    @property
    def pairs(self) -> int:
        """Images x captions."""
        return int(self.plan["pairs"])

    @property
    def pairs_per_second(self) -> float:
        """Pairs per second at the median time."""
        return self.timing.rate(self.pairs)

    @property
    def rss_anon_beyond(self) -> int | None:
        """The peak minus raw inputs, encoded inputs and result; it must not grow with the size."""
        if self.rss_anon_peak is None or self.rss_anon_inputs is None:
            return None
        known = self.plan["encoded_bytes"] + self.plan["result_bytes"]
        return self.rss_anon_peak - self.rss_anon_inputs - int(known)

    def to_json(self) -> dict[str, Any]:
        """All fields and derived values as a JSON object."""
        return {
            **self.plan,
            "seconds": self.timing.to_json(),
            "cpu_seconds": self.cpu.to_json(),
            "pairs_per_second": self.pairs_per_second,
            **ratios_to_json({"cost_per_pair_relative_to_first": self.cost}),
            "flop_per_pair": self.flop_per_pair,
            "rss_anon_peak": self.rss_anon_peak,
            "rss_anon_of_raw_inputs": self.rss_anon_inputs,
            "rss_anon_beyond_inputs_and_result": self.rss_anon_beyond,
        }


@dataclass(frozen=True, eq=False)
class ScalingReport:
    """The points of the growing matrix, and those of the growing captions."""

    run: dict[str, Any]
    sizes: list[Point]
    lengths: list[Point]

    def to_json(self) -> dict[str, Any]:
        """The whole report as a JSON object."""
        return {
            "run": self.run,
            "sizes": [point.to_json() for point in self.sizes],
            "lengths": [point.to_json() for point in self.lengths],
        }


def in_a_child(job: Job) -> dict[str, Any]:
    """Run `point.measure` in a process of its own.

    Raises SgrafDeployError with the child's last line, or with the signal that ended it.
    """
    done = subprocess.run(
        COMMAND,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        input=to_json(job),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    if done.returncode == 0:
        result: dict[str, Any] = json.loads(done.stdout)
        return result
    lines = done.stderr.strip().splitlines()
    got = lines[-1] if lines else f"exit code {done.returncode}"
    if done.returncode < 0:
        got = f"signal {signal.Signals(-done.returncode).name}"
    size = f"{job.images:,} images × {job.captions:,} captions"
    hint = "measure fewer pairs with --max-pairs" if done.returncode < 0 else None
    raise SgrafDeployError(f"measuring {size} failed", got=got, hint=hint)


def measure_scaling(
    bundle: Bundle,
    options: ScalingOptions,
    progress: Progress | None = None,
    measure: Measure = in_a_child,
) -> ScalingReport:
    """Measure every size, then every length of captions, in rounds; progress counts points."""
    jobs = _jobs(bundle, options)
    results: list[list[dict[str, Any]]] = [[] for _ in jobs]
    done, total = 0, len(jobs) * options.repeats
    for index in range(options.repeats):
        for place in range(len(jobs))[:: 1 if index % 2 == 0 else -1]:
            results[place].append(measure(jobs[place]))
            done += 1
            if progress is not None:
                progress(done, total)
    count = len(options.chosen_sizes())
    run = _describe(bundle, options, results[0][0])
    return ScalingReport(run, _points(bundle, results[:count]), _points(bundle, results[count:]))


def _jobs(bundle: Bundle, options: ScalingOptions) -> list[Job]:
    """The jobs of all sizes, then those of all lengths."""
    chosen = options.engine_options

    def job(size: Size, fewest: int, most: int) -> Job:
        return Job(
            bundle=str(bundle.path),
            images=size.images,
            captions=size.captions,
            fewest=fewest,
            most=most,
            engine=options.engine.engine,
            precision=options.engine.precision,
            threads=chosen.threads,
            device=options.engine.device,
            checkpoints=tuple(map(str, chosen.checkpoints)),
            engine_dir=None if chosen.engine_dir is None else str(chosen.engine_dir),
            allow_unverified=chosen.allow_unverified,
            seed=SEED,
        )

    growing = options.size_of_lengths()
    return [job(size, FEWEST, MOST) for size in options.chosen_sizes()] + [
        job(growing, words, words) for words in options.word_counts
    ]


def _points(bundle: Bundle, results: Sequence[Sequence[dict[str, Any]]]) -> list[Point]:
    """A series of points, from the results of the rounds of each point."""
    per_pair = [
        Timing(tuple(result["seconds"] / result["pairs"] for result in rounds))
        for rounds in results
    ]
    return [
        Point(
            plan={name: rounds[0][name] for name in PLAN_FIELDS},
            timing=Timing(tuple(result["seconds"] for result in rounds)),
            cpu=Timing(tuple(result["cpu_seconds"] for result in rounds)),
            cost=times_faster(per_pair[0], cost),
            flop_per_pair=sum(
                pair_flop(member.config, rounds[0]["mean_words"])
                for member in bundle.manifest.members.values()
            ),
            rss_anon_peak=_most(result["rss_anon"]["peak"] for result in rounds),
            rss_anon_inputs=_most(_inputs(result["rss_anon"]) for result in rounds),
        )
        for rounds, cost in zip(results, per_pair, strict=True)
    ]


PLAN_FIELDS = (
    *("images", "captions", "pairs", "mean_words", "tiles", "padding", "workers", "runs"),
    *("encoded_bytes", "result_bytes", "tile_bytes"),
)
"""The fields that do not depend on the machine's speed."""


def _inputs(rss_anon: dict[str, int | None]) -> int | None:
    loaded, start = rss_anon["loaded"], rss_anon["start"]
    return None if loaded is None or start is None else start - loaded


def _most(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return max(known, default=None)


def _describe(bundle: Bundle, options: ScalingOptions, result: dict[str, Any]) -> dict[str, Any]:
    """The facts that are needed to compare two runs."""
    return {
        "bundle_sha256": bundle.sha256,
        "module": bundle.manifest.module,
        "engine": result["engine"],
        "precision": options.engine.precision,
        "executed": result["executed"],
        "device": result["device"],
        "processor": processor(),
        "threads": options.engine_options.threads,
        "workers": result["workers"],
        "words_while_the_matrix_grows": [FEWEST, MOST],
        "seed": SEED,
        "repeats": options.repeats,
        "versions": tool_versions(),
    }
