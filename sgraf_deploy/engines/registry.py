"""The registry of engines: how each is imported, what it runs and where, and what it needs.

Whether an engine works here is found out in one way: its `check_available` raises UnavailableError,
and `unavailable` gives that error as a value.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from sgraf_deploy.config import DEFAULT_PRECISIONS, Precision
from sgraf_deploy.engines.base import Engine, EngineOptions
from sgraf_deploy.errors import UnavailableError

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle

CUDA_INSTALL = "pip install 'sgraf-deploy[tensorrt]', or for TensorRT for RTX 'sgraf-deploy[rtx]'"
"""Either extra brings TensorRT, cuda-bindings and NVRTC, and none another ONNX Runtime."""
ORT_CUDA_INSTALL = "pip install 'sgraf-deploy[gpu]'"

DeviceKind = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class EngineEntry:
    """How an engine is imported, what it runs and where, and the command that installs it."""

    target: str
    """The class, a subclass of `Engine`, as `module:class`."""
    install: str
    """The command that installs the packages that the engine needs."""
    purpose: str
    """What the engine is, in a few words for `doctor`."""
    precisions: tuple[Precision, ...] = DEFAULT_PRECISIONS
    """The precisions that it runs; by default it takes the first of them that the bundle has."""
    devices: tuple[DeviceKind, ...] = ("cpu",)
    """The kinds of device that it runs on; by default it takes the first that works."""
    by_name: tuple[Precision, ...] = ()
    """Those of its precisions that it runs only when asked for by name: `auto` passes it over."""
    weights: bool = False
    """Whether it runs a bundle's original weights instead of its graphs."""
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
        by_name=("fp16",),  # It computes these graphs in float32, as its `executed` says.
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
        CUDA_INSTALL,
        "TensorRT, or TensorRT for RTX, on plans that `compile` built",
        precisions=("fp16", "fp32", "fp8"),
        devices=("cuda",),
        compiled=True,
    ),
    "ort-cuda": EngineEntry(
        "sgraf_deploy.engines.ort_cuda:OrtCudaEngine",
        ORT_CUDA_INSTALL,
        "ONNX Runtime's CUDA provider on the bundle's graphs",
        precisions=("fp16", "fp32"),
        devices=("cuda",),
    ),
    "ort-trt": EngineEntry(
        "sgraf_deploy.engines.ort_cuda:OrtTensorrtEngine",
        ORT_CUDA_INSTALL,
        "ONNX Runtime's TensorRT provider on the bundle's graphs",
        precisions=("fp16", "fp32"),
        devices=("cuda",),
    ),
    "fused": EngineEntry(
        "sgraf_deploy.engines.fused.engine:FusedEngine",
        "pip install 'sgraf-deploy[fused]'",
        "scorers as Triton kernels; run on an H100",
        precisions=("fp16", "fp32"),
        devices=("cuda", "cpu"),  # On the CPU only in Triton's interpreter.
        weights=True,
    ),
}


def unavailable(name: str, device: str | None = None) -> UnavailableError | None:
    """Why an engine does not work here, with a hint at what puts it right; None if it works.

    Without a device all kinds that the engine runs on are tried, and the reason is that of the
    first.
    """
    entry = ENGINES[name]
    reasons = []
    for kind in entry.devices if device is None else (device,):
        place = "cuda:0" if kind == "cuda" else kind
        error = refusal(partial(_check_available, name, place))
        if error is None:
            return None
        reasons.append(UnavailableError(error.reason, hint=error.hint or entry.install))
    return reasons[0]


def _check_available(name: str, device: str) -> None:
    engine_class(name).check_available(device)


def refusal(check: Callable[[], object]) -> UnavailableError | None:
    """The UnavailableError that a check raises, as a value; None where it passes."""
    try:
        check()
    except UnavailableError as error:
        return error
    return None


def engine_class(name: str) -> type[Engine]:
    """Import an engine's class; UnavailableError where what it needs is not installed."""
    module, attribute = ENGINES[name].target.split(":")
    found: type[Engine] = getattr(import_package(module), attribute)
    return found


def import_package(name: str) -> Any:
    """Import a module; UnavailableError where it, or something that it needs, is missing."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UnavailableError(f"Python cannot import {error.name}") from error
    except ImportError as error:
        raise UnavailableError(f"Python cannot import {name}", got=error) from error
    except OSError as error:  # The package is there, but not a library that it loads.
        raise UnavailableError(str(error)) from error


def open_engine(name: str, bundle: Bundle, precision: Precision, options: EngineOptions) -> Engine:
    """Open an engine of the registry on a bundle; `policy.choose` says which, on what device."""
    return engine_class(name)(bundle, precision, options)
