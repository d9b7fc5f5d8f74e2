"""Builds a bundle's plans, runs the gate on them where there is a GPU, and publishes them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.compile.build import Build, CompileOptions, compile_graph, target
from sgraf_deploy.config import GRAPHS
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.registry import unavailable
from sgraf_deploy.engines.state import keep, state_folder
from sgraf_deploy.engines.trt.library import TensorRT
from sgraf_deploy.engines.trt.plans import Sidecar, plan_folder, replace_file, write_plan
from sgraf_deploy.errors import BundleError, UnavailableError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.scorer import Scorer, load

Check = Callable[[Scorer], object]
"""Raises GateError for plans that must not be published, given a scorer that runs them."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """Plans that are in place; `unverified` is why the gate could not run, None if they passed."""

    folder: Path
    sidecars: tuple[Sidecar, ...]
    unverified: UnavailableError | None


def publish_plans(
    bundle: Bundle,
    builds: list[Build],
    tensorrt: TensorRT,
    options: CompileOptions,
    *,
    stage: Callable[[str], Progress | None] = lambda name: None,
    check: Check | None = None,
) -> Published:
    """Build every plan, and publish them together once all are built and have passed the gate.

    The gate, and then `check`, run where there is a GPU. Raises what `compile_graph` raises, and
    GateError for a bound that is not met; nothing is published then.
    """
    folder = plan_folder(bundle, options.engine_dir)
    kept = _timing_cache(tensorrt)
    with tempfile.TemporaryDirectory(prefix="sgraf-plans-") as temporary:
        staging = Path(temporary)
        staged = plan_folder(bundle, staging)
        staged.mkdir()
        timing_cache = staging / "timing.cache"
        if kept is not None and kept.is_file():
            replace_file(timing_cache, kept.read_bytes())
        built = []
        for build in builds:
            progress = stage(build.name)
            sidecar, plan = compile_graph(build, tensorrt, options, timing_cache, progress)
            write_plan(staged, plan, sidecar)
            built.append(sidecar)
        reason = _gate(bundle, built, options, staging, check)
        for sidecar in built:
            write_plan(folder, (staged / sidecar.plan).read_bytes(), sidecar)
        if kept is not None and timing_cache.is_file():
            _keep_timing_cache(kept, timing_cache.read_bytes())
    return Published(folder, tuple(built), reason)


def _timing_cache(tensorrt: TensorRT) -> Path | None:
    """TensorRT's timing cache in this user's state: one that came with a bundle is untrusted."""
    state = state_folder()
    if state is None:
        return None
    return state / "timing" / f"{tensorrt.flavour}-{tensorrt.version}-{target(tensorrt)}.cache"


def _keep_timing_cache(path: Path, content: bytes) -> None:
    try:
        keep(path, content)
    except BundleError as error:
        log.warning("%s; the next build measures again", error)


def _gate(
    bundle: Bundle,
    built: list[Sidecar],
    options: CompileOptions,
    staging: Path,
    check: Check | None,
) -> UnavailableError | None:
    """Open the plans on this machine's GPU, which runs the gate on them, and then `check` them.

    Returns None, or why the gate could not run. Raises GateError where it fails.
    """
    reason = unavailable("trt")
    if reason is not None:
        return reason
    if len(built) < len(GRAPHS) * len(bundle.manifest.members):
        return UnavailableError("not every graph of the bundle was built")
    opened = EngineOptions(engine_dir=staging, allow_unverified=True)
    # The captions of `check` were bounded where they were read.
    with load(
        bundle, engine="trt", precision=options.precision, options=opened, max_words=None
    ) as scorer:
        if check is not None:
            check(scorer)
    return None
