"""The kernels compile for GPUs that are not there, and fit them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.refusals import refused
from support.small_models import SGR

from sgraf_deploy.engines.fused.fit import HOPPER
from sgraf_deploy.engines.fused.resources import GPUS, kernel_resources
from sgraf_deploy.errors import UnavailableError

REGISTERS = 255
WORST_SPILL = 1024
"""Bytes, outside the loop over the embedding axis."""
HOPPER_SPILL = 16
"""Bytes: the reasoning step in four warps spills so many, and is faster than in eight."""
POOLING = {"first_messages", "filtration_logits"}
"""The kernels that one warp runs, which shares nothing."""

CODE = """
import json, sys, warnings
from dataclasses import asdict
warnings.simplefilter("error")
from sgraf_deploy.engines.fused.fit import choose_blocks, shared_bytes
from sgraf_deploy.config import PAPER
from sgraf_deploy.engines.fused.resources import GPUS, kernel_resources
gpu, precision = GPUS[int(sys.argv[1])], sys.argv[2]
found = []
for module, words in (("SGR", 20), ("SGR", 80), ("SAF", 20)):
    config = PAPER[module]
    needed = shared_bytes(choose_blocks(config, precision, gpu), config, precision, gpu)
    for kernel in kernel_resources(config, precision, gpu, words=words):
        most = needed.get(kernel.kernel, max(needed.values()))
        found.append(asdict(kernel) | {"words": words, "most": most, "gpu": gpu.shared_memory})
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gpu", "precision"),
    [((8, 0), "fp16"), ((8, 6), "fp16"), ((9, 0), "fp16"), ((12, 0), "fp16"), ((8, 6), "fp32")],
    ids=["8.0-fp16", "8.6-fp16", "9.0-fp16", "12.0-fp16", "8.6-fp32"],
)
def test_kernels_take_no_more_than_is_asked_of_a_gpu(
    gpu: tuple[int, int], precision: str, tmp_path: Path
) -> None:
    """At the paper's dimensions; in a process of its own, since this one's kernels are made for
    the interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    place = [known.capability for known in GPUS].index(gpu)
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(place), precision],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    kernels = {kernel["kernel"]: kernel for kernel in found}
    assert (len(kernels), len(found)) == (9, 8 + 8 + 5)
    for kernel in found:
        lowest = 0 if kernel["kernel"] in POOLING else 1
        assert lowest <= kernel["shared_bytes"] <= kernel["most"] <= kernel["gpu"], kernel
        assert 0 < kernel["registers"] <= REGISTERS, kernel
        assert kernel["spilled_bytes"] <= (HOPPER_SPILL if gpu == (9, 0) else WORST_SPILL), kernel
    if gpu == (9, 0):
        assert "m64n256k16" in kernels["local_alignments"]["products"]
        assert "m64n128k16" in kernels["raw_attention"]["products"]
        assert any(shape.startswith("m64") for shape in kernels["reasoning_step"]["products"])
    elif precision == "fp16":
        assert "m16n8k16" in kernels["local_alignments"]["products"]


def test_interpreted_kernels_cannot_be_compiled() -> None:
    with refused(UnavailableError, hint="TRITON_INTERPRET"):
        kernel_resources(replace(SGR, sgr_steps=2), "fp16", HOPPER, words=3)
