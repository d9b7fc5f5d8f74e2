"""TensorRT's API on a fake GPU: a plan is an ONNX graph, which ONNX Runtime runs on the host.

Like TensorRT it takes addresses on trust, refuses shapes outside its profile, works in scratch
memory that it is given, and has returned long before anything is computed. It is as strict as
NVIDIA's documents about CUDA graphs: the first run after a change of shapes or memory does what a
capture does not allow, loops do so at each run, and a captured graph is bound to the state of its
context. TensorRT for RTX is in `fake_tensorrt_rtx`.
"""

from __future__ import annotations

import enum
import json
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
from support.fake_cuda import FakeCuda, FakeStream
from support.locked import Locked

from sgraf_deploy.engines.trt.library import Flavour, TensorRT

MAGIC = b"fake plan\n"
SCRATCH = 4096
VERSION = "11.4.0"
LOOPS = frozenset({"GRU", "LSTM", "RNN", "Loop", "Scan"})

USER_MANAGED = "user managed"

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


def fake_plan(graph: bytes, profiles: Any, capabilities: Sequence[str] | None = None) -> bytes:
    """What the fake runtime takes for a plan, on GPUs of these compute capabilities or any."""
    header = {"profiles": profiles, "capabilities": capabilities}
    return MAGIC + json.dumps(header).encode() + b"\n" + graph


class FakeTensorRT(Locked):
    """Makes the module; `opened` counts plans that were deserialised, `runs` by kind."""

    flavour: Flavour = "tensorrt"

    def __init__(self, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.opened = 0
        self.contexts = 0
        self.runs: Counter[str] = Counter()
        self.refuses: str | None = None
        """A call of a context that gives False from now on; `capture`: a run in a capture."""
        self.captures_loops = False

    def adaptor(self, version: str = VERSION) -> TensorRT:
        return TensorRT(self.flavour, version, SimpleNamespace(**self._module()))

    def _module(self) -> dict[str, object]:
        return {
            "ILogger": FakeLogger,
            "Runtime": partial(FakeRuntime, self),
            "ExecutionContextAllocationStrategy": SimpleNamespace(USER_MANAGED=USER_MANAGED),
        }

    def engine(self, *arguments: Any) -> FakePlan:
        return FakePlan(self, *arguments)

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
        header, _, graph = plan[len(MAGIC) :].partition(b"\n")
        fields = json.loads(header)
        allowed, here = fields["capabilities"], self._owner.cuda.compute_capability
        if allowed is not None and here not in allowed:
            self._logger.log(Severity.ERROR, "the plan does not target this GPU")
            return None
        return self._owner.engine(self._logger, fields["profiles"], graph)


class FakePlan:
    def __init__(self, owner: FakeTensorRT, logger: Any, profiles: Any, graph: bytes) -> None:
        self.owner, self.logger, self.profiles = owner, logger, profiles
        self.session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        nodes = onnx.load_model_from_string(graph).graph.node
        self.loops = any(node.op_type in LOOPS for node in nodes)
        self.inputs = {x.name: _TYPES[x.type] for x in self.session.get_inputs()}
        self.outputs = {x.name: _TYPES[x.type] for x in self.session.get_outputs()}
        self.num_io_tensors = len(self.inputs) + len(self.outputs)
        self.num_optimization_profiles = len(profiles)

    def get_tensor_name(self, index: int) -> str:
        return str([*self.inputs, *self.outputs][index])

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return SCRATCH * (profile + 1)

    def create_execution_context(self, strategy: object) -> FakeContext | None:
        assert strategy == USER_MANAGED
        if self.owner.refuses == "create_execution_context":
            return None
        self.owner.count_context()
        return FakeContext(self)


class FakeContext:
    """Shapes, addresses and scratch memory as set last; a run takes those of its own time.

    `state` counts what was set, `settled` is whether a run has taken up shapes and memory.
    """

    def __init__(self, plan: FakePlan) -> None:
        self._plan, self._owner = plan, plan.owner
        self._profile: Mapping[str, Any] = {}
        self._scratch_bytes = 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch: tuple[int, int] | None = None
        self.state, self.settled = 0, False

    def set_optimization_profile_async(self, profile: int, stream: FakeStream) -> bool:
        self._profile = self._plan.profiles[profile]
        self._scratch_bytes = self._plan.get_device_memory_size_for_profile_v2(profile)
        self._changed()
        return self._allowed("set_optimization_profile_async")

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        low, _, high = self._profile[name]
        inside = all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))
        self._shapes[name] = shape
        self._changed()
        return inside and self._allowed("set_input_shape")

    def set_tensor_address(self, name: str, pointer: int) -> bool:
        self._addresses[name] = pointer
        self.state += 1
        return self._allowed("set_tensor_address")

    def set_device_memory(self, pointer: int, size: int) -> None:
        assert pointer % 256 == 0
        if self._scratch != (pointer, size):
            self._changed()
        self.state += 1
        self._scratch = (pointer, size)

    def execute_async_v3(self, stream: FakeStream) -> bool:
        captures = stream.capturing is not None
        if not self._allowed("execute_async_v3") or (captures and not self._allowed("capture")):
            return self._error("the fake engine cannot run")
        assert self._scratch is not None
        assert self._scratch[1] >= self._scratch_bytes
        loops = self._plan.loops and not self._owner.captures_loops
        if captures and (loops or not self.settled):
            self._owner.cuda.invalidate(stream)
            return self._error("operation not permitted when stream is capturing")
        self.settled = True
        self._owner.count_run("captured" if captures else "direct")
        bound = dict(self._shapes), dict(self._addresses), self._scratch
        state = self.state if captures else None
        self._owner.cuda.put(stream, partial(run, weakref.ref(self), state, *bound))
        return True

    def compute(
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

    def _changed(self) -> None:
        self.state += 1
        self.settled = False

    def _error(self, message: str) -> bool:
        self._plan.logger.log(Severity.ERROR, message)
        return False

    def _allowed(self, call: str) -> bool:
        return self._owner.refuses != call


def run(context: weakref.ref[FakeContext], state: int | None, *bound: Any) -> None:
    """What the GPU does, which takes more of a context than what was enqueued."""
    found = context()
    assert found is not None, "a context was dropped before its work was done"
    assert state in {None, found.state}, "a context was changed after a graph was captured from it"
    found.compute(*bound)
