"""What is no graph: copying rows, and counting ranks; NVRTC compiles it for the GPU there is."""

from __future__ import annotations

from typing import Any

from sgraf_deploy.errors import DeviceError, UnavailableError
from sgraf_deploy.runtime.engine import CUDA_INSTALL

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

// The logit of the mean of two similarities, from their logits: with s = log-sigmoid it is
// logaddexp(s(a), s(b)) - logaddexp(s(-a), s(-b)).
__device__ double log_sigmoid(double x) { return fmin(x, 0.0) - log1p(exp(-fabs(x))); }

__device__ double log_add_exp(double a, double b)
{
    return fmax(a, b) + log1p(exp(-fabs(a - b)));
}

__device__ float combined(float a, float b)
{
    const double x = a, y = b;
    return (float)(log_add_exp(log_sigmoid(x), log_sigmoid(y))
                   - log_add_exp(log_sigmoid(-x), log_sigmoid(-y)));
}

// A warp takes 32 captions of one image after the other; hits of the image are added up in its
// threads, those of a caption where they belong.
extern "C" __global__ void count_ranks(
    const float* a, const float* b, const int* columns,
    const float* image_bars, const float* caption_bars,
    int* image_counts, int* caption_counts, int2* wrong,
    int first_image, int images, int captions, int all_images, int all_captions, int per_image)
{
    const int models = b ? 3 : 1;
    for (int row = blockIdx.x; row < images; row += gridDim.x) {
        const int image = first_image + row;
        int reach[3] = {0, 0, 0}, level[3] = {0, 0, 0};
        for (int place = threadIdx.x; place < captions; place += blockDim.x) {
            const int caption = columns[place];
            const long long at = (long long)row * captions + place;
            float values[3];
            values[0] = a[at];
            if (b) {
                values[1] = b[at];
                values[2] = combined(values[0], values[1]);
            }
            const float worst = b && !(fabsf(values[1]) <= LARGEST) ? values[1] : values[0];
            if (!(fabsf(worst) <= LARGEST)) {
                int2 pair;  // Stored at once: threads that find others must not mix theirs in.
                pair.x = image + 1;
                pair.y = caption;
                *wrong = pair;
            }
            if (caption / per_image == image)
                continue;
            for (int model = 0; model < models; ++model) {
                const float image_bar = image_bars[(long long)model * all_images + image];
                const float caption_bar = caption_bars[(long long)model * all_captions + caption];
                reach[model] += values[model] >= image_bar;
                level[model] += values[model] == image_bar;
                int* counts = caption_counts + 2LL * model * all_captions + caption;
                if (values[model] >= caption_bar)
                    atomicAdd(counts, 1);
                if (values[model] == caption_bar)
                    atomicAdd(counts + all_captions, 1);
            }
        }
        for (int model = 0; model < models; ++model) {
            int* counts = image_counts + 2LL * model * all_images + image;
            if (reach[model])
                atomicAdd(counts, reach[model]);
            if (level[model])
                atomicAdd(counts + all_images, level[model]);
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
