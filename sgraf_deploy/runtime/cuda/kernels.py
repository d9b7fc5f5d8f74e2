"""The one kernel that is no graph: it copies rows. NVRTC compiles it for the GPU that is there."""

from __future__ import annotations

from typing import Any

from sgraf_deploy.errors import DeviceError, UnavailableError
from sgraf_deploy.runtime.engine import CUDA_INSTALL

THREADS = 256
"""Of a block."""

UNITS = {16: "uint4", 4: "unsigned int", 2: "unsigned short"}
"""Bytes that a thread copies at a time, the widest that divides a row first."""

SOURCE = "\n".join(
    f"""
extern "C" __global__ void gather_{size}(
    const {unit}* __restrict__ source, const int* __restrict__ index, {unit}* __restrict__ target,
    long long rows, long long units)
{{
    const long long all = rows * units;
    const long long step = (long long)gridDim.x * blockDim.x;
    for (long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x; i < all; i += step)
        target[i] = source[index[i / units] * units + i % units];
}}"""
    for size, unit in UNITS.items()
)


def unit_of(*sizes: int) -> int:
    """The widest unit that divides every size and address."""
    return next(unit for unit in UNITS if all(size % unit == 0 for size in sizes))


def compile_kernels(compute_capability: str) -> bytes:
    """The kernels' machine code for one GPU, `8.9`; needs no GPU.

    Raises UnavailableError without NVRTC, DeviceError for a GPU that this NVRTC does not know.
    """
    try:
        from cuda.bindings import nvrtc

        (program,) = _call(nvrtc.nvrtcCreateProgram, SOURCE.encode(), b"sgraf.cu", 0, [], [])
    except (ImportError, RuntimeError, OSError) as error:
        raise UnavailableError("NVRTC is not available", got=error, mend=CUDA_INSTALL) from error
    architecture = f"--gpu-architecture=sm_{compute_capability.replace('.', '')}".encode()
    (status,) = nvrtc.nvrtcCompileProgram(program, 1, [architecture])
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        (size,) = _call(nvrtc.nvrtcGetProgramLogSize, program)
        text = bytearray(size)
        _call(nvrtc.nvrtcGetProgramLog, program, text)
        reason = text.decode(errors="replace").strip("\0 \n") or status.name
        raise DeviceError(f"NVRTC cannot compile for a GPU of {compute_capability}", got=reason)
    (size,) = _call(nvrtc.nvrtcGetCUBINSize, program)
    code = bytearray(size)
    _call(nvrtc.nvrtcGetCUBIN, program, code)
    _call(nvrtc.nvrtcDestroyProgram, program)
    return bytes(code)


def _call(function: Any, *arguments: Any) -> tuple[Any, ...]:
    status, *values = function(*arguments)
    if int(status):
        raise DeviceError(f"{function.__name__} failed", got=status.name)
    return tuple(values)
