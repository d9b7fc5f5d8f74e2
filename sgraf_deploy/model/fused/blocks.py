"""How large a piece of the work one program of a kernel takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from sgraf_deploy.config import ModelConfig, Precision
from sgraf_deploy.errors import InputError

SMALLEST = 16
"""A tensor core's product has at least so many rows, columns and terms."""

ALIGNMENT = 16
"""Rows of sums start at a multiple of so many values: what Triton compiles kernels anew for."""

WIDEST_SIM_DIM = 2048
MOST_REGIONS = 1024
"""Beyond these an array on the chip would pass Triton's limit of 2**20 elements."""


def padded(size: int) -> int:
    """The power of two that a size is padded to."""
    return max(SMALLEST, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Blocks:
    """Rows of words, of pairs and of nodes per program, and terms of a product per step."""

    raw_rows: int
    raw_columns: int
    words: int
    pairs: int
    nodes: int
    keys: int
    """Nodes that a program's nodes meet at a time, where a caption has more than `nodes`."""
    embed: int
    sim_dim: int
    messages: int = 16
    """Nodes per step where one program pools the nodes of one pair."""
    columns: int = 128
    """Columns per program, and words per step, of the norms over words."""
    scale_words: int = 16
    warps: int = 8
    node_warps: int = 8
    stages: int = 3


HALF = Blocks(128, 128, 128, 128, 64, 32, embed=64, sim_dim=64)
FLOAT = Blocks(64, 64, 32, 32, 32, 16, embed=32, sim_dim=32, stages=2)


def choose_blocks(config: ModelConfig, precision: Precision) -> Blocks:
    """The blocks for a model: those of the paper's dimensions, fewer rows where it is wider.

    Raises InputError for a model that does not fit on a chip.
    """
    if config.sim_dim > WIDEST_SIM_DIM or config.regions > MOST_REGIONS:
        raise InputError(
            "engine fused",
            expected=f"at most {MOST_REGIONS} regions and sim_dim {WIDEST_SIM_DIM}",
            got=f"{config.regions} regions and sim_dim {config.sim_dim}",
            mend="use engine torch",
        )
    blocks = HALF if precision == "fp16" else FLOAT
    widest = max(padded(config.sim_dim) // 256, padded(config.regions) // 128, 1)
    return replace(
        blocks,
        words=max(SMALLEST, blocks.words // widest),
        pairs=max(SMALLEST, blocks.pairs // widest),
        embed=min(blocks.embed, padded(config.embed)),
        sim_dim=min(blocks.sim_dim, padded(config.sim_dim)),
    )
