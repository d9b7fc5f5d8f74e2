"""What the kernels take of a GPU that need not be there: compiled for it, and its tools asked."""

from __future__ import annotations

import re
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgraf_deploy.config import ModelConfig, Module, Precision
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.folding import fold
from sgraf_deploy.model.fused.blocks import Blocks
from sgraf_deploy.model.fused.scorer import FusedScorer, Launch
from sgraf_deploy.model.infer import expected_shapes

CAPABILITY = 90
"""sm_90: H100, H200."""

_SGR = ModelConfig(
    module="SGR",
    img_dim=2048,
    regions=36,
    embed=1024,
    sim_dim=256,
    word_dim=300,
    vocab_size=8481,
    num_layers=1,
    bidirectional=True,
    sgr_steps=3,
    image_norm=True,
    text_norm=True,
)
PAPER: dict[Module, ModelConfig] = {"SGR": _SGR, "SAF": replace(_SGR, module="SAF", sgr_steps=0)}
"""The paper's dimensions."""

_TYPES = {torch.float16: "*fp16", torch.float32: "*fp32", torch.int32: "*i32"}


@dataclass(frozen=True)
class Resources:
    """What one kernel takes; registers per thread, bytes per program."""

    kernel: str
    warps: int
    stages: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    products: dict[str, int]
    """How often each tensor-core instruction stands in the code."""


def kernel_resources(
    config: ModelConfig,
    precision: Precision,
    *,
    words: int,
    blocks: Blocks | None = None,
) -> list[Resources]:
    """Compile every kernel that scores captions of up to `words` words; needs no GPU.

    Raises UnavailableError where the kernels were imported with Triton's interpreter on.
    """
    from triton.runtime.interpreter import InterpretedFunction

    launches = _launches(config, precision, words, blocks)
    if any(isinstance(launch.kernel, InterpretedFunction) for launch in launches):
        raise UnavailableError("Triton's interpreter is on", mend="unset TRITON_INTERPRET")
    found = {launch.kernel.__name__: launch for launch in launches}
    return [_compile(launch) for launch in found.values()]


def _launches(
    config: ModelConfig, precision: Precision, words: int, blocks: Blocks | None
) -> list[Launch]:
    """The launches of 16 images and 16 captions, of tensors without content."""
    launches: list[Launch] = []
    shapes = expected_shapes(config)
    weights = {name: np.ones(shape, dtype=np.float32) for name, shape in shapes.items()}
    scorer = FusedScorer(
        fold(config, weights),
        precision,
        torch.device("cpu"),
        blocks=blocks,
        launch=launches.append,
    )

    def empty(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=scorer.dtype)

    lengths = torch.full((16,), words, dtype=torch.int32)
    images, texts = empty(16, config.regions, config.embed), empty(16, words, config.embed)
    scorer(Encoded(images, empty(16, config.embed), texts, empty(16, config.embed), lengths))
    return launches


def _compile(launch: Launch) -> Resources:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel: Any = launch.kernel
    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = launch.arguments[parameter.name]
        signature[parameter.name] = _TYPES[value.dtype] if isinstance(value, Tensor) else "i32"
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, Tensor) or _is_specialised(parameter, value):
            attributes[(place,)] = [["tt.divisibility", 16]]
    compiled = triton.compile(
        ASTSource(kernel, signature, constants, attributes),
        target=GPUTarget("cuda", CAPABILITY, 32),
        options={
            "num_warps": launch.warps,
            "num_stages": launch.stages,
            "enable_fp_fusion": True,
        },
    )
    ptx = compiled.asm["ptx"]
    registers, spilled = _assemble(ptx)
    products = re.findall(r"mma(?:_async)?\.sync\.aligned\.(m\d+n\d+k\d+)", ptx)
    return Resources(
        kernel.__name__,
        launch.warps,
        launch.stages,
        registers,
        spilled,
        compiled.metadata.shared,
        {shape: products.count(shape) for shape in sorted(set(products))},
    )


def _is_specialised(parameter: Any, value: int) -> bool:
    return not parameter.do_not_specialize and value % 16 == 0


def _assemble(ptx: str) -> tuple[int, int]:
    """Registers per thread and bytes spilled, as the assembler that Triton brings counts them."""
    from triton.backends.nvidia.compiler import get_ptxas

    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "kernel.ptx")
        source.write_text(ptx, encoding="utf-8")
        command = [get_ptxas(CAPABILITY).path, "-v", "--regAllocOptLevel=2"]
        command += [f"--gpu-name=sm_{CAPABILITY}a", str(source), "-o", str(source) + ".cubin"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    registers = re.findall(r"Used (\d+) registers", done.stderr)
    spilled = re.findall(r"(\d+) bytes spill", done.stderr)
    return max(map(int, registers)), sum(map(int, spilled))
