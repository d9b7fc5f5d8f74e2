"""The service as a Ray Serve application: fronts that read requests, replicas that score.

A front is the service's own application, whose queue sends calls to the replicas of each shard of
the gallery. Whatever is run again replaces what runs, one replica after the other.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sgraf_deploy.distributed.config import OnlineConfig
from sgraf_deploy.distributed.front import Patience, ShardImages, ShardQueue
from sgraf_deploy.distributed.handles import HandleProcesses, HandleShard, answering
from sgraf_deploy.distributed.metrics import FrontMetrics, Told
from sgraf_deploy.distributed.replica import (
    Found,
    MakeRun,
    ScorerReplica,
    ScorerSpec,
    answer_calls,
    listen_at_the_node,
    replica_id,
    try_out,
)
from sgraf_deploy.errors import BundleError, InputError, SgrafDeployError, UnavailableError
from sgraf_deploy.serve.app import App, build_front
from sgraf_deploy.serve.documents import Reader
from sgraf_deploy.serve.keys import Keys
from sgraf_deploy.serve.metrics import RequestMetrics
from sgraf_deploy.serve.server import ServerOptions
from sgraf_deploy.serve.settings import Settings

NAME = "sgraf-deploy"
"""The application's name on the cluster."""
FRONT = "front"
"""The name of the fronts' deployment."""
MOST_AT_ONCE = 10_000
"""The most calls that a replica has at a time: its own queue says what is too much, in pairs."""
CONSTRUCTOR_ATTEMPTS = 2
HEALTH_S = 2.0
"""Seconds between Ray's looks at each replica."""
NOTICED_S = 5 * HEALTH_S
"""Seconds in which Ray should have noticed a replica that ended."""
LOOK_S = 0.2
"""Seconds between two looks whether it has."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Online:
    """An application: what it scores with, and how it reads requests and listens."""

    config: OnlineConfig
    spec: ScorerSpec
    settings: Settings
    options: ServerOptions
    keys: Keys | None = None


class Entrance:
    """The ASGI application that Ray wraps: that of the front which runs in this process."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request, or take part in the application's start and end."""
        from ray import serve

        if scope["type"] == "lifespan":
            for what in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{what}.complete"})
            return
        front: Any = serve.get_replica_context().servable_object
        await front.asgi(scope, receive, send)


class Front:
    """A process that reads requests, and has the replicas of the shards answer them."""

    def __init__(self, online: Online, found: Found, *handles: Any) -> None:
        from ray import serve

        listen_at_the_node()
        fronts = HandleProcesses(serve.get_deployment_handle(FRONT, NAME, _check_exists=False))
        shards = [HandleProcesses(handle) for handle in handles]
        self._metrics = FrontMetrics(replica_id(), fronts, shards)
        self.asgi = front_app(online, found, shard_queue(online, handles), self._metrics)

    async def told(self) -> Told:
        """What this front has counted and timed."""
        return self._metrics.told()


def shard_queue(online: Online, handles: Sequence[Any]) -> ShardQueue:
    """The queue over the handles of the shards, in their order."""
    return ShardQueue([HandleShard(each) for each in handles], Patience(online.config.down_s))


def front_app(online: Online, found: Found, queue: ShardQueue, metrics: RequestMetrics) -> App:
    """The service's application over the shards of a queue."""
    return build_front(
        queue,
        ShardImages(queue.shards, queue.patience),
        Reader(online.settings, found.regions, found.img_dim),
        keys=online.keys,
        metrics=metrics,
        read_only=True,
    )


def application(online: Online, found: Found, make_run: MakeRun = answer_calls) -> Any:
    """The Ray Serve application."""
    from ray import serve

    config = online.config
    common = {
        "max_ongoing_requests": MOST_AT_ONCE,
        "graceful_shutdown_timeout_s": online.options.shutdown_timeout_s,
        "health_check_period_s": HEALTH_S,
        "max_constructor_retry_count": CONSTRUCTOR_ATTEMPTS,
    }
    scorer = serve.deployment(
        ScorerReplica,
        num_replicas=config.replicas,
        **common,
    )
    needs: dict[str, Any] = {"num_cpus": config.cpus, "num_gpus": config.gpus}
    shards = [
        scorer.options(
            name=f"scorer-{shard}",
            ray_actor_options={**needs, "resources": config.resources(shard)},
        ).bind(online.spec, found.sha256, path, make_run)
        for shard, path in enumerate(config.galleries)
    ]
    front = serve.deployment(
        serve.ingress(Entrance())(Front),
        name=FRONT,
        num_replicas=config.fronts,
        ray_actor_options={"num_cpus": 0},
        **common,
    )
    return front.bind(online, found, *shards)


def deploy(online: Online, *, make_run: MakeRun = answer_calls) -> str:
    """Run an application on the cluster that this process is connected to; returns its URL.

    What runs already is replaced, one replica after the other. The bundle and the galleries are
    tried out first, on a node of the cluster: if they cannot be used, nothing changes.

    Raises:
        SgrafDeployError: they cannot be used.
        InputError: the cluster listens at another address already.
        UnavailableError: replicas do not start; those of before go on, as far as they are left.
    """
    found = tried(online)
    start(online)
    run(application(online, found, make_run))
    scheme = "http" if online.options.certificate is None else "https"
    return f"{scheme}://{online.options.host}:{online.options.port}"


def tried(online: Online) -> Found:
    """What the bundle is, once it was loaded with each gallery on a node that has it.

    Raises:
        SgrafDeployError: that failed; or nodes have different bundles.
        InputError: no node has the resource of a shard.
    """
    import ray

    spec, config = online.spec, online.config
    there = ray.cluster_resources()
    tasks = []
    for shard, path in enumerate(config.galleries):
        resources = config.resources(shard)
        for name in resources:
            if name not in there:
                raise InputError(
                    f"resource {name}",
                    expected=f"a node that has it, and {path}",
                    got="none",
                    hint=f"ray start --resources='{{\"{name}\": 1}}'",
                )
        task = ray.remote(num_cpus=0, num_gpus=config.gpus, max_retries=0, resources=resources)
        tasks.append(task(try_out).remote(spec, path))
    found: list[Found | SgrafDeployError] = ray.get(tasks)
    for one in found:
        if isinstance(one, SgrafDeployError):
            raise one
    bundles = {one for one in found if isinstance(one, Found)}
    if len(bundles) > 1:
        got = ", ".join(sorted(one.sha256 for one in bundles))
        raise BundleError(f"bundle {spec.bundle}", expected="the same on every node", got=got)
    return bundles.pop()


def start(online: Online) -> None:
    """Have the cluster listen.

    Raises:
        InputError: it does so already, at another address or with another certificate.
    """
    from ray import serve
    from ray.serve.context import _get_global_client

    wanted = http_options(online.options)
    location = "EveryNode" if online.config.every_node else "HeadOnly"
    serve.start(proxy_location=location, http_options=dict(wanted))
    has = _get_global_client().http_config
    for name, value in wanted.items():
        if getattr(has, name) != value:
            raise InputError(
                f"Ray Serve's option {name}",
                expected=f"{value!r}, as was asked for",
                got=f"{getattr(has, name)!r}, as the cluster serves already",
                hint="run `sgraf-deploy serve --ray` with --stop first",
            )


def http_options(options: ServerOptions) -> dict[str, Any]:
    """What Ray Serve is told of where to listen."""
    certificate, key = options.certificate, options.private_key
    return {
        "host": options.host,
        "port": options.port,
        "keep_alive_timeout_s": options.keep_alive_s,
        "ssl_certfile": None if certificate is None else str(certificate),
        "ssl_keyfile": None if key is None else str(key),
    }


def run(built: Any) -> None:
    """Run a Ray Serve application, in place of the one before it.

    Raises:
        UnavailableError: its replicas do not start.
    """
    from ray import serve

    _until_noticed()
    try:
        serve.run(built, name=NAME, route_prefix="/")
    except RuntimeError as error:
        raise UnavailableError(
            "the new replicas did not start",
            got=str(error)[-500:],
            hint="those of before go on, as far as they are left: `sgraf-deploy serve --ray` with "
            "the former file makes them complete again",
        ) from error


def _until_noticed() -> None:
    """Wait until Ray counts no replica as running that has ended, unless that takes too long.

    Ray would stop another one, which may be the last, before it starts a successor.
    """
    from ray import serve

    end = time.monotonic() + NOTICED_S
    while (left := end - time.monotonic()) > 0:
        running = _running()
        handles = {name: serve.get_deployment_handle(name, NAME) for name in running}
        if all(answering(handles[name], left) >= count for name, count in running.items()):
            return
        time.sleep(LOOK_S)
    log.warning("a replica that counts as running does not answer; the update goes on")


def _running() -> dict[str, int]:
    """How many replicas of each of the application's deployments count as running."""
    from ray import serve

    found = serve.status().applications.get(NAME)
    deployments = {} if found is None else found.deployments
    return {name: each.replica_states.get("RUNNING", 0) for name, each in deployments.items()}


def stop() -> None:
    """End the application, and what listens for it."""
    from ray import serve

    serve.shutdown()
