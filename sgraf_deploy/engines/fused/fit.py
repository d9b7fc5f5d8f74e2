"""Chooses the blocks for a model on a GPU: the largest whose kernels fit its shared memory.

The memory that kernels take is computed from the blocks, since compiling them all to find out takes
a minute. Tests check on the compiled kernels that Triton takes no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch

from sgraf_deploy.config import ModelConfig, Precision
from sgraf_deploy.engines.fused.blocks import (
    FLOAT,
    HALF,
    MORE_WARPS,
    SHORTER_STEPS,
    SMALLEST,
    Blocks,
    padded,
)
from sgraf_deploy.errors import UnavailableError

KIB = 1024

BARRIERS = KIB
"""The most bytes that compute capability 10.0 takes to synchronise its tensor cores."""


@dataclass(frozen=True)
class Gpu:
    """What decides which blocks fit: a GPU's compute capability, and its shared memory in bytes.

    `shared_memory` is the most that one program may take: CUDA's "shared memory per block, opt-in".
    """

    capability: tuple[int, int]
    shared_memory: int

    @property
    def reads_operands_there(self) -> bool:
        """Whether the tensor cores read a product's operands from shared memory."""
        return (9, 0) <= self.capability < (12, 0)


HOPPER = Gpu((9, 0), 227 * KIB)
"""H100 and H200, for which the largest blocks are made."""


def find_gpu(device: torch.device) -> Gpu:
    """The limits of a CUDA device; on the CPU, where kernels are interpreted, `HOPPER`."""
    if device.type == "cpu":
        return HOPPER
    properties: Any = torch.cuda.get_device_properties(device)
    # PyTorch's stubs leave the attribute out; its own compiler reads it on NVIDIA GPUs.
    return Gpu((properties.major, properties.minor), properties.shared_memory_per_block_optin)


def choose_blocks(config: ModelConfig, precision: Precision, gpu: Gpu = HOPPER) -> Blocks:
    """The largest blocks whose kernels fit a GPU's shared memory.

    Raises UnavailableError, with both sizes, where not even the smallest fit.
    """
    for blocks in _candidates(config, precision, gpu):
        needed = max(shared_bytes(blocks, config, precision, gpu).values())
        if needed <= gpu.shared_memory:
            return blocks
    raise UnavailableError(
        "the kernels for a model of these dimensions do not fit on this GPU",
        expected=f"at least {-(-needed // KIB)} KiB of shared memory per block",
        got=f"{gpu.shared_memory // KIB} KiB",
        hint="use engine trt or torch",
    )


def _candidates(config: ModelConfig, precision: Precision, gpu: Gpu) -> Iterator[Blocks]:
    """Blocks from large to small; a wide model gets fewer rows, as its sums take more registers."""
    widest = max(padded(config.sim_dim) // 256, padded(config.regions) // 128, 1)
    half = [HALF if gpu.reads_operands_there else MORE_WARPS, SHORTER_STEPS]
    sizes = half if precision == "fp16" else [FLOAT]
    while sizes[-1] != sizes[-1].smaller():
        sizes.append(sizes[-1].smaller())
    for blocks in sizes:
        yield replace(
            blocks,
            words=max(SMALLEST, blocks.words // widest),
            pairs=max(SMALLEST, blocks.pairs // widest),
            embed=min(blocks.embed, padded(config.embed)),
            sim_dim=min(blocks.sim_dim, padded(config.sim_dim)),
        )


def shared_bytes(
    blocks: Blocks, config: ModelConfig, precision: Precision, gpu: Gpu
) -> dict[str, int]:
    """The most shared memory that a program takes, in bytes, by kernel with matrix products.

    Other kernels take less. Tests compare it with what Triton's compiled kernels take.
    """
    shapes = _Shapes(blocks, padded(config.sim_dim), padded(config.regions), precision, gpu)
    found = {
        "raw_attention": shapes.raw_attention(),
        "local_alignments": shapes.local_alignments(),
        "global_alignments": shapes.global_alignments(),
    }
    if config.module == "SGR":
        found["reasoning_step"] = shapes.reasoning_step()
        found["first_queries"] = found["reasoning_logits"] = shapes.projection()
    return {kernel: count + BARRIERS for kernel, count in found.items()}


@dataclass(frozen=True)
class _Shapes:
    """The bytes of the arrays that a kernel holds in shared memory at one time."""

    blocks: Blocks
    sim_dim: int
    regions: int
    precision: Precision
    gpu: Gpu

    @property
    def size(self) -> int:
        """The bytes of one operand's value."""
        return 2 if self.precision == "fp16" else 4

    @property
    def is_direct(self) -> bool:
        """Whether products read operands from shared memory; float32 uses no tensor cores."""
        return self.gpu.reads_operands_there and self.precision == "fp16"

    def loop(self, step: int, computed: int = 0, stages: int | None = None) -> int:
        """The bytes of a loop over blocks of `step` operands, with `computed` values beside them.

        The next `stages` - 1 blocks are being loaded; one that the tensor cores read must stay.
        """
        blocks = (stages or self.blocks.stages) - (0 if self.is_direct else 1)
        return self.size * (blocks * step + computed)

    def raw_attention(self) -> int:
        blocks = self.blocks
        steps = self.loop((blocks.raw_rows + blocks.raw_columns) * blocks.embed)
        return max(steps, 4 * blocks.raw_rows * blocks.raw_columns)

    def local_alignments(self) -> int:
        words, regions, embed = self.blocks.words, self.regions, self.blocks.embed
        parts = 2 if self.is_direct else 1  # tf32x3 splits values into large and small parts.
        norms = parts * 4 * (words + regions) * regions + self.size * words * regions
        step = (regions + words + self.sim_dim) * embed
        contexts = self.loop(step, words * (regions + embed))
        return max(norms, contexts, self.size * words * self.sim_dim)

    def global_alignments(self) -> int:
        pairs, embed = self.blocks.pairs, self.blocks.embed
        steps = self.loop((2 * pairs + self.sim_dim) * embed, pairs * embed)
        return max(steps, self.size * pairs * self.sim_dim)

    def reasoning_step(self) -> int:
        nodes, step = self.blocks.nodes, self.blocks.sim_dim
        stages = self.blocks.node_stages
        values = self.size * nodes * self.sim_dim
        queries = self.loop((nodes + self.sim_dim) * step, stages=stages)
        messages = (3 if self.is_direct else 2) * values + 16 * self.sim_dim  # As Triton does.
        updates = self.loop(self.sim_dim * step, nodes * step, stages) + values
        return max(queries, messages, updates)

    def projection(self) -> int:
        pairs = self.blocks.pairs
        return max(
            self.loop((pairs + self.sim_dim) * self.blocks.sim_dim), 4 * pairs * self.sim_dim
        )
