"""Builds a bundle's engines, passes them through the gate where a GPU is, publishes them."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.compile.build import CompileOptions, Planned, compile_graph, target
from sgraf_deploy.config import GRAPHS
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.engines.registry import unavailable
from sgraf_deploy.engines.state import keep, state_folder
from sgraf_deploy.engines.trt.library import TensorRT
from sgraf_deploy.engines.trt.plans import Sidecar, engine_folder, replace_file, write_plan
from sgraf_deploy.errors import BundleError, UnavailableError
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.scorer import Scorer, load

Check = Callable[[Scorer], object]
"""Raises GateError for engines that must not be published."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """Engines that are in place, and why they were not compared with the reference, if so."""

    folder: Path
    sidecars: tuple[Sidecar, ...]
    unverified: UnavailableError | None


def publish_engines(
    bundle: Bundle,
    planned: list[Planned],
    tensorrt: TensorRT,
    options: CompileOptions,
    *,
    stage: Callable[[str], Progress | None] = lambda name: None,
    check: Check | None = None,
) -> Published:
    """Build every planned engine; publish them together once all are built, and compared.

    Where there is a GPU, the engines first pass the gate on it, and `check`. Raises what
    `compile_graph` raises and GateError for a bound; nothing is published then.
    """
    folder = engine_folder(bundle, options.engine_dir)
    timing = _timing(tensorrt)
    with tempfile.TemporaryDirectory(prefix="sgraf-engines-") as temporary:
        staging = Path(temporary)
        staged = engine_folder(bundle, staging)
        staged.mkdir()
        measured = staging / "timing.cache"
        if timing is not None and timing.is_file():
            replace_file(measured, timing.read_bytes())
        built = []
        for one in planned:
            progress = stage(one.name)
            sidecar, plan = compile_graph(one, tensorrt, options, measured, progress)
            write_plan(staged, plan, sidecar)
            built.append(sidecar)
        reason = _verify(bundle, built, options, staging, check)
        for sidecar in built:
            write_plan(folder, (staged / sidecar.plan).read_bytes(), sidecar)
        if timing is not None and measured.is_file():
            _keep_timing(timing, measured.read_bytes())
    return Published(folder, tuple(built), reason)


def _timing(tensorrt: TensorRT) -> Path | None:
    """Where TensorRT's measurements are kept: with this user, as a bundle's would be untrusted."""
    state = state_folder()
    if state is None:
        return None
    return state / "timing" / f"{tensorrt.flavour}-{tensorrt.version}-{target(tensorrt)}.cache"


def _keep_timing(path: Path, content: bytes) -> None:
    try:
        keep(path, content)
    except BundleError as error:
        log.warning("%s; the next build measures again", error)


def _verify(
    bundle: Bundle,
    built: list[Sidecar],
    options: CompileOptions,
    staging: Path,
    check: Check | None,
) -> UnavailableError | None:
    """Open the engines on the GPU that is here, which compares them; why not, if there is none."""
    reason = unavailable("trt")
    if reason is not None:
        return reason
    if len(built) < len(GRAPHS) * len(bundle.manifest.members):
        return UnavailableError("not every graph of the bundle was built")
    opened = EngineOptions(engine_dir=staging, allow_unverified=True)
    # Captions of the check were bounded where they were read.
    with load(
        bundle, engine="trt", precision=options.precision, options=opened, max_words=None
    ) as scorer:
        if check is not None:
            check(scorer)
    return None
