"""How padded captions become packed rows, and packed rows become programs; numpy and torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

ALIGNMENT = 4
"""Tables share one copy to the device; each starts at a multiple of so many int32, 16 bytes, or
Triton would compile kernels anew for every pattern of alignments."""


@dataclass(frozen=True)
class Packing:
    """Tables of one tile's captions, int32 on the device; T words in all, C captions.

    Word row `t` is word `t` of all captions in a row. Node rows are, caption by caption, the
    global alignment and then the words'.
    """

    lengths: Tensor
    first_word: Tensor
    """(C,) word rows."""
    first_node: Tensor
    """(C,) node rows."""
    word_source: Tensor
    """(T,) rows of the padded words (C*L, D)."""
    word_caption: Tensor
    word_node: Tensor
    node_caption: Tensor
    """(T + C,)."""
    tile_first: Tensor
    """(tiles,) node rows: SGR's nodes in pieces, of whole captions unless one alone is longer."""
    tile_end: Tensor
    tile_first_key: Tensor
    """(tiles,) node rows: all nodes of a tile's captions."""
    tile_end_key: Tensor


def pack(lengths: NDArray[np.int32], words: int, block_nodes: int, device: torch.device) -> Packing:
    """The tables for captions (C,) of so many real words, padded to `words`."""
    captions = np.arange(len(lengths))
    first_word = np.cumsum(lengths) - lengths
    word_caption = np.repeat(captions, lengths)
    position = np.arange(len(word_caption)) - first_word[word_caption]
    first_node = first_word + captions
    tables = [
        lengths,
        first_word,
        first_node,
        word_caption * words + position,
        word_caption,
        first_node[word_caption] + 1 + position,
        np.repeat(captions, lengths + 1),
        *_node_tiles(lengths + 1, block_nodes),
    ]
    return Packing(*_to_device(tables, device))


def _node_tiles(nodes: NDArray[np.int32], block_nodes: int) -> NDArray[np.int64]:
    """(4, tiles): first and end node rows of every tile, and those of its captions."""
    tiles: list[tuple[int, int, int, int]] = []
    first = end = 0
    for count in nodes.tolist():
        if end > first and end + count - first > block_nodes:
            tiles.append((first, end, first, end))
            first = end
        end += count
        if end - first > block_nodes:
            pieces = range(first, end, block_nodes)
            tiles += [(piece, min(piece + block_nodes, end), first, end) for piece in pieces]
            first = end
    if end > first:
        tiles.append((first, end, first, end))
    return np.array(tiles, dtype=np.int64).reshape(-1, 4).T


def _to_device(tables: list[NDArray[Any]], device: torch.device) -> list[Tensor]:
    ends = np.cumsum([len(table) + -len(table) % ALIGNMENT for table in tables])
    together = np.zeros(ends[-1], dtype=np.int32)
    starts = [0, *ends[:-1].tolist()]
    for start, table in zip(starts, tables, strict=True):
        together[start : start + len(table)] = table
    moved = torch.from_numpy(together).to(device)
    return [moved[start : start + len(table)] for start, table in zip(starts, tables, strict=True)]
