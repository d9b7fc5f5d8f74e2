"""Run a model in exact arithmetic, whatever faster arithmetic its caller has enabled in PyTorch.

Float32 is float32: no TensorFloat-32 in CUDA's matrix products, in cuDNN's convolutions or in its
RNN, where PyTorch enables it by default, and no bfloat16 in oneDNN's. Products of halves are summed
in float32. Autocast is off. Whether cuDNN itself is enabled is not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from threading import Lock
from typing import ParamSpec, TypeVar

import torch
from torch import _C

P = ParamSpec("P")
R = TypeVar("R")

GENERAL = ("generic", "all"), ("cuda", "all"), ("mkldnn", "all")
"""Settings that apply if an operation has no setting of its own, the most general first."""

OPERATIONS = tuple(
    (backend, operation)
    for backend in ("cuda", "mkldnn")
    for operation in ("matmul", "conv", "rnn")
)
"""Settings of one kind of operation; `cuda` is cuBLAS for `matmul`, and cuDNN for the others."""

BELOW_FLOAT32 = frozenset({"tf32", "bf16"})

_DEVICES = ("cpu", "cuda")


@dataclass
class _Settings:
    """A caller's settings; the defaults are those of PyTorch."""

    precisions: list[tuple[str, str, str]] = field(default_factory=list)
    """Backend, operation and precision, the most general first."""
    old_cudnn: bool = False
    old_matmul: str = "highest"
    reduction: tuple[bool, bool] = (True, True)
    """Whether products of halves may sum in half, and whether they may be split along the sum."""
    accumulation: bool = False

    def restore(self) -> None:
        """Restore these settings; the older switches first, because they write precisions, too."""
        _C._set_cublas_allow_fp16_accumulation(self.accumulation)
        _C._set_cublas_allow_fp16_reduced_precision_reduction(*self.reduction)
        if self.old_cudnn:
            _C._set_cudnn_allow_tf32(True)
        if self.old_matmul != "highest":
            torch.set_float32_matmul_precision(self.old_matmul)
        for backend, operation, precision in reversed(self.precisions):
            _C._set_fp32_precision_setter(backend, operation, precision)


class ExactArithmetic:
    """Keeps a process's products exact while any thread is inside the context.

    PyTorch's settings belong to the process. If two threads changed and restored them at
    overlapping times, the first to leave would change them for the other, and the last would leave
    the caller's settings changed. So they are counted here. Settings that others change meanwhile
    are overwritten at the end, too. Autocast is a setting of the thread.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._callers = _Settings()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The first thread to enter sets everything; the last to leave restores the settings."""
        cast = [device for device in _DEVICES if torch.is_autocast_enabled(device)]
        with self._lock:
            if self._inside == 0:
                self._callers = _set_exact()
            self._inside += 1
        try:
            for device in cast:
                torch.set_autocast_enabled(device, False)
            yield
        finally:
            for device in cast:
                torch.set_autocast_enabled(device, True)
            with self._lock:
                self._inside -= 1
                if self._inside == 0:
                    self._callers.restore()


exact_arithmetic = ExactArithmetic()


def exactly(function: Callable[P, R]) -> Callable[P, R]:
    """A decorator that runs a function without gradients and in exact arithmetic."""

    @wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        with torch.inference_mode(), exact_arithmetic():
            return function(*arguments, **named)

    return run


@dataclass(frozen=True)
class Observed:
    """PyTorch's settings at one moment."""

    below_float32: tuple[str, ...]
    """The float32 operations that may compute in less than float32, such as `cuda matmul tf32`."""
    cudnn: bool
    """Whether cuDNN may be used."""


def observe() -> Observed:
    """The settings that PyTorch's operations would use now."""
    settings = ((*operation, _precision(*operation)) for operation in OPERATIONS)
    below = tuple(" ".join(setting) for setting in settings if setting[2] in BELOW_FLOAT32)
    return Observed(below, bool(torch.backends.cudnn.enabled))


def _set_exact() -> _Settings:
    """Set exact arithmetic, and return the previous settings.

    PyTorch 2.9 and later keep a precision for each kind of operation. It alone decides how the
    operation computes, and its getter returns the stored value only while the more general settings
    are unset. The older switches (`allow_tf32`, `set_float32_matmul_precision`) write these
    precisions and also a record of their own. Their getters raise if the record contradicts the
    precisions, so it is kept in step.
    """
    callers = _Settings()
    try:
        callers.reduction = _C._get_cublas_allow_fp16_reduced_precision_reduction()
        callers.accumulation = _C._get_cublas_allow_fp16_accumulation()
        old_cudnn = _old_cudnn()
        for settings, exact in ((GENERAL, "none"), (OPERATIONS, "ieee")):
            for backend, operation in settings:
                callers.precisions.append((backend, operation, _precision(backend, operation)))
                _C._set_fp32_precision_setter(backend, operation, exact)
        if _old_cudnn() is None if old_cudnn is None else old_cudnn:
            _C._set_cudnn_allow_tf32(False)  # It unsets two precisions, which means the same.
            callers.old_cudnn = True
        old_matmul = torch.get_float32_matmul_precision()
        if old_matmul != "highest":
            torch.set_float32_matmul_precision("highest")
            callers.old_matmul = old_matmul
        _C._set_cublas_allow_fp16_reduced_precision_reduction(False, callers.reduction[1])
        _C._set_cublas_allow_fp16_accumulation(False)
    except BaseException:
        callers.restore()
        raise
    return callers


def _precision(backend: str, operation: str) -> str:
    """`none`, `ieee`, `tf32` or `bf16`: that of the setting, or of the next more general one."""
    return _C._get_fp32_precision_getter(backend, operation)


def _old_cudnn() -> bool | None:
    """The record of the older switch; None if it contradicts the newer settings."""
    try:
        return bool(_C._get_cudnn_allow_tf32())
    except RuntimeError:
        return None
