"""ONNX Runtime's CUDA provider on a fake GPU: sessions of the real one on the host do the work.

A run has returned long before anything is computed, works in the stream that the provider was
told, and takes the addresses that were bound on trust. Float32 is TensorFloat-32 on the GPUs that
have it, unless the provider is told not to, or the environment forbids it.
"""

from __future__ import annotations

import os
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from support.fake_cuda import FakeCuda, FakeStream
from support.locked import Locked

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
HOST = "CPUExecutionProvider"


class FakeOnnxRuntime(Locked):
    """Stands for the module; `opened` are the providers of every session."""

    __version__ = "1.99.0"
    SessionOptions = onnxruntime.SessionOptions
    RunOptions = onnxruntime.RunOptions

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.opened: list[list[tuple[str, dict[str, str]]]] = []
        self.runs = 0
        self.takes = True
        """Whether the provider takes up graphs."""
        self.on_the_host: frozenset[str] = frozenset({"Shape", "Range"})
        """Operations that are left to the host."""
        self.memory: int | None = None
        """The most elements of an output before a run is out of memory."""

    def get_available_providers(self) -> list[str]:
        return [CUDA, TENSORRT, HOST]

    def preload_dlls(self, *, directory: str) -> None:
        assert not directory
        print("Failed to load /nowhere/libcudnn.so.9")  # noqa: T201  # as the real one does

    def InferenceSession(self, path: str, options: Any, *, providers: Any) -> FakeSession:  # noqa: N802
        self.opened.append(providers)
        return FakeSession(self, path, options, providers)

    def count_run(self) -> None:
        self.runs += 1


class FakeSession:
    def __init__(self, owner: FakeOnnxRuntime, path: str, options: Any, providers: Any) -> None:
        self.owner = owner
        self.recorded = options.get_session_config_entry("session.record_ep_graph_assignment_info")
        self.names = [name for name, _ in providers] if owner.takes else []
        handles = {each["user_compute_stream"] for _, each in providers}
        (handle,) = handles
        self.tf32 = uses_tf32(providers, owner.cuda.compute_capability)
        self.stream = owner.cuda.stream_of(handle)
        recording = onnxruntime.SessionOptions()
        recording.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        self._real = onnxruntime.InferenceSession(path, recording, providers=[HOST])
        self.get_inputs, self.get_outputs = self._real.get_inputs, self._real.get_outputs

    def get_providers(self) -> list[str]:
        return [*self.names, HOST]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        assert self.recorded == "1"
        nodes = [
            node
            for part in self._real.get_provider_graph_assignment_info()
            for node in part.get_nodes()
        ]
        left = [node for node in nodes if node.op_type in self.owner.on_the_host]
        taken = [node for node in nodes if node.op_type not in self.owner.on_the_host]
        return [
            SimpleNamespace(ep_name=self.get_providers()[0], get_nodes=lambda: taken),
            SimpleNamespace(ep_name=HOST, get_nodes=lambda: left),
        ]

    def io_binding(self) -> FakeBinding:
        return FakeBinding()

    def run_with_iobinding(self, binding: FakeBinding, options: Any) -> None:
        assert options.get_run_config_entry("disable_synchronize_execution_providers") == "1"
        owner = self.owner
        largest = max(int(np.prod(shape)) for _, shape, _ in binding.outputs.values())
        if owner.memory is not None and largest > owner.memory:
            raise RuntimeError("CUDA failure 2: out of memory ; GPU=0")
        owner.count_run()
        owner.cuda.put(self.stream, partial(self._run, binding))

    def _run(self, binding: FakeBinding) -> None:
        array = self.owner.cuda.array
        inputs = {
            name: self._operand(array(pointer, shape, dtype))
            for name, (dtype, shape, pointer) in binding.inputs.items()
        }
        names = list(binding.outputs)
        for name, value in zip(names, self._real.run(names, inputs), strict=True):
            dtype, shape, pointer = binding.outputs[name]
            assert (value.dtype, value.shape) == (dtype, shape)
            array(pointer, shape, dtype)[...] = value

    def _operand(self, values: NDArray[Any]) -> NDArray[Any]:
        """As products see it: float32 rounded to ten bits where it is TensorFloat-32."""
        if not self.tf32 or values.dtype != np.float32:
            return values.copy()
        bits = values.view(np.uint32) + np.uint32(1 << 12)
        return (bits & ~np.uint32((1 << 13) - 1)).view(np.float32)


def uses_tf32(providers: list[tuple[str, dict[str, str]]], compute_capability: str) -> bool:
    """The CUDA provider has an option, which is on by default; the one for TensorRT has none."""
    name, options = providers[0]
    assert name == CUDA or not [each for each in options if "tf32" in each], "no such option"
    if float(compute_capability) < 8 or os.environ.get("NVIDIA_TF32_OVERRIDE") == "0":
        return False
    return name == TENSORRT or options.get("use_tf32", "1") != "0"


class FakeBinding:
    def __init__(self) -> None:
        self.inputs: dict[str, tuple[Any, tuple[int, ...], int]] = {}
        self.outputs: dict[str, tuple[Any, tuple[int, ...], int]] = {}

    def bind_input(
        self, name: str, kind: str, device: int, dtype: Any, shape: tuple[int, ...], pointer: int
    ) -> None:
        assert (kind, device) == ("cuda", 0)
        self.inputs[name] = (dtype, shape, pointer)

    def bind_output(
        self, name: str, kind: str, device: int, dtype: Any, shape: tuple[int, ...], pointer: int
    ) -> None:
        assert (kind, device) == ("cuda", 0)
        self.outputs[name] = (dtype, shape, pointer)


__all__ = ["CUDA", "HOST", "FakeOnnxRuntime", "FakeStream"]
