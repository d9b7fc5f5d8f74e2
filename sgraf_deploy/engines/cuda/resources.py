"""What was made in a CUDA context and is not destroyed yet, which the context outlives."""

from __future__ import annotations

import logging
import os
from typing import Any

log = logging.getLogger(__name__)


class Resources:
    """The streams, events, graphs and blocks of memory of one GPU's primary context.

    Python collects objects that refer to each other in any order, and those that are left when it
    ends in no order at all. So each is destroyed once, whoever comes first: by the object that it
    belongs to, or by `release`, after which there is nothing to be destroyed any more. Any thread
    may call, at any time: a garbage collection begins wherever it likes. Nothing is raised: what
    is wrong with a GPU, every later call of its driver says as well.
    """

    def __init__(self, driver: Any, device: Any, context: Any) -> None:
        """Take a primary context that was retained."""
        self._driver, self._device, self._context = driver, device, context
        self._process = os.getpid()
        self._made: dict[tuple[str, int], None] = {}
        self.released = False

    def add(self, destroy: str, handle: Any) -> None:
        """Remember what the driver made, and which of its calls destroys it."""
        self._made[destroy, int(handle)] = None

    def drop(self, destroy: str, handle: Any) -> None:
        """Destroy it, if it is still there."""
        try:
            del self._made[destroy, int(handle)]  # One operation: threads may race for it.
        except KeyError:
            return
        self._try("cuCtxSetCurrent", self._context)
        self._try(destroy, int(handle))

    def release(self) -> None:
        """Destroy what is left, the latest first, and let go of the context; once."""
        if self.released:
            return
        self.released = True
        for destroy, handle in reversed(list(self._made)):
            self.drop(destroy, handle)
        self._try("cuDevicePrimaryCtxRelease", self._device)

    def _try(self, call: str, argument: Any) -> None:
        if os.getpid() != self._process:
            return  # The child of a fork has no GPU, and nothing on it is the child's to destroy.
        (status,) = getattr(self._driver, call)(argument)
        if int(status):
            log.debug("%s failed: %s", call, status.name)
