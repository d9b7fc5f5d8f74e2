"""A model's own arithmetic, whatever its caller has set in PyTorch to have products faster.

Float32 is float32: no TensorFloat-32 in CUDA's matrix products, in cuDNN's convolutions or in its
RNN, where PyTorch has it on by default, and no bfloat16 in oneDNN's. Products of halves are summed
in float32. Nothing is cast by autocast. cuDNN itself stays as on or off as it was.
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
"""Settings that count where an operation has none of its own, the most general first."""

OPERATIONS = tuple(
    (backend, operation)
    for backend in ("cuda", "mkldnn")
    for operation in ("matmul", "conv", "rnn")
)
"""Settings of one kind of operation; `cuda` is cuBLAS for `matmul`, and else cuDNN."""

BELOW_FLOAT32 = frozenset({"tf32", "bf16"})

_DEVICES = ("cpu", "cuda")


@dataclass
class _Settings:
    """A caller's; as PyTorch has them at first."""

    precisions: list[tuple[str, str, str]] = field(default_factory=list)
    """Backend, operation and what is stored, the most general first."""
    old_cudnn: bool = False
    old_matmul: str = "highest"
    reduction: tuple[bool, bool] = (True, True)
    """Whether products of halves may sum in half, and whether they may be split along the sum."""
    accumulation: bool = False

    def put_back(self) -> None:
        """The records of the older switches first: they write precisions, too."""
        _C._set_cublas_allow_fp16_accumulation(self.accumulation)
        _C._set_cublas_allow_fp16_reduced_precision_reduction(*self.reduction)
        if self.old_cudnn:
            _C._set_cudnn_allow_tf32(True)
        if self.old_matmul != "highest":
            torch.set_float32_matmul_precision(self.old_matmul)
        for backend, operation, precision in reversed(self.precisions):
            _C._set_fp32_precision_setter(backend, operation, precision)


class ExactArithmetic:
    """Keeps a process's products exact while any thread is inside.

    PyTorch's settings are the process's. Of two threads that changed and put them back at
    overlapping times, the first to leave would change the other's, and the last would leave the
    caller's changed. What somebody else sets while a thread is inside is put back as well. Autocast
    is each thread's own.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._callers = _Settings()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The first to enter sets everything; the last to leave puts back what was set."""
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
                    self._callers.put_back()


exact_arithmetic = ExactArithmetic()


def exactly(function: Callable[P, R]) -> Callable[P, R]:
    """The function, run without gradients and in exact arithmetic."""

    @wraps(function)
    def run(*arguments: P.args, **named: P.kwargs) -> R:
        with torch.inference_mode(), exact_arithmetic():
            return function(*arguments, **named)

    return run


@dataclass(frozen=True)
class Observed:
    """What PyTorch is set to at a moment."""

    below_float32: tuple[str, ...]
    """The operations on float32 that may compute in less, as `cuda matmul tf32`."""
    cudnn: bool
    """Whether cuDNN may be used."""


def observe() -> Observed:
    """As PyTorch's own operations would find it now."""
    found = ((*each, _precision(*each)) for each in OPERATIONS)
    below = tuple(" ".join(each) for each in found if each[2] in BELOW_FLOAT32)
    return Observed(below, bool(torch.backends.cudnn.enabled))


def _set_exact() -> _Settings:
    """Set everything; return what was set.

    PyTorch 2.9 and later keep a precision for each kind of operation. That alone decides what is
    computed, whoever set it and how, and reads as it is stored only while those more general than
    it say nothing. The older switches (`allow_tf32`, `set_float32_matmul_precision`) write these
    and a record of their own; their getters raise where the record says otherwise, so it is kept
    in step.
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
            _C._set_cudnn_allow_tf32(False)  # It leaves two settings unset, which says the same.
            callers.old_cudnn = True
        old_matmul = torch.get_float32_matmul_precision()
        if old_matmul != "highest":
            torch.set_float32_matmul_precision("highest")
            callers.old_matmul = old_matmul
        _C._set_cublas_allow_fp16_reduced_precision_reduction(False, callers.reduction[1])
        _C._set_cublas_allow_fp16_accumulation(False)
    except BaseException:
        callers.put_back()
        raise
    return callers


def _precision(backend: str, operation: str) -> str:
    """`none`, `ieee`, `tf32` or `bf16`: a setting's own, or the next more general one's."""
    return _C._get_fp32_precision_getter(backend, operation)


def _old_cudnn() -> bool | None:
    """The record of the older switch; None where it says otherwise than the newer settings."""
    try:
        return bool(_C._get_cudnn_allow_tf32())
    except RuntimeError:
        return None
