"""Engine `trt`: TensorRT, or TensorRT for RTX, runs compiled plans on a GPU, without PyTorch.

A plan is deserialised only after every field of its sidecar was compared with the bundle, the GPU
and the installed TensorRT, and only if this user compared its values here or allows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from sgraf_deploy.config import GraphName, GraphSignature, Precision
from sgraf_deploy.engines.base import EngineOptions, Graph
from sgraf_deploy.engines.buffers import Sizes
from sgraf_deploy.engines.cuda.api import Cuda
from sgraf_deploy.engines.cuda.bindings import check_cuda, open_cuda
from sgraf_deploy.engines.cuda.engine import Arrays, CudaEngine, CudaGraph, gpu_ordinal
from sgraf_deploy.engines.cuda.lanes import Lane
from sgraf_deploy.engines.gpu import Gpu
from sgraf_deploy.engines.state import Mark, is_verified, mark_verified
from sgraf_deploy.engines.trt.context import TrtContext
from sgraf_deploy.engines.trt.library import TensorRT, check_capability, find_tensorrt
from sgraf_deploy.engines.trt.plan_host import PlanHost
from sgraf_deploy.engines.trt.plans import Sidecar, engine_folder, largest_sizes, load_plan
from sgraf_deploy.engines.trt.rtx import check_gpu, rebuild
from sgraf_deploy.engines.trt.rtx_runtime import RtxRuntime, kernels_path
from sgraf_deploy.engines.trt.runs import TrtRuns
from sgraf_deploy.errors import BundleError, DeviceError, InputError, SgrafDeployError

if TYPE_CHECKING:
    import tensorrt as api

    from sgraf_deploy.bundle.bundle import Bundle

log = logging.getLogger(__name__)


class TrtEngine(CudaEngine):
    """TensorRT or TensorRT for RTX on compiled plans; a context belongs to one lane and profile."""

    name = "trt"

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision,
        options: EngineOptions,
        *,
        tensorrt: TensorRT | None = None,
        cuda: Cuda | None = None,
    ) -> None:
        """Take the plans of `bundle` in `precision`; UnavailableError without TensorRT or a GPU."""
        ordinal = gpu_ordinal(options.device, self.name)
        self._tensorrt = tensorrt or find_tensorrt()
        self._logger = self._tensorrt.logger()
        super().__init__(bundle, precision, options, cuda or open_cuda(ordinal), ordinal)
        check_gpu(self._tensorrt, self.cuda.compute_capability)
        check_capability(precision, self.cuda.compute_capability)
        self._runtime: api.Runtime = self._tensorrt.module.Runtime(self._logger)
        self.executed = f"{precision} in {self._tensorrt}"
        gpu = Gpu(self.cuda.name, self.cuda.compute_capability)
        self._host = PlanHost(bundle, gpu, self._tensorrt)
        self._folder = engine_folder(bundle, options.engine_dir)
        self._unmarked: dict[str, Mark] = {}
        if options.specialisation != "lazy" and not self._tensorrt.compiles_at_run_time:
            log.warning("%s compiles nothing at run time: no specialisation", self._tensorrt)

    @classmethod
    def check_available(cls, device: str) -> None:
        """Raise UnavailableError without a TensorRT for the GPU, the GPU or cuda-bindings."""
        tensorrt = find_tensorrt()
        check_gpu(tensorrt, check_cuda(gpu_ordinal(device, cls.name)).compute_capability)

    @property
    def unverified(self) -> bool:
        """Whether a plan that is open was never compared with the reference here."""
        return bool(self._unmarked)

    def mark_verified(self) -> None:
        """Remember it in this user's state, with a warning where that cannot be written."""
        marks, self._unmarked = self._unmarked, {}
        try:
            for mark in list(marks.values()):  # Another thread may be opening a graph.
                mark_verified(mark)
        except BundleError as error:
            log.warning("%s; until then plans need --allow-unverified, and are compared", error)

    def largest(self, graph: GraphName) -> tuple[Mapping[str, int], ...]:
        """By profile, the largest sizes that every member's plan takes."""
        members = list(self._bundle.manifest.members)
        found = [self.open(member, graph).largest for member in members]
        return tuple(
            {axis: min(sizes[axis] for sizes in same) for axis in same[0]}
            for same in zip(*found, strict=False)
        )

    def _open_graph(self, member: str, graph: GraphName) -> Graph:
        self._bundle.graph_path(member, graph, self._precision)  # The ONNX file has that hash.
        expected = self._host.expected(member, self._precision, graph)
        sidecar, plan = load_plan(self._folder, expected, self._allowed)
        cuda_engine = self._runtime.deserialize_cuda_engine(plan)
        if cuda_engine is None:
            raise DeviceError(
                f"{self._tensorrt} cannot open plan {self._folder / sidecar.plan}",
                got=self._logger.recent(),
                hint=rebuild(self._tensorrt.flavour, self.cuda.compute_capability),
            )
        if not is_verified(mark := self._host.mark(sidecar)):
            self._unmarked[sidecar.name] = mark
        rtx = None
        if self._tensorrt.compiles_at_run_time:
            how = self._options.specialisation
            rtx = RtxRuntime(self._tensorrt, cuda_engine, how, kernels_path(mark))
        return TrtGraph(self, cuda_engine, sidecar, self.signature(member, graph), rtx)

    def _allowed(self, sidecar: Sidecar) -> bool:
        return self._options.allow_unverified or is_verified(self._host.mark(sidecar))

    @property
    def captures(self) -> bool:
        """Whether repeated runs are captured as CUDA graphs."""
        changing = self._tensorrt.compiles_at_run_time and self._options.specialisation == "lazy"
        return self._options.cuda_graphs and not changing

    def new_context(
        self, cuda_engine: api.ICudaEngine, rtx: RtxRuntime | None, profile: int, lane: Lane
    ) -> TrtContext:
        """An execution context whose intermediates lie in the lane's scratch memory."""
        if rtx is None:
            strategy = self._tensorrt.module.ExecutionContextAllocationStrategy.USER_MANAGED
            made = cuda_engine.create_execution_context(strategy)
        else:
            made = cuda_engine.create_execution_context(rtx.config)
        return TrtContext(made, profile, scratch_bytes(cuda_engine, profile), lane, self._logger)


class TrtGraph(CudaGraph):
    """One deserialised plan, with execution contexts for each lane and profile."""

    def __init__(
        self,
        owner: TrtEngine,
        cuda_engine: api.ICudaEngine,
        sidecar: Sidecar,
        signature: GraphSignature,
        rtx: RtxRuntime | None = None,
    ) -> None:
        """Take a deserialised plan; DeviceError if its tensors are not the signature's."""
        super().__init__(owner, signature)
        self._owner, self._cuda_engine = owner, cuda_engine
        self._sidecar, self._rtx = sidecar, rtx
        self._runs: dict[tuple[Lane, int], TrtRuns] = {}
        self._lock = Lock()
        self._warned = False
        tensors = range(cuda_engine.num_io_tensors)
        found = {cuda_engine.get_tensor_name(index) for index in tensors}
        names = {spec.name for spec in (*signature.inputs, *signature.outputs)}
        if found != names or cuda_engine.num_optimization_profiles != len(sidecar.profiles):
            expected = f"{sorted(names)} in {len(sidecar.profiles)} profiles"
            got = f"{sorted(found)} in {cuda_engine.num_optimization_profiles}"
            raise DeviceError(f"tensors of plan {sidecar.plan}", expected=expected, got=got)
        self.largest = largest_sizes(signature, sidecar)

    def _prepare(self, lane: Lane, sizes: Sizes) -> Callable[[Arrays, Arrays], object]:
        return partial(self._enqueue, self._in(lane, self._profile(sizes)))

    @staticmethod
    def _enqueue(runs: TrtRuns, inputs: Arrays, outputs: Arrays) -> None:
        runs.run({**inputs, **outputs}, frozenset(outputs))

    def close(self) -> None:
        """Drop the contexts and the plan; nothing runs any more."""
        for runs in self._runs.values():
            runs.close()
        self._runs.clear()
        if self._rtx is not None:
            self._rtx.save()
        del self._rtx, self._cuda_engine

    def _profile(self, sizes: Mapping[str, int]) -> int:
        """The smallest profile that takes these sizes; InputError if there is none."""
        fitting = [
            index
            for index, most in enumerate(self.largest)
            if all(1 <= size <= most[axis] for axis, size in sizes.items())
        ]
        if not fitting:
            raise InputError(
                f"sizes for plan {self._sidecar.name}",
                expected=" or ".join(
                    ", ".join(f"{axis} 1 … {size}" for axis, size in most.items())
                    for most in self.largest
                ),
                got=", ".join(f"{axis} {size}" for axis, size in sizes.items()),
                hint="build it for more with `sgraf-deploy compile`, --max-words and the like",
            )
        return min(fitting, key=lambda index: np.prod(list(self.largest[index].values())))

    def _in(self, lane: Lane, profile: int) -> TrtRuns:
        found = self._runs.get((lane, profile))
        if found is None:
            cuda, size = self._owner.cuda, scratch_bytes(self._cuda_engine, profile)
            make = partial(self._new_context, profile, lane)
            report = self._not_captured if self._owner.captures else None
            found = self._runs[lane, profile] = TrtRuns(cuda, lane, size, make, report)
        return found

    def _new_context(self, profile: int, lane: Lane) -> TrtContext:
        with self._lock:
            return self._owner.new_context(self._cuda_engine, self._rtx, profile, lane)

    def _not_captured(self, reason: SgrafDeployError) -> None:
        """Warn once for each plan: the reason mostly holds for its other contexts too."""
        with self._lock:
            warned, self._warned = self._warned, True
        if not warned:
            name = self._sidecar.name
            log.warning("%s is not captured as a CUDA graph, it runs without: %s", name, reason)


def scratch_bytes(cuda_engine: api.ICudaEngine, profile: int) -> int:
    """The memory for intermediates, in bytes, that a context in a profile is to be given."""
    return int(cuda_engine.get_device_memory_size_for_profile_v2(profile))
