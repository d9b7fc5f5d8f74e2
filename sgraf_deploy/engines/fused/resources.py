"""Registers and shared memory of the kernels on a GPU, found by compiling; none is needed."""

from __future__ import annotations

import re
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sgraf_deploy.config import ModelConfig, Precision
from sgraf_deploy.engines.fused.blocks import Blocks
from sgraf_deploy.engines.fused.fit import HOPPER, KIB, Gpu, choose_blocks
from sgraf_deploy.engines.fused.scorer import FusedScorer, Launch
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.folding import fold
from sgraf_deploy.model.infer import expected_shapes

GPUS = (
    Gpu((8, 0), 163 * KIB),
    Gpu((8, 6), 99 * KIB),
    Gpu((8, 9), 99 * KIB),
    HOPPER,
    Gpu((10, 0), 227 * KIB),
    Gpu((12, 0), 99 * KIB),
)
"""A100; A10, RTX 30; L4, RTX 40; H100, H200; B200; RTX 50. Shared memory is from CUDA's guide."""

_TYPES = {torch.float16: "*fp16", torch.float32: "*fp32", torch.int32: "*i32"}


@dataclass(frozen=True)
class Resources:
    """What one kernel takes: registers per thread, and bytes per program."""

    kernel: str
    warps: int
    stages: int
    registers: int
    spilled_bytes: int
    shared_bytes: int
    products: dict[str, int]
    """How often each tensor-core instruction occurs in the code."""


def kernel_resources(
    config: ModelConfig, precision: Precision, gpu: Gpu, *, words: int
) -> list[Resources]:
    """Compile every kernel that scores captions of up to `words` words, for a GPU; needs none.

    Raises UnavailableError where the kernels were imported for Triton's interpreter, or do not fit.
    """
    from triton.runtime.interpreter import InterpretedFunction

    launches = _launches(config, precision, words, choose_blocks(config, precision, gpu))
    if any(isinstance(launch.kernel, InterpretedFunction) for launch in launches):
        raise UnavailableError("Triton's interpreter is on", hint="unset TRITON_INTERPRET")
    found = {launch.kernel.__name__: launch for launch in launches}
    return [_compile(launch, gpu) for launch in found.values()]


def _launches(
    config: ModelConfig, precision: Precision, words: int, blocks: Blocks
) -> list[Launch]:
    """The launches that score 16 images and 16 captions, on empty tensors."""
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


def _compile(launch: Launch, gpu: Gpu) -> Resources:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel: Any = launch.kernel
    major, minor = gpu.capability
    signature, constants, attributes = {}, {}, {}
    for place, parameter in enumerate(kernel.params):
        value = launch.arguments[parameter.name]
        signature[parameter.name] = _TYPES[value.dtype] if isinstance(value, Tensor) else "i32"
        if parameter.is_constexpr:
            signature[parameter.name] = "constexpr"
            constants[parameter.name] = value
        elif isinstance(value, Tensor) or _is_specialised(parameter, value):
            attributes[(place,)] = [["tt.divisibility", 16]]
    with triton.knobs.compilation.scope(), triton.knobs.nvidia.scope():
        triton.knobs.compilation.always_compile = True  # A cached kernel has no log.
        triton.knobs.nvidia.dump_ptxas_log = True
        with redirect_stdout(StringIO()) as log:
            compiled = triton.compile(
                ASTSource(kernel, signature, constants, attributes),
                target=GPUTarget("cuda", 10 * major + minor, 32),
                options={
                    "num_warps": launch.warps,
                    "num_stages": launch.stages,
                    "enable_fp_fusion": True,
                },
            )
    registers = re.findall(r"Used (\d+) registers", log.getvalue())
    spilled = re.findall(r"(\d+) bytes spill", log.getvalue())
    products = re.findall(r"mma(?:_async)?\.sync\.aligned\.(m\d+n\d+k\d+)", compiled.asm["ptx"])
    return Resources(
        kernel.__name__,
        launch.warps,
        launch.stages,
        max(map(int, registers)),
        sum(map(int, spilled)),
        compiled.metadata.shared,
        {shape: products.count(shape) for shape in sorted(set(products))},
    )


def _is_specialised(parameter: Any, value: int) -> bool:
    return not parameter.do_not_specialize and value % 16 == 0
