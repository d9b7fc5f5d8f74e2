"""The one seam between the scorer and whatever runs the graphs, and the registry of engines.

An engine opens the graphs of one bundle in one precision, keeps arrays on its device, gathers
rows of them there and runs graphs on them without a copy to the host in between. Work may be
asynchronous: only `fetch` waits.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from sgraf_deploy.config import DEFAULT_PRECISIONS, Precision
from sgraf_deploy.engines.base import Engine, EngineOptions
from sgraf_deploy.errors import UnavailableError

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle

TENSORRT_INSTALL = (
    "pip install tensorrt, or for TensorRT for RTX "
    "pip install tensorrt-rtx-cu13-bindings onnxruntime-ep-nv-tensorrt-rtx-cu13"
)
CUDA_INSTALL = "pip install cuda-bindings 'cuda-toolkit[nvrtc]'"

DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class EngineEntry:
    """How to import an engine, where and what it runs, and what its user installs to have it."""

    target: str
    """`module:class`; the class takes (bundle, precision, options)."""
    install: str
    purpose: str
    precisions: tuple[Precision, ...] = DEFAULT_PRECISIONS
    """What it can run; the first of them that a bundle has where nothing is said."""
    devices: tuple[DeviceKind, ...] = ("cpu",)
    """Where it can run; the first that works where nothing is said."""
    by_name: tuple[Precision, ...] = ()
    """Of its precisions, those that `auto` does not take it for."""
    weights: bool = False
    """Whether it runs a bundle's original weights, not its graphs."""
    compiled: bool = False
    """Whether it runs plans that `compile` built."""


ENGINES: dict[str, EngineEntry] = {
    "native": EngineEntry(
        "sgraf_deploy.engines.native.engine:NativeEngine",
        "pip install 'sgraf-deploy[cpu]'",
        "ONNX Runtime's encoders, and the scorer in C for the CPU's vector units",
        precisions=("fp32",),
    ),
    "ort": EngineEntry(
        "sgraf_deploy.engines.ort:OrtEngine",
        "pip install 'sgraf-deploy[cpu]'",
        "ONNX Runtime on the bundle's graphs",
        by_name=("fp16",),  # It computes such graphs in float32, and says so.
    ),
    "torch": EngineEntry(
        "sgraf_deploy.engines.torch.engine:TorchEngine",
        "pip install 'sgraf-deploy[torch]'",
        "the exact rewrites in PyTorch, batched",
        precisions=("fp32", "fp16", "fp8"),
        devices=("cuda", "cpu"),
        weights=True,
    ),
    "torch-reference": EngineEntry(
        "sgraf_deploy.engines.torch.reference:ReferenceEngine",
        "pip install 'sgraf-deploy[torch]'",
        "the literal per-caption loop in PyTorch, slow: the yardstick",
        precisions=("fp32",),
        devices=("cuda", "cpu"),
        weights=True,
    ),
    "trt": EngineEntry(
        "sgraf_deploy.engines.trt.engine:TrtEngine",
        f"{TENSORRT_INSTALL}; and {CUDA_INSTALL}",
        "TensorRT, or TensorRT for RTX, on engines that `compile` built",
        precisions=("fp16", "fp32", "fp8"),
        devices=("cuda",),
        compiled=True,
    ),
    "ort-cuda": EngineEntry(
        "sgraf_deploy.engines.ort_cuda:OrtCudaEngine",
        f"pip install onnxruntime-gpu; and {CUDA_INSTALL}",
        "ONNX Runtime's CUDA provider on the bundle's graphs",
        precisions=("fp16", "fp32"),
        devices=("cuda",),
    ),
    "ort-trt": EngineEntry(
        "sgraf_deploy.engines.ort_cuda:OrtTensorrtEngine",
        f"pip install onnxruntime-gpu tensorrt; and {CUDA_INSTALL}",
        "ONNX Runtime's TensorRT provider on the bundle's graphs",
        precisions=("fp16", "fp32"),
        devices=("cuda",),
    ),
    "fused": EngineEntry(
        "sgraf_deploy.engines.fused.engine:FusedEngine",
        "pip install 'sgraf-deploy[fused]'",
        "scorers as Triton kernels, unconfirmed on a GPU",
        precisions=("fp16", "fp32"),
        devices=("cuda", "cpu"),  # The latter in Triton's interpreter alone.
        weights=True,
    ),
}


def unavailable(name: str, device: str | None = None) -> UnavailableError | None:
    """Why an engine does not work here, and what puts it right; None if it works.

    On a device, or, where none is given, on every one that it could run on: the reason is then that
    of the first.
    """
    kinds = ENGINES[name].devices if device is None else (device,)
    reasons = []
    for kind in kinds:
        try:
            engine_class(name).check_available("cuda:0" if kind == "cuda" else kind)
        except UnavailableError as error:
            reasons.append(UnavailableError(error.reason, hint=error.hint or ENGINES[name].install))
        else:
            return None
    return reasons[0]


def engine_class(name: str) -> type[Engine]:
    """Import an engine's class; UnavailableError where what it needs is not installed."""
    module, attribute = ENGINES[name].target.split(":")
    found: type[Engine] = getattr(import_package(module), attribute)
    return found


def import_package(name: str) -> Any:
    """Import a module; UnavailableError where it, or what it needs, cannot be."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UnavailableError(f"Python cannot import {error.name}") from error
    except ImportError as error:
        raise UnavailableError(f"Python cannot import {name}", got=error) from error
    except OSError as error:  # a package is there, but not a library that it loads
        raise UnavailableError(str(error)) from error


def open_engine(name: str, bundle: Bundle, precision: Precision, options: EngineOptions) -> Engine:
    """Open an engine of the registry on a bundle; `policy.choose` says which, on what device."""
    make: Any = engine_class(name)  # A protocol says nothing of constructors.
    engine: Engine = make(bundle, precision, options)
    return engine
