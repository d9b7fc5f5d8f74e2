"""The replicas of a deployment by Ray Serve's handle."""

from __future__ import annotations

import asyncio
from typing import Any

from sgraf_deploy.distributed.front import NoReplicaError, ReplicaLostError
from sgraf_deploy.serve.calls import Answer, Call, FailedError, RequestError


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
