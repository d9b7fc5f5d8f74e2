"""The service on Ray, small: what it is made of, what holds its replicas, and clients of it."""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import httpx
from support.served import Client, client_of
from support.small_galleries import IMAGE_IDS, REGIONS

from sgraf_deploy.distributed.config import OnlineConfig
from sgraf_deploy.distributed.online import NAME, Online, front_app, shard_queue
from sgraf_deploy.distributed.replica import Found, ScorerSpec, answer_calls
from sgraf_deploy.distributed.shards import shard_of
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.gallery.rows import Batch
from sgraf_deploy.gallery.store import Gallery
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.serve.answering import Timings
from sgraf_deploy.serve.calls import Call
from sgraf_deploy.serve.keys import Keys
from sgraf_deploy.serve.metrics import Metrics
from sgraf_deploy.serve.server import ServerOptions
from sgraf_deploy.serve.settings import Settings
from sgraf_deploy.serve.worker import Outcomes, Run

LONGEST_S = 60.0
_T = TypeVar("_T")


def sharded_galleries(scorer: Scorer, folder: Path, shards: int) -> tuple[str, ...]:
    """REGIONS by IMAGE_IDS, each image in the gallery of its shard."""
    folder.mkdir()
    paths = []
    for shard in range(shards):
        rows = [row for row, id_ in enumerate(IMAGE_IDS) if shard_of(id_, shards) == shard]
        gallery = Gallery.create(folder / f"{shard}.gallery", scorer, "images")
        ids = [IMAGE_IDS[row] for row in rows]
        gallery.write(Batch.of(ids, scorer.encode_images(REGIONS[rows])))
        paths.append(str(gallery.path))
    return tuple(paths)


def online_of(
    bundle: Path, galleries: Sequence[str], *, port: int, keys: Keys | None = None, **more: Any
) -> Online:
    """An application of a bundle on engine ort, with one thread for each replica."""
    spec = ScorerSpec(str(bundle), "ort", options=EngineOptions(threads=1))
    options = ServerOptions(port=port, shutdown_timeout_s=LONGEST_S)
    config = OnlineConfig(str(bundle), tuple(galleries), **more)
    return Online(config, spec, Settings(timeout_s=LONGEST_S), options, keys)


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@dataclass(frozen=True)
class RayServer:
    """A `support.served.Server` whose calls are scored on Ray.

    Requests with usual settings go to the cluster's address; for others the front is in this
    process, as each of its own on the cluster would take seconds to start.
    """

    scorer: Scorer
    online: Online
    found: Found
    url: str

    def talk(
        self,
        conversation: Callable[[Client], Coroutine[Any, Any, _T]],
        settings: Settings | None = None,
    ) -> _T:
        """Run a test's requests; of the client there is `http`, and with settings `batcher`."""

        async def held() -> _T:
            if settings is None:
                async with httpx.AsyncClient(base_url=self.url, timeout=LONGEST_S) as http:
                    return await conversation(_client(http))
            online = replace(self.online, settings=settings)
            queue, metrics = shard_queue(online, self.handles()), Metrics()
            async with client_of(front_app(online, self.found, queue, metrics)) as http:
                return await conversation(_client(http, queue))

        return asyncio.run(held())

    def handles(self) -> list[Any]:
        """The handles of the shards' replicas."""
        from ray import serve

        count = len(self.online.config.galleries)
        return [serve.get_deployment_handle(f"scorer-{shard}", NAME) for shard in range(count)]


def _client(http: httpx.AsyncClient, queue: Any = None) -> Client:
    nothing: Any = None
    return Client(http, queue, nothing, nothing, [])


@dataclass(frozen=True)
class Held:
    """A `make_run` whose replicas tell that they were given calls, and wait while they are held."""

    folder: Path

    @classmethod
    def create(cls, folder: Path) -> Held:
        """Make the files by which it works."""
        folder.mkdir()
        os.mkfifo(folder / "began")
        (folder / "gate").touch()
        (folder / "door").touch()
        (folder / "answering").mkdir()
        return cls(folder)

    def __call__(self, scorer: Scorer, gallery: Gallery, timings: Timings) -> Run:
        """Answer as the service does, once the gate is open."""
        with (self.folder / "door").open("rb") as door:
            fcntl.flock(door, fcntl.LOCK_SH)
        answer = answer_calls(scorer, gallery, timings)

        def run(calls: Sequence[Call]) -> Outcomes:
            with (self.folder / "gate").open("rb") as gate:
                try:
                    fcntl.flock(gate, fcntl.LOCK_SH | fcntl.LOCK_NB)
                except BlockingIOError:
                    with (self.folder / "began").open("ab", buffering=0) as began:
                        began.write(f"{os.getpid()}\n".encode())
                    fcntl.flock(gate, fcntl.LOCK_SH)
            told = self.folder / "answering" / f"{os.getpid()} {gallery.path.name}"
            with told.open("ab", buffering=0) as file:
                file.write(b".")
            return answer(calls)

        return run

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Let no new replica begin."""
        with (self.folder / "door").open("rb") as door:
            fcntl.flock(door, fcntl.LOCK_EX)
            yield

    def answering(self) -> set[int]:
        """The process ids of all replicas that ever answered more than their own first call."""
        told = (self.folder / "answering").iterdir()
        return {int(path.name.split()[0]) for path in told if path.stat().st_size > 1}

    def answering_for(self, gallery: str) -> set[int]:
        """Those of all that have ever begun with a gallery of this name."""
        return {int(path.name.split()[0]) for path in self.folder.glob(f"answering/* {gallery}")}

    @contextmanager
    def shut(self) -> Iterator[Iterator[int]]:
        """Hold all replicas; gives the process id of each call of an engine that is held."""
        with (
            (self.folder / "gate").open("rb") as gate,
            (self.folder / "began").open("r+b", 0) as began,
        ):
            fcntl.flock(gate, fcntl.LOCK_EX)
            yield map(int, iter(began.readline, b""))


@dataclass(frozen=True)
class Broken:
    """A `make_run` of a replica that cannot be made."""

    def __call__(self, scorer: Scorer, gallery: Gallery, timings: Timings) -> Run:
        """Fail."""
        raise RuntimeError("this replica cannot be made")
