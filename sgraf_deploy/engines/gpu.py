"""Asks NVIDIA's driver for this machine's GPUs; no package is needed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sgraf_deploy.errors import UnavailableError

LIBRARY = "libcuda.so.1"

NEEDS_A_GPU = "GPU engines need an NVIDIA GPU and its driver; on a CPU use --engine native or ort"

_NAME_BYTES = 128
_MAJOR, _MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and …_MINOR."""


@dataclass(frozen=True)
class Gpu:
    """One GPU: its name, and its compute capability, such as `8.9`."""

    name: str
    compute_capability: str


@dataclass(frozen=True)
class Driver:
    """The newest CUDA that the driver runs, such as `13.0`, and its GPUs in order."""

    cuda: str
    gpus: tuple[Gpu, ...]


def find_driver(load: Callable[[str], Any] = ctypes.CDLL) -> Driver:
    """The driver and its GPUs.

    Raises UnavailableError where there is no driver, where a call of it fails, and without a GPU.
    """
    try:
        cuda = load(LIBRARY)
    except OSError as error:
        raise UnavailableError("no NVIDIA driver", got=error, hint=NEEDS_A_GPU) from error
    _check(cuda.cuInit(0), "cuInit")
    version, count = ctypes.c_int(), ctypes.c_int()
    _check(cuda.cuDriverGetVersion(ctypes.byref(version)), "cuDriverGetVersion")
    _check(cuda.cuDeviceGetCount(ctypes.byref(count)), "cuDeviceGetCount")
    if count.value == 0:
        raise UnavailableError("NVIDIA's driver sees no GPU")
    gpus = tuple(_gpu(cuda, ordinal) for ordinal in range(count.value))
    return Driver(f"{version.value // 1000}.{version.value % 1000 // 10}", gpus)


def find_gpu(ordinal: int) -> Gpu:
    """The GPU of that number; UnavailableError as in `find_driver`, and where there are fewer."""
    gpus = find_driver().gpus
    if ordinal >= len(gpus):
        expected = f"0 … {len(gpus) - 1}"
        raise UnavailableError("the number of the GPU", expected=expected, got=ordinal)
    return gpus[ordinal]


def _gpu(cuda: Any, ordinal: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    _check(cuda.cuDeviceGet(ctypes.byref(device), ordinal), "cuDeviceGet")
    name = ctypes.create_string_buffer(_NAME_BYTES)
    _check(cuda.cuDeviceGetName(name, _NAME_BYTES, device), "cuDeviceGetName")
    for number, attribute in ((major, _MAJOR), (minor, _MINOR)):
        found = cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        _check(found, "cuDeviceGetAttribute")
    return Gpu(name.value.decode(errors="replace"), f"{major.value}.{minor.value}")


def _check(status: int, call: str) -> None:
    if status:
        raise UnavailableError(f"NVIDIA's driver: {call} failed with error {status}")
