"""The bench of a bundle: parity, throughput, latency and memory of several engines."""

from __future__ import annotations

import platform
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sgraf_deploy.bench.latency import Latency, measure_latency
from sgraf_deploy.bench.measure import UNSTABLE, MemoryWatch, PeakMemory
from sgraf_deploy.bench.random_ids import random_token_ids
from sgraf_deploy.bench.speed import SpeedOptions, Throughput, measure_throughput
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.policy import Choice
from sgraf_deploy.engines.torch.literal import GPU_SHARD, SHARD, LiteralLoop, Yardstick
from sgraf_deploy.errors import BundleError
from sgraf_deploy.evaluation.chance import chance_findings
from sgraf_deploy.evaluation.parity import Parity
from sgraf_deploy.evaluation.recall import Ranks, RecallReport
from sgraf_deploy.evaluation.workload import (
    LITERAL,
    Inputs,
    Workload,
    by_reference,
    compare_scorers,
)
from sgraf_deploy.progress import Stage
from sgraf_deploy.runtime.scorer import Scorer, load
from sgraf_deploy.versions import tool_versions

EMULATED = ("fp16-rounded", "fp8-rounded")
"""Arithmetic that is only emulated to compare values; its speed is meaningless and not measured."""

MOST_TIMED = SHARD
"""Most images, and captions, that throughput is measured on: one shard of the literal loop."""

MOST_TIMED_ON_GPU = GPU_SHARD

SEED = 0

SCHEMA_VERSION = 2
"""Of the JSON report. Version 1 had no such field, and neither ranks nor hashes of the data."""


def now() -> datetime:
    """The time of the day, in UTC."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class BenchOptions:
    """The engines to measure, the options to open them with, and the rounds."""

    engines: tuple[Choice, ...]
    engine_options: EngineOptions = field(default_factory=EngineOptions)
    speed: SpeedOptions = field(default_factory=SpeedOptions)
    now: Callable[[], datetime] = now

    @property
    def device(self) -> str:
        """The device of the literal loop: the GPU, if an engine uses one."""
        return next((choice.device for choice in self.engines if choice.device != "cpu"), "cpu")


@dataclass(frozen=True, eq=False)
class BenchReport:
    """The results of the bench; `failed` names each bound that was missed."""

    run: dict[str, Any]
    yardstick: Yardstick
    reference: dict[str, RecallReport | None]
    parity: dict[str, list[Parity]]
    ranks: dict[str, dict[str, Ranks]]
    """Of every query, by model and then by engine; empty without ground truth."""
    throughput: Throughput
    latency: list[Latency]
    memory: PeakMemory
    device_memory: dict[str, dict[str, int]]
    """Bytes by engine and purpose; empty for engines on the CPU."""
    warnings: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[str]:
        """A sentence for each missed bound, that of the literal loop first."""
        inexact = [] if self.yardstick.missed is None else [f"{LITERAL}: {self.yardstick.missed}"]
        return inexact + [
            f"{engine}, {parity.model}: {bound}"
            for engine, parities in self.parity.items()
            for parity in parities
            for bound in parity.missed
        ]

    def to_json(self) -> dict[str, Any]:
        """The whole report as a JSON object."""
        return {
            "schema_version": SCHEMA_VERSION,
            "run": self.run,
            "yardstick": self.yardstick.to_json(),
            "reference": {
                name: report and report.to_json() for name, report in self.reference.items()
            },
            "parity": {
                engine: [parity.to_json() for parity in parities]
                for engine, parities in self.parity.items()
            },
            "ranks": {
                model: {engine: ranks.to_json() for engine, ranks in by_engine.items()}
                for model, by_engine in self.ranks.items()
            },
            "throughput": self.throughput.to_json(),
            "latency": [latency.to_json() for latency in self.latency],
            "memory_bytes": asdict(self.memory),
            "device_memory_bytes": self.device_memory,
            "warnings": self.warnings,
            "failed": self.failed,
        }


def random_workload(bundle: Bundle, images: int, captions: int) -> Workload:
    """Standard normal regions and random ids, 8 to 20 words per caption, from seed 0."""
    manifest, rng = bundle.manifest, np.random.default_rng(SEED)
    shape = (images, manifest.regions, manifest.img_dim)
    regions = rng.standard_normal(shape, dtype=np.float32)
    token_ids = random_token_ids(bundle, rng.integers(8, 21, captions).tolist(), rng)
    name = f"random regions and ids: {images:,} images × {captions:,} captions of 8 to 20 words"
    return Workload(name, Inputs(regions, token_ids), seed=SEED)


def run_bench(
    bundle: Bundle, workload: Workload, options: BenchOptions, stage: Stage = lambda name: None
) -> BenchReport:
    """Measure every engine against the literal loop, on a workload.

    Raises UnavailableError for an engine that does not work here, or without PyTorch, before any
    long work begins.
    """
    memory, started = MemoryWatch(), options.now()
    with ExitStack() as stack:
        scorers = _open(bundle, options, stack)
        literal = LiteralLoop(bundle, options.engine_options.checkpoints, options.device)
        stack.enter_context(_exact_arithmetic())
        compared = compare_scorers(literal, scorers, workload, stage)
        speed = options.speed
        yardsticks = _yardsticks(literal)
        part = workload.timed_part(MOST_TIMED if len(yardsticks) == 1 else MOST_TIMED_ON_GPU)
        timed = {
            name: scorer for name, scorer in scorers.items() if scorer.executed not in EMULATED
        }
        throughput = measure_throughput(bundle, timed, yardsticks, part, speed, stage("throughput"))
        latency = [
            latency
            for name, scorer in timed.items()
            for latency in measure_latency(
                name, scorer, literal, part, speed, stage(f"latency of {name}")
            )
        ]
        run = _describe(bundle, scorers, workload, options)
        run["time"] = started.isoformat(timespec="seconds")
        device_memory = {name: scorer.device_memory() for name, scorer in scorers.items()}
    at_chance = [finding.message for finding in chance_findings(by_reference(compared.reference))]
    warnings = [*workload.warnings, *at_chance, *_unstable(throughput)]
    return BenchReport(
        run=run,
        yardstick=literal.yardstick,
        reference=compared.reference,
        parity=compared.parity,
        ranks=compared.ranks,
        throughput=throughput,
        latency=latency,
        memory=memory.read(),
        device_memory=device_memory,
        warnings=warnings,
    )


def _exact_arithmetic() -> AbstractContextManager[None]:
    """Set PyTorch's precision once, so that no timed call has to set and restore it."""
    from sgraf_deploy.model.exact import exact_arithmetic

    return exact_arithmetic()


def _open(bundle: Bundle, options: BenchOptions, stack: ExitStack) -> dict[str, Scorer]:
    """The scorers by label, which are closed with the stack.

    They have no limit of words, because it was checked when the captions were read, and no cache,
    which would have a second query cost nothing to encode.
    """
    scorers = (
        load(
            bundle,
            choice.engine,
            choice.precision,
            options=replace(options.engine_options, device=choice.device),
            max_words=None,
            caption_cache=0,
        )
        for choice in options.engines
    )
    return {_label(scorer): stack.enter_context(scorer) for scorer in scorers}


def _yardsticks(literal: LiteralLoop) -> dict[str, LiteralLoop]:
    """The literal loop; on a GPU also with large shards, because small ones leave it idle."""
    if literal.device == "cpu":
        return {LITERAL: literal}
    return {LITERAL: literal, f"{LITERAL}, shards of {GPU_SHARD:,}": literal.in_shards(GPU_SHARD)}


def _label(scorer: Scorer) -> str:
    return f"{scorer.engine_name} {scorer.executed}" + (
        "" if scorer.device == "cpu" else f" on {scorer.device}"
    )


def _unstable(throughput: Throughput) -> list[str]:
    """A warning if timings spread too far, including those of the matrix product."""
    spreads = {"the matrix product": throughput.product_timing.spread} | {
        speed.engine: speed.timings["score"].spread for speed in throughput.speeds
    }
    unstable = [f"{name} {100 * s:.0f} %" for name, s in spreads.items() if s > UNSTABLE]
    if not unstable:
        return []
    return [
        "unstable timings, which spread from the 10th to the 90th percentile by: "
        f"{', '.join(unstable)} of the median; other programs are running, or --repeats is too "
        "small for a comparison"
    ]


def _describe(
    bundle: Bundle, scorers: dict[str, Scorer], workload: Workload, options: BenchOptions
) -> dict[str, Any]:
    """The facts that are needed to compare two runs."""
    return {
        "bundle_sha256": bundle.sha256,
        "module": bundle.manifest.module,
        "engines": {
            label: {
                "engine": scorer.engine_name,
                "precision": scorer.precision,
                "executed": scorer.executed,
                "device": scorer.device,
            }
            for label, scorer in scorers.items()
        },
        "processor": processor(),
        "threads": options.engine_options.threads,
        "workload": workload.name,
        "data": asdict(workload.identity),
        "seed": workload.seed,
        "repeats": options.speed.repeats,
        "versions": tool_versions(),
    }


def processor() -> str:
    """The number and the model of this machine's processors."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} × {names[0]}" if names else platform.processor()


def default_bundle(folder: Path) -> Path | None:
    """The only `*.sgraf` of a folder; None if there is none.

    Raises BundleError if there are several.
    """
    bundles = sorted(path for path in folder.glob("[!.]*.sgraf") if path.is_dir())
    if len(bundles) > 1:
        names = ", ".join(path.name for path in bundles)
        raise BundleError(
            "BUNDLE", expected="a single bundle in this folder", got=names, hint="name one of them"
        )
    return bundles[0] if bundles else None
