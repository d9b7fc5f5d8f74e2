"""One execution context of TensorRT: its runs, and their capture as CUDA graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sgraf_deploy.engines.cuda.api import CapturedGraph, Cuda
from sgraf_deploy.engines.cuda.lanes import Lane
from sgraf_deploy.engines.cuda.memory import DeviceArray
from sgraf_deploy.errors import DeviceError, EngineMemoryError

if TYPE_CHECKING:
    import tensorrt as api


@dataclass(frozen=True)
class Run:
    """The arrays that a run reads and writes, by name, and the memory for its intermediates."""

    tensors: Mapping[str, DeviceArray]
    outputs: frozenset[str]
    scratch: int
    """The address of that memory; 0 where a plan needs none."""

    @property
    def key(self) -> tuple[object, ...]:
        """Every address and shape, to which a captured graph is fixed."""
        return (self.scratch, *((name, t.pointer, t.shape) for name, t in self.tensors.items()))


class TrtContext:
    """An execution context in one profile and one lane, whose scratch memory it works in."""

    def __init__(
        self, made: api.IExecutionContext | None, profile: int, size: int, lane: Lane, logger: Any
    ) -> None:
        """Take what TensorRT made, which needs `size` bytes of scratch memory in that profile.

        Raises EngineMemoryError if it made none, DeviceError if it refuses the profile.
        """
        if made is None:
            raise EngineMemoryError("TensorRT has no memory for a context", got=logger.recent())
        self._context, self._size, self._lane, self._logger = made, size, lane, logger
        self._shapes: dict[str, tuple[int, ...]] = {}
        if not made.set_optimization_profile_async(profile, lane.stream):
            raise self._failed(f"profile {profile}")

    def run(self, run: Run) -> None:
        """Put a run into the lane's stream; DeviceError, with TensorRT's reason, if it refuses."""
        for name, tensor in run.tensors.items():
            if name not in run.outputs and self._shapes.get(name) != tensor.shape:
                if not self._context.set_input_shape(name, tensor.shape):
                    raise self._failed(f"shape {tensor.shape} of {name}")
                self._shapes[name] = tensor.shape
            if not self._context.set_tensor_address(name, tensor.pointer):
                raise self._failed(f"address of {name}")
        if run.scratch:
            self._context.set_device_memory(run.scratch, self._size)
        self._execute()

    def capture(self, cuda: Cuda) -> CapturedGraph:
        """The last run, captured as a graph; the context stays bound as it is while that lives.

        The first run after a change of shapes or memory does more than enqueue kernels, so that
        NVIDIA's samples wait for it before they capture the next. Raises DeviceError, or
        EngineMemoryError, where it cannot be captured; the stream can be used in any case.
        """
        self._lane.wait()
        # Only TensorRT for RTX can be asked.
        ask = getattr(self._context, "is_stream_capturable", None)
        if ask is not None and not ask(self._lane.stream):
            raise DeviceError("TensorRT says that it is not capturable")
        cuda.begin_capture(self._lane.stream)
        try:
            self._execute()
        except BaseException:
            cuda.abandon_capture(self._lane.stream)
            raise
        return cuda.end_capture(self._lane.stream)

    def close(self) -> None:
        """Drop the context, which is not running."""
        del self._context

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._lane.stream):
            raise self._failed("run")

    def _failed(self, what: str) -> DeviceError:
        return DeviceError(f"TensorRT refuses: {what}", got=self._logger.recent())
