"""The replicas of a deployment by Ray Serve's handle: one of them answers, or each tells."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from sgraf_deploy.distributed.front import NoReplicaError, ReplicaLostError
from sgraf_deploy.distributed.metrics import Told
from sgraf_deploy.serve.calls import Answer, Call, FailedError, RequestError

log = logging.getLogger(__name__)


class HandleShard:
    """The replicas of a shard, by Ray Serve's handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def answer(
        self, call: Call, timeout_s: float, urgent: bool, taken_s: float
    ) -> Answer | RequestError:
        """Have one replica answer a call."""
        found: Answer | RequestError
        found = await _answered(self._handle.answer.remote(call, timeout_s, urgent), taken_s)
        return found

    async def details(self, id_: str, taken_s: float) -> dict[str, Any] | RequestError:
        """Have one replica tell what is kept beside an image."""
        found: dict[str, Any] | RequestError
        found = await _answered(self._handle.details.remote(id_), taken_s)
        return found


async def _answered(response: Any, taken_s: float) -> Any:
    """Wait until a replica takes a call, which one that is there does at once; then for it."""
    from ray.exceptions import RayError, RayTaskError
    from ray.serve.exceptions import RayServeException

    try:
        try:
            async with asyncio.timeout(taken_s):
                await response._to_object_ref()
        except TimeoutError as error:
            response.cancel()
            raise NoReplicaError from error
        return await response
    except asyncio.CancelledError:
        response.cancel()
        raise
    except RayServeException as error:
        raise NoReplicaError from error
    except RayTaskError as error:
        what = "the replica failed on this request"
        raise FailedError(what, got=type(error.cause).__name__) from error
    except RayError as error:
        raise ReplicaLostError(type(error).__name__) from error


class HandleProcesses:
    """The replicas of a deployment, each of which tells its metrics, by Ray Serve's handle."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    async def told(self, timeout_s: float) -> Sequence[Told | None]:
        """What each replica tells; nothing where none is there."""
        from ray.serve.exceptions import RayServeException

        end = asyncio.get_running_loop().time() + timeout_s
        try:
            async with asyncio.timeout_at(end):
                asked = await self._handle.broadcast("told")._fetch_replica_results_async()
        except (RayServeException, TimeoutError):
            return []
        return await asyncio.gather(*(_told(each, end) for each in asked))


async def _told(asked: Any, end: float) -> Told | None:
    """What a replica tells before the loop's time `end`."""
    from ray.exceptions import RayError

    try:
        async with asyncio.timeout_at(end):
            found: Told = await asked.get_async()
            return found
    except TimeoutError:
        asked.cancel()
    except RayError as error:
        log.info("a replica tells no metrics: %s", type(error).__name__)
    return None


def answering(handle: Any, timeout_s: float) -> int:
    """How many of a deployment's replicas answer within so many seconds, from without the cluster.

    One that fails answers, too.
    """
    from ray.exceptions import RayTaskError
    from ray.serve.exceptions import RayServeException

    asked = handle.broadcast("told")
    try:
        found = asked.results(timeout_s=timeout_s, return_exceptions=True)
    except (RayServeException, TimeoutError):
        return 0
    return sum(isinstance(each, Told | RayTaskError) for each in found)
