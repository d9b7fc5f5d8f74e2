"""CUDA C kernels outside the graphs, which gather rows and count ranks; compiled with NVRTC."""

from __future__ import annotations

from typing import Any

from sgraf_deploy.engines.registry import CUDA_INSTALL
from sgraf_deploy.errors import DeviceError, UnavailableError

THREADS = 256
"""Threads of a block."""

UNITS = {16: "uint4", 4: "unsigned int", 2: "unsigned short", 1: "unsigned char"}
"""By its size in bytes, what a thread copies at a time; the widest that divides a row is taken."""

GATHER = "\n".join(
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

COUNT_RANKS = r"""
#define LARGEST 3.4028235e38f
#define NOTHING (-1.7e308)  // Stands for log(0): it adds nothing to a sum of exponentials.

__device__ double log_add_exp(double a, double b)
{
    return fmax(a, b) + log1p(exp(-fabs(a - b)));
}

// The logit of the mean of the members' similarities, by the formula of engines/ensemble.py: the
// odds are 1 + sum tanh(x/2) / sum sigmoid(-x); the tanh of a large x is summed as 1 and the rest.
__device__ float combined(const float* const* logits, int members, long long at)
{
    double yes = NOTHING, no = NOTHING, whole = 0.0, part = 0.0;
    for (int member = 0; member < members; ++member) {
        const double x = logits[member][at], size = fabs(x), sign = copysign(1.0, x);
        const double small = exp(-size), rest = log1p(small);
        yes = log_add_exp(yes, fmin(x, 0.0) - rest);
        no = log_add_exp(no, fmin(-x, 0.0) - rest);
        whole += size < 1.0 ? 0.0 : sign;
        part += size < 1.0 ? tanh(0.5 * x) : -2.0 * sign * small / (1.0 + small);
    }
    const double more = whole + part;
    const double odds = log(fabs(more)) - (more < 0.0 ? yes : no);
    return (float)copysign(log_add_exp(0.0, odds), more);
}

// A block takes one image after another, and for each image the members, then their ensemble.
// Counts of the image are summed in its threads first; those of a caption are added in place.
extern "C" __global__ void count_ranks(
    const float* const* logits, const int* columns,
    const float* image_thresholds, const float* caption_thresholds,
    int* image_counts, int* caption_counts, int2* wrong, int members,
    int first_image, int images, int captions, int all_images, int all_captions, int per_image)
{
    const int models = members > 1 ? members + 1 : 1;
    for (int row = blockIdx.x; row < images; row += gridDim.x) {
        const int image = first_image + row;
        for (int model = 0; model < models; ++model) {
            const float image_threshold = image_thresholds[(long long)model * all_images + image];
            int reach = 0, level = 0;
            for (int place = threadIdx.x; place < captions; place += blockDim.x) {
                const int caption = columns[place];
                const long long at = (long long)row * captions + place;
                const float value =
                    model < members ? logits[model][at] : combined(logits, members, at);
                if (!(fabsf(value) <= LARGEST)) {
                    int2 pair;  // One store, so that threads cannot mix two pairs.
                    pair.x = image + 1;
                    pair.y = caption;
                    *wrong = pair;
                }
                if (caption / per_image == image)
                    continue;
                const float caption_threshold =
                    caption_thresholds[(long long)model * all_captions + caption];
                int* counts = caption_counts + 2LL * model * all_captions + caption;
                reach += value >= image_threshold;
                level += value == image_threshold;
                if (value >= caption_threshold)
                    atomicAdd(counts, 1);
                if (value == caption_threshold)
                    atomicAdd(counts + all_captions, 1);
            }
            int* counts = image_counts + 2LL * model * all_images + image;
            if (reach)
                atomicAdd(counts, reach);
            if (level)
                atomicAdd(counts + all_images, level);
        }
    }
}
"""

SOURCE = GATHER + COUNT_RANKS


def unit_of(*sizes: int) -> int:
    """The size of the widest unit that divides every size and address, in bytes."""
    return next(unit for unit in UNITS if all(size % unit == 0 for size in sizes))


def compile_kernels(compute_capability: str) -> bytes:
    """The kernels' machine code for GPUs of a compute capability, such as `8.9`; needs no GPU.

    Raises UnavailableError without NVRTC, DeviceError for a GPU that this NVRTC does not know.
    """
    try:
        from cuda.bindings import nvrtc

        (program,) = _call(nvrtc.nvrtcCreateProgram, SOURCE.encode(), b"sgraf.cu", 0, [], [])
    except (ImportError, RuntimeError, OSError) as error:
        raise UnavailableError("NVRTC is not available", got=error, hint=CUDA_INSTALL) from error
    architecture = f"--gpu-architecture=sm_{compute_capability.replace('.', '')}".encode()
    (status,) = nvrtc.nvrtcCompileProgram(program, 1, [architecture])
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        (size,) = _call(nvrtc.nvrtcGetProgramLogSize, program)
        text = bytearray(size)
        _call(nvrtc.nvrtcGetProgramLog, program, text)
        reason = text.decode(errors="replace").strip("\0 \n") or status.name
        what = f"NVRTC cannot compile for compute capability {compute_capability}"
        raise DeviceError(what, got=reason)
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
