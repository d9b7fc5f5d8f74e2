"""Finds TensorRT, through the Python API that `tensorrt` and TensorRT for RTX share."""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import logging
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sgraf_deploy.config import Precision
from sgraf_deploy.engines.registry import CUDA_INSTALL
from sgraf_deploy.errors import UnavailableError

Flavour = Literal["tensorrt", "tensorrt-rtx"]

MODULES: tuple[tuple[str, Flavour], ...] = (
    ("tensorrt", "tensorrt"),
    ("tensorrt_rtx", "tensorrt-rtx"),
    ("tensorrt_rtx_bindings", "tensorrt-rtx"),
)
"""Modules in the order in which they are tried."""

USED = (
    *("Builder", "OnnxParser", "ILogger", "IProgressMonitor", "MemoryPoolType"),
    *("NetworkDefinitionCreationFlag", "LayerType", "DataType", "Runtime", "BuilderFlag"),
    "ExecutionContextAllocationStrategy",
)
"""The names of a module that this package uses; a test looks for them in the installed one."""

USED_OF_RTX = {
    "ICudaEngine": ("create_runtime_config", "create_execution_context"),
    "IExecutionContext": ("is_stream_capturable",),
    "IRuntimeConfig": (
        *("set_execution_context_allocation_strategy", "cuda_graph_strategy"),
        *("dynamic_shapes_kernel_specialization_strategy",),
        *("create_runtime_cache", "set_runtime_cache"),
    ),
    "IRuntimeCache": ("serialize", "deserialize"),
    "DynamicShapesKernelSpecializationStrategy": ("LAZY", "EAGER", "NONE"),
    "CudaGraphStrategy": ("DISABLED",),
}
"""The same, by class, of what only TensorRT for RTX has; elsewhere `IRuntimeConfig` has less."""

_LIBRARY_PACKAGE = "onnxruntime_ep_nv_tensorrt_rtx"
_LIBRARIES = ("libcudart.so.13", "libtensorrt_rtx.so.1", "libtensorrt_onnxparser_rtx.so.1")
"""The libraries that the bindings are linked with, in the order of their dependencies."""

SILENT = "TensorRT gave no reason"

FP8_CAPABILITY = (8, 9)

_MOST_LINES = 20

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class TensorRT:
    """An importable TensorRT: its flavour, its version, and the module itself."""

    flavour: Flavour
    version: str
    module: Any = field(repr=False)

    def __str__(self) -> str:
        return f"{self.flavour} {self.version}"

    @property
    def compiles_at_run_time(self) -> bool:
        """Whether kernels are compiled when a plan runs, not when it is built."""
        return self.flavour == "tensorrt-rtx"

    def logger(self) -> Any:
        """A logger that passes on to Python's, and keeps the latest warnings and errors."""
        severity = self.module.ILogger.Severity

        class Logger(self.module.ILogger):  # type: ignore[name-defined,misc]  # of the module
            def __init__(self) -> None:
                super().__init__()
                self.lines: deque[str] = deque(maxlen=_MOST_LINES)

            def recent(self) -> str:
                """The latest warnings and errors, which are then forgotten."""
                text = "; ".join(self.lines)
                self.lines.clear()
                return text or SILENT

            def log(self, level: Any, message: str) -> None:
                log.debug("%s", message)
                if level in (severity.WARNING, severity.ERROR, severity.INTERNAL_ERROR):
                    self.lines.append(" ".join(message.split()))

        return Logger()


def find_tensorrt() -> TensorRT:
    """The TensorRT of this machine; UnavailableError with the command that installs one."""
    reasons = []
    for name, flavour in MODULES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # a folder of type stubs has no origin
            continue
        try:
            if name == "tensorrt_rtx_bindings":
                _load_libraries()
            module = importlib.import_module(name)
        except (ImportError, OSError) as error:
            reasons.append(f"{name}: {error}")
            continue
        return TensorRT(flavour, str(module.__version__), module)
    found = "; ".join(reasons) or "none of the modules " + ", ".join(name for name, _ in MODULES)
    raise UnavailableError("TensorRT is not available", got=found, hint=CUDA_INSTALL)


def check_capability(precision: Precision, compute_capability: str) -> None:
    """Raise UnavailableError for FP8 on a GPU without matrix products in FP8."""
    found = tuple(int(part) for part in compute_capability.split("."))
    if precision == "fp8" and found < FP8_CAPABILITY:
        raise UnavailableError(
            "precision fp8 in TensorRT",
            expected="a GPU of compute capability 8.9 or above",
            got=compute_capability,
            hint="take --precision fp16",
        )


def _load_libraries() -> None:
    """Load the libraries of ONNX Runtime's plugin for the bindings, without importing it.

    Does nothing where there is no plugin: the bindings then find other libraries, or say what is
    missing.
    """
    spec = importlib.util.find_spec(_LIBRARY_PACKAGE)
    if spec is None or spec.origin is None:
        return
    folder = Path(spec.origin).parent
    for library in _LIBRARIES:
        for path in sorted(folder.glob(f"{library}*"))[:1]:
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
