"""The scorer's time on a device by kernel, measured with PyTorch's profiler.

On a GPU it sees all kernels of the process, including those of Triton, TensorRT and ONNX Runtime;
on a CPU only PyTorch's operations.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from sgraf_deploy.bench.gpu.job import engine_parser, run_job
from sgraf_deploy.bench.run import random_workload
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.runtime.scorer import Scorer, load

CAPTIONS_PER_IMAGE = 5
SHOWN = 12
"""The number of kernels that are reported, the largest first."""


def profile_scorer(bundle: Bundle, scorer: Scorer, images: int) -> dict[str, Any]:
    """Score a random matrix twice, then profile it: milliseconds and calls by kernel."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    inputs = random_workload(bundle, images, CAPTIONS_PER_IMAGE * images).inputs
    encoded = scorer.encode_images(inputs.regions), scorer.encode_captions(list(inputs.token_ids))
    for _ in range(2):
        scorer.logits(*encoded)
    on_a_gpu = scorer.device != "cpu"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_a_gpu else [])]
    with profile(activities=activities) as profiler:
        scorer.logits(*encoded)
        if on_a_gpu:
            torch.cuda.synchronize()
    events = [_kernel(event, on_a_gpu=on_a_gpu) for event in profiler.key_averages()]
    kernels = [kernel for kernel in events if kernel and kernel["ms"] > 0]
    kernels.sort(key=lambda kernel: -kernel["ms"])
    total = sum(kernel["ms"] for kernel in kernels)
    return {
        "engine": scorer.engine_name,
        "executed": scorer.executed,
        "device": scorer.device,
        "images": images,
        "captions": len(inputs.token_ids),
        "total_ms": total,
        "kernels": [kernel | {"share": kernel["ms"] / total} for kernel in kernels[:SHOWN]],
        "two_largest": [kernel["name"] for kernel in kernels[:2]],
    }


def _kernel(event: Any, *, on_a_gpu: bool) -> dict[str, Any] | None:
    """A kernel on a GPU, or an operation on the CPU; None for anything else."""
    kind = str(event.device_type).rpartition(".")[2]
    if on_a_gpu != (kind == "CUDA"):
        return None
    microseconds = event.self_device_time_total if on_a_gpu else event.self_cpu_time_total
    name = event.key if len(event.key) <= 120 else f"{event.key[:117]}..."
    calls = int(event.count)
    return {"name": name, "calls": calls, "ms": microseconds / 1e3, "us_each": microseconds / calls}


def _job(given: argparse.Namespace) -> dict[str, Any]:
    bundle = Bundle.open(given.bundle)
    with load(bundle, given.engine, given.precision) as scorer:
        return profile_scorer(bundle, scorer, given.images)


def _parser() -> argparse.ArgumentParser:
    parser = engine_parser(__doc__ or "")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=200)
    return parser


if __name__ == "__main__":
    sys.exit(run_job(_parser(), _job))
