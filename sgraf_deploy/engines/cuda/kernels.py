"""What is no graph: copying rows, and counting ranks; NVRTC compiles it for the GPU there is."""

from __future__ import annotations

from typing import Any

from sgraf_deploy.engines.registry import CUDA_INSTALL
from sgraf_deploy.errors import DeviceError, UnavailableError

THREADS = 256
"""Of a block."""

UNITS = {16: "uint4", 4: "unsigned int", 2: "unsigned short"}
"""Bytes that a thread copies at a time, the widest that divides a row first."""

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
#define NOTHING (-1.7e308)  // The logarithm of what adds nothing.

__device__ double log_add_exp(double a, double b)
{
    return fmax(a, b) + log1p(exp(-fabs(a - b)));
}

// The logit of the mean of the members' similarities, as engines/ensemble.py has it: the odds are
// 1 + sum tanh(x/2) / sum sigmoid(-x); a large x gives its tanh as 1 and what it lacks of that.
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

// A block takes one image after the other, and for each the members, then their ensemble: hits of
// the image are added up in its threads, those of a caption where they belong.
extern "C" __global__ void count_ranks(
    const float* const* logits, const int* columns,
    const float* image_bars, const float* caption_bars,
    int* image_counts, int* caption_counts, int2* wrong, int members,
    int first_image, int images, int captions, int all_images, int all_captions, int per_image)
{
    const int models = members > 1 ? members + 1 : 1;
    for (int row = blockIdx.x; row < images; row += gridDim.x) {
        const int image = first_image + row;
        for (int model = 0; model < models; ++model) {
            const float image_bar = image_bars[(long long)model * all_images + image];
            int reach = 0, level = 0;
            for (int place = threadIdx.x; place < captions; place += blockDim.x) {
                const int caption = columns[place];
                const long long at = (long long)row * captions + place;
                const float value =
                    model < members ? logits[model][at] : combined(logits, members, at);
                if (!(fabsf(value) <= LARGEST)) {
                    int2 pair;  // Stored at once: threads that find others must not mix theirs in.
                    pair.x = image + 1;
                    pair.y = caption;
                    *wrong = pair;
                }
                if (caption / per_image == image)
                    continue;
                const float caption_bar = caption_bars[(long long)model * all_captions + caption];
                int* counts = caption_counts + 2LL * model * all_captions + caption;
                reach += value >= image_bar;
                level += value == image_bar;
                if (value >= caption_bar)
                    atomicAdd(counts, 1);
                if (value == caption_bar)
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
        raise UnavailableError("NVRTC is not available", got=error, hint=CUDA_INSTALL) from error
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
