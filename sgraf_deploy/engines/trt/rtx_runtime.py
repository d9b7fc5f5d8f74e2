"""What only TensorRT for RTX has: kernels that are compiled when a plan runs, and kept.

A plan of it holds no kernels for one GPU; they are compiled for each context ("just in time"), and
for each shape again, as `EngineOptions.specialisation` says. What was compiled goes into a runtime
cache, which is kept for the next process. It is native code that no hash of a bundle or of a plan
covers: so it lies in the user's own state, never in a bundle or beside a plan, which may have been
downloaded, and holds for one plan, GPU and version alone.
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
    """How the contexts of one plan are made, and the kernels that they compile."""

    def __init__(
        self, tensorrt: TensorRT, engine: Any, specialisation: Specialisation, path: Path | None
    ) -> None:
        """Read what is at `path`, if it is of use; None keeps nothing."""
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
        """Keep what was compiled, if it is more; a warning where that cannot be done."""
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
        """What was kept, if it is whole and TensorRT takes it; else nothing, and a warning."""
        if self._path is None:
            return b""
        try:
            content = self._path.read_bytes()
        except OSError:  # Mostly it is not there; else `save` says what is wrong.
            return b""
        digest, blob = content[:32], content[32:]
        if hashlib.sha256(blob).digest() == digest and self._cache.deserialize(blob):
            return blob
        log.warning("%s is damaged or of another machine; kernels are compiled again", self._path)
        return b""


def kernels_path(mark: Mark) -> Path | None:
    """Where the kernels of a plan are kept, by plan, TensorRT and GPU; None without a state."""
    state = state_folder()
    if state is None:
        return None
    key = (mark.plan_sha256, mark.flavour, mark.version, mark.device, mark.compute_capability)
    return state / "kernels" / f"{hashlib.sha256(repr(key).encode()).hexdigest()}.cache"
