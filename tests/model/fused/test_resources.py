"""The kernels compile for sm_90 without a GPU, and fit it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_models import SGR

from sgraf_deploy.errors import UnavailableError

SHARED_MEMORY = 227 * 1024
"""Bytes that one program may take on sm_90."""
REGISTERS = 255

CODE = """
import json, warnings
from dataclasses import asdict
warnings.simplefilter("error")
from sgraf_deploy.model.fused.resources import PAPER, kernel_resources
found = [
    asdict(kernel) | {"words": words}
    for module, words in (("SGR", 20), ("SGR", 80), ("SAF", 20))
    for kernel in kernel_resources(PAPER[module], "fp16", words=words)
]
print(json.dumps(found))
"""


@pytest.mark.slow
def test_no_kernel_spills_at_the_papers_dimensions(tmp_path: Path) -> None:
    """In a process of its own, since this one's kernels are made for the interpreter."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", CODE],
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
        assert kernel["spilled_bytes"] == 0, kernel
        assert 0 < kernel["registers"] <= REGISTERS, kernel
        assert 0 < kernel["shared_bytes"] <= SHARED_MEMORY, kernel
    assert "m64n256k16" in kernels["local_alignments"]["products"]
    assert "m64n128k16" in kernels["raw_attention"]["products"]
    assert any(shape.startswith("m64") for shape in kernels["reasoning_step"]["products"])


def test_interpreted_kernels_cannot_be_compiled() -> None:
    from sgraf_deploy.model.fused.resources import kernel_resources

    with pytest.raises(UnavailableError, match="interpreter is on; unset TRITON_INTERPRET"):
        kernel_resources(replace(SGR, sgr_steps=2), "fp16", words=3)
