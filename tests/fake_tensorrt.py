"""TensorRT's API on a fake GPU: a plan is an ONNX graph, which ONNX Runtime runs on the host.

Like TensorRT it takes addresses on trust, refuses shapes outside its profile, works in scratch
memory that it is given, and has returned long before anything is computed.
"""

from __future__ import annotations

import enum
import json
from collections import Counter
from collections.abc import Mapping
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
from fake_cuda import FakeCuda, FakeStream
from locked import Locked

from sgraf_deploy.runtime.tensorrt import TensorRT

MAGIC = b"fake plan\n"
SCRATCH = 4096
VERSION = "11.4.0"

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int32)": np.int32}


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3


class FakeLogger:
    Severity = Severity

    def log(self, level: int, message: str) -> None:
        raise NotImplementedError


def fake_plan(onnx: bytes, profiles: Any) -> bytes:
    """What the fake runtime takes for a plan."""
    return MAGIC + json.dumps(profiles).encode() + b"\n" + onnx


class FakeTensorRT(Locked):
    """Makes the module; `opened` counts plans that were deserialised, `runs` by kind."""

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.opened = 0
        self.contexts = 0
        self.runs: Counter[str] = Counter()
        self.refuses: str | None = None
        """A call of the context that gives False from now on."""
        self.capturable = True

    def adaptor(self, version: str = VERSION) -> TensorRT:
        module = SimpleNamespace(
            ILogger=FakeLogger,
            Runtime=partial(FakeRuntime, self),
            ExecutionContextAllocationStrategy=SimpleNamespace(USER_MANAGED="user managed"),
        )
        return TensorRT("tensorrt", version, module)

    def count_opened(self) -> None:
        self.opened += 1

    def count_context(self) -> None:
        self.contexts += 1

    def count_run(self, kind: str) -> None:
        self.runs[kind] += 1


class FakeRuntime:
    def __init__(self, owner: FakeTensorRT, logger: Any) -> None:
        self._owner, self._logger = owner, logger

    def deserialize_cuda_engine(self, plan: bytes) -> FakePlan | None:
        self._owner.count_opened()
        if not plan.startswith(MAGIC):
            self._logger.log(Severity.ERROR, "header.magicTag == kEXPECTED_MAGIC_TAG failed")
            return None
        profiles, _, onnx = plan[len(MAGIC) :].partition(b"\n")
        return FakePlan(self._owner, self._logger, json.loads(profiles), onnx)


class FakePlan:
    def __init__(self, owner: FakeTensorRT, logger: Any, profiles: Any, onnx: bytes) -> None:
        self.owner, self.logger, self.profiles = owner, logger, profiles
        self.session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
        self.inputs = {x.name: _TYPES[x.type] for x in self.session.get_inputs()}
        self.outputs = {x.name: _TYPES[x.type] for x in self.session.get_outputs()}
        self.num_io_tensors = len(self.inputs) + len(self.outputs)
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, index: int) -> str:
        return str([*self.inputs, *self.outputs][index])

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return SCRATCH * (profile + 1)

    def create_execution_context(self, strategy: object) -> FakeContext | None:
        assert strategy == "user managed"
        if self.owner.refuses == "create_execution_context":
            return None
        self.owner.count_context()
        return FakeContext(self)


class FakeContext:
    """Shapes, addresses and scratch memory as set last; a run takes those of its own time."""

    def __init__(self, plan: FakePlan) -> None:
        self._plan, self._owner = plan, plan.owner
        self._profile: Mapping[str, Any] = {}
        self._scratch_bytes = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None

    def is_stream_capturable(self, stream: FakeStream) -> bool:
        return self._owner.capturable

    def set_optimization_profile_async(self, profile: int, stream: FakeStream) -> bool:
        self._profile = self._plan.profiles[profile]
        self._scratch_bytes = self._plan.get_device_memory_size_for_profile_v2(profile)
        return self._allowed("set_optimization_profile_async")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._profile[name]
        inside = all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        self._shapes[name] = shape
        return inside and self._allowed("set_input_shape")

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._addresses[name] = pointer
        return self._allowed("set_tensor_address")

    def set_device_memory(self, pointer: int, size: int) -> None:
        self._scratch = (pointer, size)

    def execute_async_v3(self, stream: FakeStream) -> bool:
        if not self._allowed("execute_async_v3"):
            self._plan.logger.log(Severity.ERROR, "the fake engine cannot run")
            return False
        assert self._scratch is not None
        assert self._scratch[1] >= self._scratch_bytes
        self._owner.count_run("captured" if stream.capturing is not None else "direct")
        work = partial(self._run, dict(self._shapes), dict(self._addresses), self._scratch)
        self._owner.cuda.put(stream, work)
        return True

    def _run(
        self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int], scratch: Any
    ) -> None:
        cuda, plan = self._owner.cuda, self._plan
        inputs = {
            name: cuda.array(addresses[name], shapes[name], dtype).copy()
            for name, dtype in plan.inputs.items()
        }
        cuda.view(*scratch)[:] = 0xCD
        for name, value in zip(plan.outputs, plan.session.run(None, inputs), strict=True):
            cuda.array(addresses[name], value.shape, value.dtype)[...] = value

    def _allowed(self, call: str) -> bool:
        return self._owner.refuses != call
