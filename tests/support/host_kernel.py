"""The rank kernel's own text, compiled for the host, and a fake GPU that runs it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.fake_cuda import FakeCuda

from sgraf_deploy.engines.cuda.api import RankTile
from sgraf_deploy.engines.cuda.kernels import COUNT_RANKS

SHIMS = """
#include <math.h>
#define __device__ static
#define __global__
typedef struct { int x; } Index;
typedef struct { int x, y; } int2;
static Index blockIdx, gridDim = {2}, threadIdx, blockDim = {4};
static void atomicAdd(int* target, int value) { *target += value; }
"""

CALLS = """
void launch(
    const float* const* logits, const int* columns, const float* image_thresholds,
    const float* caption_thresholds, int* image_counts, int* caption_counts, int2* wrong,
    int members, int first_image, int images, int captions, int all_images, int all_captions,
    int per_image)
{
    for (blockIdx.x = 0; blockIdx.x < gridDim.x; ++blockIdx.x)
        for (threadIdx.x = 0; threadIdx.x < blockDim.x; ++threadIdx.x)
            count_ranks(logits, columns, image_thresholds, caption_thresholds, image_counts,
                        caption_counts, wrong, members, first_image, images, captions, all_images,
                        all_captions, per_image);
}

void combine(const float* const* logits, int members, long long count, float* result)
{
    for (long long at = 0; at < count; ++at)
        result[at] = combined(logits, members, at);
}
"""


def compile_for_host(folder: Path) -> Any:
    """The library of `launch`, which runs a kernel's threads in turn, and `combine`."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, library = folder / "ranks.c", folder / "ranks.so"
    source.write_text(SHIMS + COUNT_RANKS.replace('extern "C" ', "") + CALLS)
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(source), "-lm"]
    subprocess.run(command, check=True, capture_output=True)
    return ctypes.CDLL(str(library))


def combine(kernel: Any, members: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The members' logits combined by the kernel's text."""
    logits = [np.ascontiguousarray(each) for each in members]
    pointers = (ctypes.c_void_p * len(logits))(*(each.ctypes.data for each in logits))
    result = np.empty_like(logits[0])
    count = ctypes.c_longlong(result.size)
    kernel.combine(pointers, ctypes.c_int(len(logits)), count, ctypes.c_void_p(result.ctypes.data))
    return result


class HostKernel(FakeCuda):
    """A fake GPU on which the kernel's own text runs."""

    def __init__(self, kernel: Any) -> None:
        super().__init__()
        self._kernel = kernel

    def count_ranks(self, tile: RankTile, stream: Any) -> None:
        pointers = (
            *(tile.logits, tile.columns, tile.image_thresholds, tile.caption_thresholds),
            *(tile.image_counts, tile.caption_counts, tile.wrong),
        )
        sizes = (
            *(tile.members, tile.first_image, tile.images, tile.captions),
            *(tile.all_images, tile.all_captions, tile.captions_per_image),
        )
        arguments = [*map(ctypes.c_void_p, pointers), *map(ctypes.c_int, sizes)]
        self.put(stream, lambda: self._kernel.launch(*arguments))
