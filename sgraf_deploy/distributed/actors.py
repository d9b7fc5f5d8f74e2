"""Who does a job's pieces: a worker in this process, or actors of Ray, each with a worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Generic, Protocol, Self, TypeVar

from sgraf_deploy.data.findings import Finding
from sgraf_deploy.distributed.cluster import connected
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.errors import DeviceError, InputError, SgrafDeployError

RESTARTS = 10
"""How often an actor is started anew, elsewhere if its node is gone; a piece that kills every actor
ends a job that way. Pieces are retried without limit: each attempt to reach a node that is gone
counts as one, for as long as Ray takes it for alive."""


P_contra = TypeVar("P_contra", contravariant=True)
D_co = TypeVar("D_co", covariant=True)


class Worker(Protocol[P_contra, D_co]):
    """Does pieces of work one after the other, where it is."""

    def prepare(self) -> Sequence[Finding]:
        """Do what comes before all pieces; returns what is to be told of the data."""

    def run(self, piece: P_contra) -> D_co:
        """Do a piece."""

    def close(self) -> None:
        """Release what it holds."""


class Runner(Protocol[P_contra, D_co]):
    """Does pieces of work, in any order."""

    @property
    def workers(self) -> int:
        """How many do pieces at the same time."""

    def prepare(self) -> Sequence[Finding]:
        """Do what comes before all pieces; raises as the worker."""

    def run(self, pieces: Sequence[P_contra]) -> Iterator[D_co]:
        """Yield pieces as they are finished; raises as the worker."""


class LocalRunner(Generic[P_contra, D_co]):
    """Does pieces one after the other in this process, without Ray."""

    workers = 1

    def __init__(self, worker: Worker[P_contra, D_co]) -> None:
        self._worker = worker

    def prepare(self) -> Sequence[Finding]:
        """Do what comes before all pieces."""
        return self._worker.prepare()

    def run(self, pieces: Sequence[P_contra]) -> Iterator[D_co]:
        """Yield each piece once it is finished."""
        yield from map(self._worker.run, pieces)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._worker.close()


@dataclass(frozen=True)
class Slots:
    """What each actor takes of its node."""

    cpus: int
    gpus: int

    @classmethod
    def of(cls, options: EngineOptions) -> Slots:
        """What a scorer takes; InputError for a GPU by its number, which Ray chooses."""
        device = options.device or "cpu"
        if device.startswith("cuda:"):
            hint = "use --device cuda: each actor gets a GPU of its own"
            raise InputError("--device with --ray", expected="cpu or cuda", got=device, hint=hint)
        return cls(options.threads or 1, int(device == "cuda"))

    def on(self, resources: dict[str, float]) -> int:
        """How many actors a node of these resources has room for."""
        room = int(resources.get("CPU", 0)) // self.cpus
        return min(room, int(resources.get("GPU", 0)) // self.gpus) if self.gpus else room


class RayRunner(Generic[P_contra, D_co]):
    """Does pieces in actors, which Ray starts anew elsewhere when they are lost."""

    def __init__(self, actors: Sequence[Any]) -> None:
        self._actors = actors

    @property
    def workers(self) -> int:
        """The number of actors."""
        return len(self._actors)

    def prepare(self) -> Sequence[Finding]:
        """Let the first actor do what comes before all pieces."""
        import ray

        with _translated():
            found: Sequence[Finding] = ray.get(self._actors[0].prepare.remote())
            return found

    def run(self, pieces: Sequence[P_contra]) -> Iterator[D_co]:
        """Yield pieces as they are finished; an actor has one at a time."""
        from ray.util import ActorPool

        pool = ActorPool(self._actors)
        with _translated():
            yield from pool.map_unordered(lambda actor, piece: actor.run.remote(piece), pieces)


@contextmanager
def ray_runner(
    worker: Callable[[], Worker[P_contra, D_co]],
    options: EngineOptions,
    *,
    address: str | None,
    actors: int | None,
) -> Iterator[RayRunner[P_contra, D_co]]:
    """Start actors on a cluster, by default as many as it has room for, until the block ends.

    Each is what `worker` makes there. It takes a CPU for each thread and, for a scorer on a GPU, a
    GPU. Raises as `connected`, and InputError for more actors than there is room for.
    """
    slots = Slots.of(options)
    with connected(address), ExitStack() as stack:
        import ray

        room = sum(slots.on(node["Resources"]) for node in ray.nodes() if node["Alive"])
        wanted = room if actors is None else actors
        if not 1 <= wanted <= room:
            each = f"{slots.cpus} CPU" + (", 1 GPU" if slots.gpus else "")
            hint = "ask for fewer actors or threads, or add nodes to the cluster"
            what = f"actors of {each} on this cluster"
            raise InputError(what, expected=f"1 … {room}", got=wanted, hint=hint)
        kind = ray.remote(
            num_cpus=slots.cpus, num_gpus=slots.gpus, max_restarts=RESTARTS, max_task_retries=-1
        )(_Actor)
        handles = [kind.remote(worker) for _ in range(wanted)]
        for handle in handles:
            stack.callback(ray.kill, handle)
        yield RayRunner(handles)


class _Actor:
    """A worker in a process of Ray's."""

    def __init__(self, worker: Callable[[], Worker[Any, Any]]) -> None:
        self._worker = worker()

    def prepare(self) -> Sequence[Finding]:
        return self._worker.prepare()

    def run(self, piece: Any) -> Any:
        return self._worker.run(piece)


@contextmanager
def _translated() -> Iterator[None]:
    """Raise what an actor raised as it was raised there, and its loss as DeviceError."""
    from ray.exceptions import RayActorError, RayTaskError

    try:
        yield
    except RayTaskError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, SgrafDeployError):
            raise cause from error
        raise
    except RayActorError as error:
        raise DeviceError(
            "an actor of the job",
            expected=f"it to end after at most {RESTARTS} new starts",
            got=str(error).splitlines()[0],
            hint="see Ray's log for why it died, often memory; the same command goes on",
        ) from error
