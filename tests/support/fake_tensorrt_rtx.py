"""TensorRT for RTX on a fake GPU: kernels are compiled when a plan runs, and can be kept.

A context compiles what neither it nor its runtime cache has: `compiled` counts it by the shapes.
"""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

from support.fake_cuda import FakeCuda, FakeStream
from support.fake_tensorrt import (
    USER_MANAGED,
    FakeContext,
    FakePlan,
    FakeTensorRT,
)

RTX_CAPABILITIES = ("8.0", "8.6", "8.9", "12.0", "12.1")
"""What a portable plan runs on."""


class FakeTensorRTForRtx(FakeTensorRT):
    """`configs` are those that contexts were made with, `answers` what capturability is."""

    flavour = "tensorrt-rtx"

    def __init__(self, cuda: FakeCuda) -> None:
        super().__init__(cuda)
        self.configs: list[FakeRuntimeConfig] = []
        self.compiled = 0
        self.capturable = True
        self.serializes = True

    def _module(self) -> dict[str, object]:
        return super()._module() | {
            "DynamicShapesKernelSpecializationStrategy": SimpleNamespace(
                LAZY="LAZY", EAGER="EAGER", NONE="NONE"
            ),
            "CudaGraphStrategy": SimpleNamespace(DISABLED="DISABLED"),
        }

    def engine(self, *arguments: Any) -> FakePlan:
        return FakeRtxPlan(self, *arguments)

    def made(self, config: FakeRuntimeConfig) -> None:
        self.configs.append(config)

    def count_compiled(self) -> None:
        self.compiled += 1


class FakeRuntimeCache:
    """Valid on the same GPU alone, as the real one is."""

    def __init__(self, owner: FakeTensorRTForRtx) -> None:
        self._owner = owner
        self.kernels: set[str] = set()

    def serialize(self) -> bytes | None:
        if not self._owner.serializes:
            return None
        return json.dumps([self._owner.cuda.compute_capability, *sorted(self.kernels)]).encode()

    def deserialize(self, blob: bytes) -> bool:
        capability, *kernels = json.loads(blob)
        if capability != self._owner.cuda.compute_capability:
            return False
        self.kernels = set(kernels)
        return True


class FakeRuntimeConfig:
    def __init__(self, owner: FakeTensorRTForRtx) -> None:
        self._owner = owner
        self.allocation = "static"
        self.dynamic_shapes_kernel_specialization_strategy = "LAZY"
        self.cuda_graph_strategy = "DISABLED"
        self.cache: FakeRuntimeCache | None = None

    def set_execution_context_allocation_strategy(self, strategy: str) -> None:
        self.allocation = strategy

    def create_runtime_cache(self) -> FakeRuntimeCache:
        return FakeRuntimeCache(self._owner)

    def set_runtime_cache(self, cache: FakeRuntimeCache) -> bool:
        self.cache = cache
        return True


class FakeRtxPlan(FakePlan):
    owner: FakeTensorRTForRtx

    def create_runtime_config(self) -> FakeRuntimeConfig:
        return FakeRuntimeConfig(self.owner)

    def create_execution_context(self, config: object) -> FakeContext | None:
        assert isinstance(config, FakeRuntimeConfig)
        assert config.allocation == USER_MANAGED
        if self.owner.refuses == "create_execution_context":
            return None
        self.owner.count_context()
        self.owner.made(config)
        return FakeRtxContext(self, config)


class FakeRtxContext(FakeContext):
    def __init__(self, plan: FakeRtxPlan, config: FakeRuntimeConfig) -> None:
        super().__init__(plan)
        self._rtx = plan.owner
        self._kernels = set[str]() if config.cache is None else config.cache.kernels

    def is_stream_capturable(self, stream: FakeStream) -> bool:
        return self._rtx.capturable

    def execute_async_v3(self, stream: FakeStream) -> bool:
        kernels = repr(sorted(self._shapes.items()))
        if kernels not in self._kernels:
            self._kernels.add(kernels)
            self._rtx.count_compiled()
        return super().execute_async_v3(stream)
