"""A model's own arithmetic, whatever its caller has set in PyTorch to have products faster.

Float32 is float32: no TensorFloat-32 in CUDA's matrix products, in cuDNN's convolutions or in its
RNN, where PyTorch has it on by default, and no bfloat16 in oneDNN's. Products of halves are summed
in float32. Nothing is cast by autocast. cuDNN itself stays as on or off as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
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


class ExactArithmetic:
    """Keeps a process's products exact while any thread is inside.

    PyTorch's settings are the process's. Of two threads that changed and put them back at
    overlapping times, the first to leave would change the other's, and the last would leave the
    caller's changed.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._callers = ExitStack()

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """The first to enter sets everything; the last to leave puts back what was set."""
        with _no_autocast():
            with self._lock:
                if self._inside == 0:
                    self._callers = _set_exact()
                self._inside += 1
            try:
                yield
            finally:
                with self._lock:
                    self._inside -= 1
                    if self._inside == 0:
                        self._callers.close()


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


def _set_exact() -> ExitStack:
    """Set everything; what is returned puts back what was set, when it is closed.

    PyTorch 2.9 and later keep a precision for each kind of operation. That alone decides what is
    computed, whoever set it and how, and each is stored as it is only while those more general
    than it say nothing. The older switches (`allow_tf32`, `set_float32_matmul_precision`) write
    these and a record of their own, and raise when they are read, by PyTorch's own products too,
    where the record says otherwise: it is kept in step.
    """
    with ExitStack() as put_back:
        old_cudnn = _old_cudnn()
        for setting, exact in ((GENERAL, "none"), (OPERATIONS, "ieee")):
            for backend, operation in setting:
                _keep(put_back, backend, operation)
                _C._set_fp32_precision_setter(backend, operation, exact)
        old_matmul = torch.get_float32_matmul_precision()
        if old_matmul != "highest":
            put_back.callback(torch.set_float32_matmul_precision, old_matmul)
            torch.set_float32_matmul_precision("highest")
        if old_cudnn or (old_cudnn is None and _old_cudnn() is None):
            put_back.callback(_C._set_cudnn_allow_tf32, True)
            _C._set_cudnn_allow_tf32(False)
            for operation in ("conv", "rnn"):
                _C._set_fp32_precision_setter("cuda", operation, "ieee")
        _sum_in_float32(put_back)
        return put_back.pop_all()


def _keep(put_back: ExitStack, backend: str, operation: str) -> None:
    put_back.callback(
        _C._set_fp32_precision_setter, backend, operation, _precision(backend, operation)
    )


def _precision(backend: str, operation: str) -> str:
    """`none`, `ieee`, `tf32` or `bf16`: a setting's own, or the next more general one's."""
    return _C._get_fp32_precision_getter(backend, operation)


def _old_cudnn() -> bool | None:
    """The record of the older switch; None where it says otherwise than the newer settings."""
    try:
        return bool(_C._get_cudnn_allow_tf32())
    except RuntimeError:
        return None


def _sum_in_float32(put_back: ExitStack) -> None:
    """Of products of halves every partial sum, too."""
    reduced, split = _C._get_cublas_allow_fp16_reduced_precision_reduction()
    put_back.callback(_C._set_cublas_allow_fp16_reduced_precision_reduction, reduced, split)
    _C._set_cublas_allow_fp16_reduced_precision_reduction(False, split)
    put_back.callback(
        _C._set_cublas_allow_fp16_accumulation, _C._get_cublas_allow_fp16_accumulation()
    )
    _C._set_cublas_allow_fp16_accumulation(False)


@contextmanager
def _no_autocast() -> Iterator[None]:
    """This thread's autocast off."""
    on = [device for device in _DEVICES if torch.is_autocast_enabled(device)]
    for device in on:
        torch.set_autocast_enabled(device, False)
    try:
        yield
    finally:
        for device in on:
            torch.set_autocast_enabled(device, True)
