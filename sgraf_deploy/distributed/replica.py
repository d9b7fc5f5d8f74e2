"""What a replica on Ray does: scores with one bundle and one gallery, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from sgraf_deploy.config import Precision
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.distributed.metrics import Told
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.errors import BundleError, SgrafDeployError, UnavailableError
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime.scorer import Scorer, load
from sgraf_deploy.serve.answering import Answerer, Timings
from sgraf_deploy.serve.batcher import Batcher
from sgraf_deploy.serve.calls import Answer, Call, RequestError
from sgraf_deploy.serve.documents import Reader
from sgraf_deploy.serve.health import probe_call
from sgraf_deploy.serve.images import Images
from sgraf_deploy.serve.metrics import BatchMetrics
from sgraf_deploy.serve.queue import BatchLimits
from sgraf_deploy.serve.settings import Settings
from sgraf_deploy.serve.worker import Run


@dataclass(frozen=True)
class ScorerSpec:
    """How a replica loads a bundle, whose paths are those of its node."""

    bundle: str
    engine: str = "auto"
    precision: Precision | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    max_words: int | None = MAX_WORDS
    resident: int | Literal["all"] = 0
    limits: BatchLimits = field(default_factory=BatchLimits)
    watchdog_s: float = 60.0
    prune: bool = True

    def load(self) -> Scorer:
        """The scorer."""
        return load(
            self.bundle,
            self.engine,
            self.precision,
            options=self.options,
            max_words=self.max_words,
            prune=self.prune,
        )


@dataclass(frozen=True)
class Found:
    """What a bundle is: its sha256, and the dimensions of its images."""

    sha256: str
    regions: int
    img_dim: int


MakeRun = Callable[[Scorer, Gallery, Timings], Run]
"""What answers the calls of a replica."""


def answer_calls(scorer: Scorer, gallery: Gallery, timings: Timings | None = None) -> Run:
    """Answer calls as the service does."""
    return Answerer(scorer, gallery, timings=timings).answer_many


def try_out(spec: ScorerSpec, path: str) -> Found | SgrafDeployError:
    """Load a bundle and open a gallery, as a replica will; the error if that fails."""
    try:
        with Gallery.open(path) as gallery, spec.load() as scorer:
            answer_calls(scorer, gallery)
            manifest = scorer.bundle.manifest
            return Found(scorer.bundle.sha256, manifest.regions, manifest.img_dim)
    except SgrafDeployError as error:
        return error


def listen_at_the_node() -> None:
    """Have this process's replica listen at the address of its node, before it begins to.

    Ray would have each replica listen at every address of the machine, for calls that this
    application sends in another way.

    Raises:
        UnavailableError: this version of Ray does it in another way.
    """
    import ray.util
    from ray.serve._private import replica

    add_port = getattr(replica, "add_port_to_grpc_server", None)
    if add_port is None:
        raise UnavailableError("Ray", expected="a version that was tried", got=ray.__version__)
    host = ray.util.get_node_ip_address()
    host = f"[{host}]" if ":" in host else host

    def add_here(server: Any, address: str) -> Any:
        return add_port(server, f"{host}:{address.rpartition(':')[2]}")

    replica.add_port_to_grpc_server = add_here


def replica_id() -> str:
    """The id of this process's replica, as Ray's own metrics name it."""
    from ray import serve

    return str(serve.get_replica_context().replica_id.unique_id)


class ScorerReplica:
    """A process that scores with a bundle and a gallery.

    It is made in the event loop that its methods are called in, and has scored a pair before it is
    there: engines load what they need upon their first call, for which clients would wait.

    Raises:
        SgrafDeployError: the bundle cannot be loaded or is not the one that is expected; or the
            gallery is not one of its; or no pair can be scored.
    """

    async def __init__(  # type: ignore[misc]  # Ray awaits it
        self, spec: ScorerSpec, sha256: str, gallery: str, make_run: MakeRun = answer_calls
    ) -> None:
        listen_at_the_node()
        self._watchdog_s = spec.watchdog_s
        self._open = ExitStack()
        self._replica, self._metrics = replica_id(), BatchMetrics()
        scorer, opened, run = await asyncio.to_thread(self._load, spec, gallery, make_run)
        if scorer.bundle.sha256 != sha256:
            raise BundleError(
                f"bundle {spec.bundle} on this node", expected=sha256, got=scorer.bundle.sha256
            )
        manifest = scorer.bundle.manifest
        reader = Reader(Settings(), manifest.regions, manifest.img_dim)
        self._images = Images(scorer, opened, reader)
        self._metrics.watch(scorer, opened)
        self._batcher = await Batcher(run, spec.limits, observer=self._metrics).__aenter__()
        probe = probe_call(manifest.regions, manifest.img_dim)
        await self._batcher.submit(probe, spec.watchdog_s, urgent=True)

    def _load(
        self, spec: ScorerSpec, gallery: str, make_run: MakeRun
    ) -> tuple[Scorer, Gallery, Run]:
        opened = self._open.enter_context(Gallery.open(gallery, resident=spec.resident))
        scorer = self._open.enter_context(spec.load())
        return scorer, opened, make_run(scorer, opened, self._metrics)

    async def answer(self, call: Call, timeout_s: float, urgent: bool) -> Answer | RequestError:
        """Answer a call; what it is refused with is returned, as Ray would log what is raised."""
        try:
            return await self._batcher.submit(call, timeout_s, urgent=urgent)
        except RequestError as error:
            return error

    async def details(self, id_: str) -> dict[str, Any] | RequestError:
        """What is kept beside an image's regions."""
        try:
            return await self._images.get(id_)
        except RequestError as error:
            return error

    async def told(self) -> Told:
        """What this replica has counted and timed."""
        return Told.of(self._replica, self._metrics)

    def check_health(self) -> None:
        """Raise if the engine has ended or hangs; Ray then replaces this replica."""
        state = self._batcher.state
        if not state.alive or state.busy_s > self._watchdog_s:
            raise RuntimeError("the engine has ended or hangs")
