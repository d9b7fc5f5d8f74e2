"""Where an engine's time goes while it scores, stage by stage."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sgraf_deploy.bench.measure import Clock, ProductRate, pair_flop, timed
from sgraf_deploy.bench.run import processor
from sgraf_deploy.bench.timings_native import ProfiledNative
from sgraf_deploy.bench.timings_ort import ProfiledOrt
from sgraf_deploy.bench.timings_report import ProductSpeed, TimingsReport
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.base import Engine, EngineOptions
from sgraf_deploy.engines.registry import ENGINES
from sgraf_deploy.errors import InputError, SgrafDeployError
from sgraf_deploy.evaluation.workload import Workload
from sgraf_deploy.progress import Stage
from sgraf_deploy.runtime.scorer import Scorer, load
from sgraf_deploy.runtime.tiles import TileLimits
from sgraf_deploy.versions import tool_versions

Profiled = ProfiledNative | ProfiledOrt

PROFILED: dict[str, type[Profiled]] = {"native": ProfiledNative, "ort": ProfiledOrt}
"""Makes a `Profiled` engine of (bundle, options), by the name of the engine that it stands for."""


def check_profiled(engine: str) -> None:
    """InputError for an engine whose time is not known stage by stage."""
    if engine not in PROFILED:
        raise InputError(
            f"engine {engine} has no stages to take the time of",
            expected=" or ".join(PROFILED),
            got=engine,
            hint=f"take one of them; both need `{ENGINES['ort'].install}`",
        )


def measure_timings(
    bundle: Bundle,
    workload: Workload,
    engine: str,
    options: EngineOptions,
    stage: Stage = lambda name: None,
    clock: Clock = time.perf_counter,
) -> TimingsReport:
    """Score a workload in fp32 once as it is, and once profiled, matrix products before and after.

    Raises InputError for an engine that has no stages, and SgrafDeployError if ONNX Runtime's
    profiler did not keep every run: it holds a million nodes.
    """
    check_profiled(engine)
    with load(bundle, engine, "fp32", options=options) as scorer:
        unprofiled, _ = _score(scorer, workload, clock)
    profiled: Profiled = PROFILED[engine](bundle, options)
    limits = TileLimits(advice=profiled.tile_advice)
    with Scorer(bundle, profiled, precision="fp32", limits=limits) as scorer:
        products = [_product_speed(profiled.workers, clock)]
        seconds, tiles = _score(scorer, workload, clock, stage)
        members = profiled.profiles()
    products.append(_product_speed(profiled.workers, clock))
    for name, member in members.items():
        if member.runs != tiles:
            what = f"the profile of {name} is not whole"
            hint = "take fewer --images and --captions"
            raise SgrafDeployError(what, expected=f"{tiles} runs", got=member.runs, hint=hint)
    return TimingsReport(
        _describe(bundle, workload, profiled, options),
        members,
        seconds,
        unprofiled,
        profiled.workers,
        max(products, key=lambda found: found.rate),
        profiled.between,
    )


def _product_speed(threads: int, clock: Clock) -> ProductSpeed:
    """The machine's matrix products on so many threads, or on NumPy's own."""
    with _torch_threads(threads):
        products = ProductRate(clock)
        known = threads if products.library == "PyTorch" else None
        return ProductSpeed(products.measure(), products.library, known)


@contextmanager
def _torch_threads(count: int) -> Iterator[None]:
    try:
        import torch
    except ImportError:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _score(
    scorer: Scorer, workload: Workload, clock: Clock, stage: Stage = lambda name: None
) -> tuple[float, int]:
    """Seconds of scoring the workload's matrix, and its tiles."""
    images = scorer.encode_images(workload.inputs.regions)
    captions = scorer.encode_captions(workload.inputs.token_ids)
    progress = stage("profiling")  # Not before: what remains is estimated from here on.
    seconds = timed(lambda: scorer.score(images, captions, progress=progress), clock)
    return seconds, len(scorer.tiling(images, captions))


def _describe(
    bundle: Bundle, workload: Workload, engine: Engine, options: EngineOptions
) -> dict[str, Any]:
    """What is needed to compare two runs."""
    configs = {name: member.config for name, member in bundle.manifest.members.items()}
    inputs = workload.inputs
    return {
        "bundle_sha256": bundle.sha256,
        "module": bundle.manifest.module,
        "engine": engine.name,
        "executed": engine.executed,
        "device": engine.device,
        "processor": processor(),
        "threads": options.threads,
        "workers": engine.workers,
        "workload": workload.name,
        "images": len(inputs.regions),
        "captions": len(inputs.token_ids),
        "mean_words": inputs.mean_words,
        "flop_per_pair": {n: pair_flop(config, inputs.mean_words) for n, config in configs.items()},
        "seed": workload.seed,
        "versions": tool_versions(),
    }
