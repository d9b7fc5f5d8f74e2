"""`Cuda` on NVIDIA's driver, through cuda-bindings: neither PyTorch nor PyCUDA."""

from __future__ import annotations

import ctypes
import importlib.util
import weakref
from typing import Any

import numpy as np

from sgraf_deploy.engines.cuda.api import Bytes, Gather, RankTile
from sgraf_deploy.engines.cuda.kernels import THREADS, UNITS, compile_kernels, unit_of
from sgraf_deploy.engines.cuda.resources import Resources
from sgraf_deploy.engines.gpu import Gpu, find_gpu
from sgraf_deploy.engines.registry import CUDA_INSTALL
from sgraf_deploy.errors import DeviceError, EngineMemoryError, UnavailableError

_MOST_BLOCKS = 4096


def check_cuda(ordinal: int = 0) -> Gpu:
    """The GPU of that number, not opened; UnavailableError where `open_cuda` would raise one."""
    gpu = find_gpu(ordinal)
    if (
        importlib.util.find_spec("cuda") is None
        or importlib.util.find_spec("cuda.bindings") is None
    ):
        raise UnavailableError("cuda-bindings is not installed", hint=CUDA_INSTALL)
    return gpu


def open_cuda(ordinal: int = 0) -> CudaDriver:
    """The GPU of that number, in its primary context, which TensorRT and ONNX Runtime share.

    Raises UnavailableError without a driver, a GPU of that number, cuda-bindings or NVRTC.
    """
    gpu = find_gpu(ordinal)
    try:
        from cuda.bindings import driver
    except ImportError as error:
        raise UnavailableError(
            "cuda-bindings is not available", got=error, hint=CUDA_INSTALL
        ) from error
    return CudaDriver(driver, ordinal, gpu.name, gpu.compute_capability)


class CudaDriver:
    """See `Cuda`; it retains the GPU's primary context for as long as it lives.

    Whatever was made with it and still exists is destroyed with it.
    """

    def __init__(self, driver: Any, ordinal: int, name: str, compute_capability: str) -> None:
        """Retain the primary context and load the kernels."""
        self.name, self.compute_capability = name, compute_capability
        self._driver = driver
        code = compile_kernels(compute_capability)
        self._call("cuInit", 0)
        self._device = self._call("cuDeviceGet", ordinal)
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)
        self._resources = Resources(driver, self._device, self._context)
        weakref.finalize(self, self._resources.release)  # Also when the interpreter ends.
        self.activate()
        module = self._make("cuModuleUnload", self._call("cuModuleLoadData", code))
        self._gather = {
            unit: self._call("cuModuleGetFunction", module, f"gather_{unit}".encode())
            for unit in UNITS
        }
        self._count_ranks = self._call("cuModuleGetFunction", module, b"count_ranks")

    def activate(self) -> None:  # noqa: D102
        if not self._resources.released:
            self._call("cuCtxSetCurrent", self._context)

    def memory(self) -> tuple[int, int]:  # noqa: D102
        free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def allocate(self, size: int) -> int:  # noqa: D102
        return int(self._make("cuMemFree", self._call("cuMemAlloc", size)))

    def free(self, pointer: int) -> None:  # noqa: D102
        self._resources.drop("cuMemFree", pointer)

    def allocate_pinned(self, size: int) -> Bytes:  # noqa: D102
        address = int(self._make("cuMemFreeHost", self._call("cuMemHostAlloc", size, 0)))
        memory: Bytes = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        return memory

    def free_pinned(self, memory: Bytes) -> None:  # noqa: D102
        self._resources.drop("cuMemFreeHost", memory.__array_interface__["data"][0])

    def create_stream(self) -> Any:  # noqa: D102
        stream = self._call("cuStreamCreate", 1)  # CU_STREAM_NON_BLOCKING
        return int(self._make("cuStreamDestroy", stream))

    def destroy_stream(self, stream: Any) -> None:  # noqa: D102
        self._resources.drop("cuStreamDestroy", stream)

    def create_event(self) -> Any:  # noqa: D102
        event = self._call("cuEventCreate", 2)  # CU_EVENT_DISABLE_TIMING
        return self._make("cuEventDestroy", event)

    def destroy_event(self, event: Any) -> None:  # noqa: D102
        self._resources.drop("cuEventDestroy", event)

    def record(self, event: Any, stream: Any) -> None:  # noqa: D102
        self._call("cuEventRecord", event, stream)

    def passed(self, event: Any) -> bool:  # noqa: D102
        (status,) = self._driver.cuEventQuery(event)
        if status == self._driver.CUresult.CUDA_ERROR_NOT_READY:
            return False
        self._check("cuEventQuery", status)
        return True

    def wait(self, stream: Any, event: Any) -> None:  # noqa: D102
        self._call("cuStreamWaitEvent", stream, event, 0)

    def synchronize(self, event: Any) -> None:  # noqa: D102
        if not self._resources.released:
            self.activate()
            self._call("cuEventSynchronize", event)

    def upload(self, target: int, source: Bytes, stream: Any) -> None:  # noqa: D102
        self._call("cuMemcpyHtoDAsync", target, source.ctypes.data, source.nbytes, stream)

    def download(self, target: Bytes, source: int, stream: Any) -> None:  # noqa: D102
        self._call("cuMemcpyDtoHAsync", target.ctypes.data, source, target.nbytes, stream)

    def gather(self, gather: Gather, stream: Any) -> None:  # noqa: D102
        unit = unit_of(gather.row_bytes, gather.source, gather.target)
        units = gather.row_bytes // unit
        blocks = max(1, min(_MOST_BLOCKS, -(-gather.rows * units // THREADS)))
        values = (gather.source, gather.index, gather.target, gather.rows, units)
        kinds = (*(ctypes.c_void_p,) * 3, ctypes.c_longlong, ctypes.c_longlong)
        grid, block = (blocks, 1, 1), (THREADS, 1, 1)
        kernel = self._gather[unit]
        self._call("cuLaunchKernel", kernel, *grid, *block, 0, stream, (values, kinds), 0)

    def count_ranks(self, tile: RankTile, stream: Any) -> None:  # noqa: D102
        pointers = (
            *(tile.logits, tile.columns, tile.image_thresholds, tile.caption_thresholds),
            *(tile.image_counts, tile.caption_counts, tile.wrong),
        )
        sizes = (
            *(tile.members, tile.first_image, tile.images, tile.captions),
            *(tile.all_images, tile.all_captions, tile.captions_per_image),
        )
        kinds = (*(ctypes.c_void_p,) * len(pointers), *(ctypes.c_int,) * len(sizes))
        grid, block = (max(1, min(_MOST_BLOCKS, tile.images)), 1, 1), (THREADS, 1, 1)
        values = ((*pointers, *sizes), kinds)
        self._call("cuLaunchKernel", self._count_ranks, *grid, *block, 0, stream, values, 0)

    def begin_capture(self, stream: Any) -> None:  # noqa: D102
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:  # noqa: D102
        captured = self._call("cuStreamEndCapture", stream)  # Of an invalidated one it is NULL.
        try:
            return self._make("cuGraphExecDestroy", self._call("cuGraphInstantiate", captured, 0))
        finally:
            self._driver.cuGraphDestroy(captured)

    def abandon_capture(self, stream: Any) -> None:  # noqa: D102
        status, captured = self._driver.cuStreamEndCapture(stream)
        if not int(status):
            self._driver.cuGraphDestroy(captured)

    def launch(self, graph: Any, stream: Any) -> None:  # noqa: D102
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: Any) -> None:  # noqa: D102
        self._resources.drop("cuGraphExecDestroy", graph)

    def _make(self, destroy: str, handle: Any) -> Any:
        """A handle that the driver made, remembered so that `destroy` is called for it in time."""
        self._resources.add(destroy, handle)
        return handle

    def _call(self, name: str, *arguments: Any) -> Any:
        """Call the driver; returns the one value that it gives, a tuple of several, or None."""
        status, *values = getattr(self._driver, name)(*arguments)
        self._check(name, status)
        return values[0] if len(values) == 1 else tuple(values) or None

    def _check(self, name: str, status: Any) -> None:
        if status == self._driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
            raise EngineMemoryError(f"{self.name} is out of memory", got=name)
        if int(status):
            raise DeviceError(f"{self.name}: {name} failed", got=status.name)
