"""The sizes of the pieces of work that one program of a kernel takes."""

from __future__ import annotations

from dataclasses import dataclass, replace

SMALLEST = 16
"""The fewest rows, columns and terms of a tensor core's product."""

ALIGNMENT = 16
"""Rows of sums start at a multiple of so many values; for others Triton compiles kernels again."""


def padded(size: int) -> int:
    """The power of two that a size is padded to, at least `SMALLEST`."""
    return max(SMALLEST, 1 << (size - 1).bit_length())


@dataclass(frozen=True)
class Blocks:
    """The rows of words, pairs and nodes per program, and the terms of a product per step."""

    raw_rows: int
    raw_columns: int
    words: int
    pairs: int
    nodes: int
    keys: int
    """Nodes that a program reads at a time as keys, where a caption has more than `nodes`."""
    embed: int
    sim_dim: int
    pooled: int = 4
    """Nodes per step where one program pools the nodes of one pair."""
    columns: int = 128
    """Columns per program, and words per step, of the norms over words."""
    scale_words: int = 16
    warps: int = 8
    stages: int = 3
    node_warps: int = 8
    node_stages: int = 3
    pool_warps: int = 1
    pool_stages: int = 1

    def smaller(self) -> Blocks:
        """Blocks of half as many rows and terms, but no fewer than `SMALLEST`."""
        names = ("raw_rows", "raw_columns", "words", "pairs", "nodes", "keys", "embed", "sim_dim")
        halves = {name: max(SMALLEST, getattr(self, name) // 2) for name in names}
        return replace(self, stages=2, node_stages=2, **halves)


HALF = Blocks(128, 128, 128, 128, 64, 32, embed=64, sim_dim=64, node_warps=4, node_stages=2)
"""The fastest of ten variants on an H100."""
MORE_WARPS = replace(HALF, node_warps=8, node_stages=3)
"""For GPUs whose tensor cores read operands from registers, of which four warps have too few."""
SHORTER_STEPS = replace(MORE_WARPS, pairs=64, embed=32, sim_dim=32)
"""For GPUs of 99 KiB; it keeps the rows of words, since every program reads all weights."""
FLOAT = Blocks(64, 64, 32, 32, 32, 16, embed=32, sim_dim=32, stages=2, node_stages=2)
