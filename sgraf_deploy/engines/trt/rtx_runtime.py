"""The kernels that TensorRT for RTX compiles when a plan runs, and the cache that keeps them.

Its plans hold no kernels for one GPU. They are compiled just in time for each context, and again
for each shape, as `EngineOptions.specialisation` says, into a runtime cache that is kept for the
next process. That is native code that no hash of a bundle or plan covers. So it lies in the user's
state, never in a bundle or beside a plan, which may have been downloaded, and is used only for the
same plan, GPU and version.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sgraf_deploy.engines.base import Specialisation
from sgraf_deploy.engines.state import Mark, keep, state_folder
from sgraf_deploy.engines.trt.library import TensorRT
from sgraf_deploy.errors import BundleError, DeviceError

if TYPE_CHECKING:
    import tensorrt as api

log = logging.getLogger(__name__)


class RtxRuntime:
    """The runtime configuration of one plan's contexts, and the kernels that they compile."""

    def __init__(
        self, tensorrt: TensorRT, engine: Any, specialisation: Specialisation, path: Path | None
    ) -> None:
        """Read the kernels that are kept at `path`; with None nothing is kept."""
        module, self._path = tensorrt.module, path
        self.config = engine.create_runtime_config()
        self.config.set_execution_context_allocation_strategy(
            module.ExecutionContextAllocationStrategy.USER_MANAGED
        )
        strategies = module.DynamicShapesKernelSpecializationStrategy
        self.config.dynamic_shapes_kernel_specialization_strategy = {
            "lazy": strategies.LAZY,
            "eager": strategies.EAGER,
            "none": strategies.NONE,
        }[specialisation]
        # Runs are captured here, where each graph has a context of its own.
        self.config.cuda_graph_strategy = module.CudaGraphStrategy.DISABLED
        self._cache = self.config.create_runtime_cache()
        self._read = self._load()
        if not self.config.set_runtime_cache(self._cache):
            raise DeviceError(f"{tensorrt} does not take a runtime cache")

    def save(self) -> None:
        """Keep what was compiled, if it is new; a warning where it cannot be written."""
        if self._path is None:
            return
        found = cast("api.IHostMemory | None", self._cache.serialize())
        blob = b"" if found is None else bytes(found)
        if not blob or blob == self._read:
            return
        try:
            keep(self._path, hashlib.sha256(blob).digest() + blob)
        except BundleError as error:
            log.warning("%s; TensorRT for RTX compiles again in the next process", error)

    def _load(self) -> bytes:
        """The kernels that were kept; none, with a warning, if they are damaged or do not fit."""
        if self._path is None:
            return b""
        try:
            content = self._path.read_bytes()
        except OSError:  # Mostly there is none yet; otherwise `save` says what is wrong.
            return b""
        digest, blob = content[:32], content[32:]
        if hashlib.sha256(blob).digest() == digest and self._cache.deserialize(blob):
            return blob
        log.warning("%s is damaged or of another machine; kernels are compiled again", self._path)
        return b""


def kernels_path(mark: Mark) -> Path | None:
    """Where a plan's kernels are kept, by plan, TensorRT and GPU; None without a state folder."""
    state = state_folder()
    if state is None:
        return None
    key = (mark.plan_sha256, mark.flavour, mark.version, mark.device, mark.compute_capability)
    return state / "kernels" / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.cache"
