"""What was made in a CUDA context and is not destroyed yet; the context is released last."""

from __future__ import annotations

import logging
import os
from typing import Any

log = logging.getLogger(__name__)


class Resources:
    """The streams, events, graphs and blocks of memory of one GPU's primary context.

    Python finalises objects that refer to each other, and those that are left at exit, in no
    particular order. So each resource is destroyed once, by whichever comes first: the object that
    it belongs to, or `release`, after which nothing is left to be destroyed. Any thread may call
    these methods at any time, as a garbage collection may start anywhere. They raise nothing: an
    error of the GPU also shows in every later call of its driver.
    """

    def __init__(self, driver: Any, device: Any, context: Any) -> None:
        """Take a primary context that the caller retained."""
        self._driver, self._device, self._context = driver, device, context
        self._process = os.getpid()
        self._made: dict[tuple[str, int], None] = {}
        self.released = False

    def add(self, destroy: str, handle: Any) -> None:
        """Remember a handle that the driver made, and the driver's call that destroys it."""
        self._made[destroy, int(handle)] = None

    def drop(self, destroy: str, handle: Any) -> None:
        """Destroy a handle, unless it was destroyed before."""
        try:
            del self._made[destroy, int(handle)]  # One operation: threads may race for it.
        except KeyError:
            return
        self._try("cuCtxSetCurrent", self._context)
        self._try(destroy, int(handle))

    def release(self) -> None:
        """Destroy what is left, the latest first, and release the context; once."""
        if self.released:
            return
        self.released = True
        for destroy, handle in reversed(list(self._made)):
            self.drop(destroy, handle)
        self._try("cuDevicePrimaryCtxRelease", self._device)

    def _try(self, call: str, argument: Any) -> None:
        if os.getpid() != self._process:
            return  # A forked child has no GPU, and must not destroy what its parent uses.
        (status,) = getattr(self._driver, call)(argument)
        if int(status):
            log.debug("%s failed: %s", call, status.name)
