"""Engines `ort-cuda` and `ort-trt`: ONNX Runtime's CUDA or TensorRT provider on a GPU.

Inputs and outputs are bound where they lie on the device. A session works in one stream, so each
lane has its own sessions, and only `fetch` waits.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from sgraf_deploy.config import GraphName, GraphSignature, Precision
from sgraf_deploy.engines.base import EngineOptions, Graph
from sgraf_deploy.engines.buffers import Sizes
from sgraf_deploy.engines.cuda.api import Cuda
from sgraf_deploy.engines.cuda.bindings import check_cuda, open_cuda
from sgraf_deploy.engines.cuda.engine import Arrays, CudaEngine, CudaGraph, gpu_ordinal
from sgraf_deploy.engines.cuda.lanes import Lane
from sgraf_deploy.engines.onnx_runtime import import_onnxruntime
from sgraf_deploy.engines.ort import check_interface, open_session, translated
from sgraf_deploy.engines.registry import ORT_CUDA_INSTALL
from sgraf_deploy.engines.state import state_folder
from sgraf_deploy.errors import UnavailableError

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle

CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"

HEAVY = frozenset({"MatMul", "FusedMatMul", "Gemm", "FusedGemm", "GRU", "Softmax"})
"""Operators that must not run on the host; operators that compute shapes may."""

TF32_OVERRIDE = "NVIDIA_TF32_OVERRIDE"
"""At 0, no library of NVIDIA's uses TensorFloat-32; they read it when they are first used."""

AMPERE = 8
"""GPUs of a lower major compute capability have no TensorFloat-32."""

_ERRORS_ONLY = 3
"""A severity of ONNX Runtime, which warns of every shape that it computes on the host."""

log = logging.getLogger(__name__)

Provider = tuple[str, dict[str, str]]


class OrtCudaEngine(CudaEngine):
    """ONNX Runtime's CUDA provider; TensorFloat-32 is off, in cuDNN's GRU too (ONNX Runtime 1.18).

    A graph that the provider does not take is an error: ONNX Runtime would silently compute it on
    the host. Where the bundle holds its reference, `load` compares the engine with it.
    """

    name = "ort-cuda"
    provider = CUDA
    unverified = False

    def __init__(
        self,
        bundle: Bundle,
        precision: Precision,
        options: EngineOptions,
        *,
        onnxruntime: Any = None,
        cuda: Cuda | None = None,
    ) -> None:
        """Take the graphs of `bundle`; UnavailableError without the provider or a GPU."""
        ordinal = gpu_ordinal(options.device, self.name)
        self.module = onnxruntime or find_provider(self.provider)
        preload_libraries(self.module)
        gpu = cuda or open_cuda(ordinal)
        if precision == "fp32":
            self.check_float32(gpu.compute_capability)
        super().__init__(bundle, precision, options, gpu, ordinal)
        self.executed = (
            f"{precision} in onnxruntime {self.module.__version__}, "
            f"{self.provider.removesuffix('ExecutionProvider')} provider"
        )
        self.unverified = bundle.manifest.gate is not None

    @classmethod
    def check_available(cls, device: str) -> None:
        """Raise UnavailableError without the provider, the GPU or cuda-bindings."""
        find_provider(cls.provider)
        check_cuda(gpu_ordinal(device, cls.name))

    @classmethod
    def check_float32(cls, compute_capability: str) -> None:
        """Raise UnavailableError where float32 would be TensorFloat-32: an option prevents that."""

    def mark_verified(self) -> None:
        """Remember it for this process: the next one may find another driver."""
        self.unverified = False

    def providers(self, lane: Lane) -> list[Provider]:
        """The providers of a session that works in a lane, the wanted one first."""
        return [(CUDA, {**self._common(lane), "use_tf32": "0"})]

    def _common(self, lane: Lane) -> dict[str, str]:
        return {"device_id": str(self.ordinal), "user_compute_stream": str(lane.stream)}

    def _open_graph(self, member: str, graph: GraphName) -> Graph:
        path = self._bundle.graph_path(member, graph, self._precision)
        found = OrtCudaGraph(self, path, self.signature(member, graph))
        with self._lanes[0]:
            found.session(self._lanes[0])  # Errors of the graph show now.
        return found


class OrtTensorrtEngine(OrtCudaEngine):
    """ONNX Runtime's TensorRT provider, which builds plans and keeps them in the user's state.

    The provider deserialises what it finds there, so that folder must not come with a bundle. It
    builds again for every shape outside the range that it has met, which makes the first evaluation
    slow; engine `trt` builds once, for ranges of sizes.

    TensorRT uses TensorFloat-32 by default, and only the environment can switch it off, as this
    provider has no option for it. In fp16, what stays in float32 may be computed in TensorFloat-32.
    """

    name = "ort-trt"
    provider = TENSORRT

    @classmethod
    def check_float32(cls, compute_capability: str) -> None:
        """Raise UnavailableError unless the GPU or the environment rules out TensorFloat-32."""
        if int(compute_capability.partition(".")[0]) < AMPERE or tf32_forbidden():
            return
        raise UnavailableError(
            f"engine {cls.name}: precision fp32: ONNX Runtime lets TensorRT use TensorFloat-32",
            expected=f"{TF32_OVERRIDE}=0 in the environment",
            got=os.environ.get(TF32_OVERRIDE, "not set"),
            hint=f"set {TF32_OVERRIDE}=0 before Python starts, or use --engine ort-cuda or trt",
        )

    def providers(self, lane: Lane) -> list[Provider]:
        """TensorRT, then CUDA for the operators that TensorRT does not take."""
        options = self._common(lane)
        state = state_folder()
        if state is None:
            return [(TENSORRT, options), *super().providers(lane)]
        # A plan that was built with TensorFloat-32 must not run where that is forbidden.
        kind = "exact" if tf32_forbidden() else "tf32"
        folder = state / "onnxruntime" / self._bundle.sha256[:16] / kind
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            log.warning("engine ort-trt: %s cannot be written, nothing is kept: %s", folder, error)
        else:
            kept = {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(folder)}
            kept |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(folder)}
            options |= kept
        return [(TENSORRT, options), *super().providers(lane)]


class OrtCudaGraph(CudaGraph):
    """One graph, with a session for each lane."""

    def __init__(self, owner: OrtCudaEngine, path: Path, signature: GraphSignature) -> None:
        super().__init__(owner, signature)
        self._owner, self._path = owner, path
        self._name = f"{path.parent.parent.name}/{path.parent.name}/{path.name}"
        self._sessions: dict[Lane, Any] = {}
        self._lock = Lock()

    def _prepare(self, lane: Lane, sizes: Sizes) -> Callable[[Arrays, Arrays], object]:
        return partial(self._enqueue, self.session(lane))

    def session(self, lane: Lane) -> Any:
        """The lane's session, opened when it is first needed; the lane is entered."""
        found = self._sessions.get(lane)
        if found is None:
            with self._lock:
                found = self._sessions[lane] = self._open(lane)
        return found

    def close(self) -> None:
        """Drop the sessions; nothing runs any more."""
        self._sessions.clear()

    def _enqueue(self, session: Any, inputs: Arrays, outputs: Arrays) -> None:
        where = "cuda", self._owner.ordinal
        with translated(self._name):
            binding = session.io_binding()
            for spec in self.signature.inputs:
                array = inputs[spec.name]
                binding.bind_input(spec.name, *where, array.dtype, array.shape, array.pointer)
            for name, array in outputs.items():
                binding.bind_output(name, *where, array.dtype, array.shape, array.pointer)
            options = self._owner.module.RunOptions()
            # Whatever reads the outputs is behind this run in the lane's stream, or waits for it.
            options.add_run_config_entry("disable_synchronize_execution_providers", "1")
            session.run_with_iobinding(binding, options)

    def _open(self, lane: Lane) -> Any:
        module = self._owner.module
        options = module.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.enable_mem_pattern = False  # Tiles have many shapes.
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        session = open_session(self._path, options, self._owner.providers(lane), module)
        check_interface(session, self.signature, self._path)
        self._check_providers(session)
        return session

    def _check_providers(self, session: Any) -> None:
        """Raise UnavailableError if ONNX Runtime runs the graph, or parts of it, on the host."""
        wanted, found = self._owner.provider, session.get_providers()
        if found[0] != wanted:
            raise UnavailableError(
                f"engine {self._owner.name}: ONNX Runtime did not take up {wanted}",
                got=", ".join(found),
                hint=f"its log says why; a missing library comes with {ORT_CUDA_INSTALL}",
            )
        # Since 1.24 a session says which provider each node was assigned to.
        ask = getattr(session, "get_provider_graph_assignment_info", None)
        parts = [] if ask is None else ask()
        on_the_host = sorted(
            f"{node.op_type} {node.name}"
            for part in parts
            if part.ep_name not in {CUDA, TENSORRT}
            for node in part.get_nodes()
            if node.op_type in HEAVY
        )
        if on_the_host:
            raise UnavailableError(
                f"engine {self._owner.name}: {wanted} does not take graph {self._name} whole",
                expected="every product, GRU and softmax on the GPU",
                got=f"on the host {', '.join(on_the_host[:3])}",
                hint="use --engine trt, or --engine ort on the CPU",
            )


def tf32_forbidden() -> bool:
    """Whether the environment keeps NVIDIA's libraries from TensorFloat-32."""
    return os.environ.get(TF32_OVERRIDE) == "0"


def find_provider(provider: str) -> Any:
    """The module `onnxruntime`; UnavailableError where it lacks this provider."""
    try:
        module = import_onnxruntime()
    except UnavailableError as error:
        raise UnavailableError(error.reason, hint=ORT_CUDA_INSTALL) from error
    there = module.get_available_providers()
    if provider not in there:
        raise UnavailableError(
            f"this onnxruntime has no {provider}",
            got=", ".join(there),
            hint="pip uninstall onnxruntime, which is the same module, and " + ORT_CUDA_INSTALL,
        )
    return module


def preload_libraries(module: Any) -> None:
    """Load CUDA and cuDNN from pip's packages, where the system's loader does not look.

    ONNX Runtime prints what it does not find there, which is logged: the system may have it.
    """
    preload = getattr(module, "preload_dlls", None)
    if preload is None:
        return
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        preload(directory="")
    for line in said.getvalue().splitlines():
        log.debug("onnxruntime: %s", line)
