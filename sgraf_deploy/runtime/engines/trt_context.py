"""One execution context of TensorRT: what it runs at which addresses, and what it captured."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from sgraf_deploy.errors import DeviceError, EngineMemoryError
from sgraf_deploy.runtime.cuda.api import CapturedGraph, Cuda
from sgraf_deploy.runtime.cuda.lanes import Lane
from sgraf_deploy.runtime.cuda.memory import DeviceArray

if TYPE_CHECKING:
    import tensorrt as api

log = logging.getLogger(__name__)

Tensors = Mapping[str, DeviceArray]
Key = tuple[object, ...]

MOST_CAPTURED = 32
"""CUDA graphs that a context keeps; the one that was used longest ago makes room."""


class TrtContext:
    """Runs one graph in one profile in one lane, whose scratch memory it works in.

    The second run at the same addresses and shapes is captured as a CUDA graph, and launched as
    one from then on: in a service that is every query after the second.
    """

    def __init__(
        self,
        cuda: Cuda,
        engine: api.ICudaEngine,
        strategy: Any,
        profile: int,
        lane: Lane,
        logger: Any,
    ) -> None:
        """Create the context; EngineMemoryError if there is no memory for it."""
        self._cuda, self._lane, self._logger = cuda, lane, logger
        made = engine.create_execution_context(strategy)
        context = cast("api.IExecutionContext | None", made)  # None where memory is short
        if context is None:
            raise EngineMemoryError("TensorRT has no memory for a context", got=logger.recent())
        self._context = context
        if not context.set_optimization_profile_async(profile, lane.stream):
            raise DeviceError(f"TensorRT refuses profile {profile}", got=logger.recent())
        self._scratch_bytes = int(engine.get_device_memory_size_for_profile_v2(profile))
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._seen: deque[Key] = deque(maxlen=MOST_CAPTURED)
        self._captured: OrderedDict[Key, CapturedGraph] = OrderedDict()

    @property
    def captured(self) -> int:
        """How many CUDA graphs there are."""
        return len(self._captured)

    def run(self, tensors: Tensors, outputs: frozenset[str]) -> None:
        """Put a run on these tensors, by name, into the lane's stream."""
        scratch = self._lane.scratch(self._scratch_bytes) if self._scratch_bytes else 0
        key: Key = (scratch, *((name, t.pointer, t.shape) for name, t in tensors.items()))
        graph = self._captured.get(key)
        if graph is None:
            self._bind(tensors, outputs, scratch)
            if key not in self._seen or not self._can_capture():
                self._seen.append(key)
                self._execute()
                return
            graph = self._capture(key)
        self._captured.move_to_end(key)
        self._cuda.launch(graph, self._lane.stream)

    def close(self) -> None:
        """Drop what was captured, and the context."""
        while self._captured:
            self._cuda.destroy_graph(self._captured.popitem()[1])
        del self._context

    def _bind(self, tensors: Tensors, outputs: frozenset[str], scratch: int) -> None:
        for name, tensor in tensors.items():
            if name not in outputs and self._shapes.get(name) != tensor.shape:
                if not self._context.set_input_shape(name, tensor.shape):
                    raise self._failed(f"shape {tensor.shape} of {name}")
                self._shapes[name] = tensor.shape
            if not self._context.set_tensor_address(name, tensor.pointer):
                raise self._failed(f"address of {name}")
        if scratch:
            self._context.set_device_memory(scratch, self._scratch_bytes)

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._lane.stream):
            raise self._failed("run")

    def _can_capture(self) -> bool:
        # Only TensorRT for RTX asks: its kernels may still be compiled while the first runs go on.
        ask = getattr(self._context, "is_stream_capturable", None)
        return ask is None or bool(ask(self._lane.stream))

    def _capture(self, key: Key) -> CapturedGraph:
        if len(self._captured) == MOST_CAPTURED:
            self._lane.drain()  # It may still be running.
            self._cuda.destroy_graph(self._captured.popitem(last=False)[1])
        self._cuda.begin_capture(self._lane.stream)
        try:
            self._execute()
        finally:
            graph = self._cuda.end_capture(self._lane.stream)
        self._captured[key] = graph
        return graph

    def _failed(self, what: str) -> DeviceError:
        return DeviceError(f"TensorRT refuses: {what}", got=self._logger.recent())
