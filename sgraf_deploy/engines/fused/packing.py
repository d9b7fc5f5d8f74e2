"""Tables that pack the words of padded captions into rows, and split rows into programs."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sgraf_deploy.engines.torch.transfer import upload

ALIGNMENT = 4
"""All tables are copied to the device together, and each starts at a multiple of so many int32, or
16 bytes: Triton would compile kernels again for every other pattern of alignments."""


@dataclass(frozen=True)
class Packing:
    """The tables of one tile's captions, int32 on the device; T words in all, C captions.

    Word rows are the real words of all captions, one caption after another. Node rows are, caption
    by caption, the global alignment and then those of the words.
    """

    lengths: Tensor
    first_word: Tensor
    """(C,) the first word row of each caption."""
    first_node: Tensor
    """(C,) the first node row of each caption."""
    word_source: Tensor
    """(T,) the row of each word among the padded words (C*L, D)."""
    word_caption: Tensor
    """(T,) the caption of each word row."""
    word_node: Tensor
    """(T,) the node row of each word row."""
    node_caption: Tensor
    """(T + C,) the caption of each node row."""
    tile_first: Tensor
    """(tiles,) the first node row of each piece: whole captions, or part of a longer one."""
    tile_end: Tensor
    """(tiles,) the node row behind each piece."""
    tile_first_key: Tensor
    """(tiles,) the first node row of the captions of each piece."""
    tile_end_key: Tensor
    """(tiles,) the node row behind those captions."""


class Packings:
    """The tables of the captions that came last: the same captions come again with other images,
    and single captions of the same length all the time. Threads may share it.
    """

    def __init__(self, block_nodes: int, device: torch.device, most: int = 64) -> None:
        """Keep at most so many tables on the device."""
        self._block_nodes, self._device, self._most = block_nodes, device, most
        self._kept: OrderedDict[tuple[bytes, int], Packing] = OrderedDict()
        self._lock = Lock()

    def of(self, lengths: NDArray[np.int32], words: int) -> Packing:
        """The tables for captions of `lengths` (C,) real words, padded to `words`."""
        key = lengths.tobytes(), words
        with self._lock:
            found = self._kept.get(key)
            if found is None:
                found = self._kept[key] = pack(lengths, words, self._block_nodes, self._device)
                if len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
        return found


def pack(lengths: NDArray[np.int32], words: int, block_nodes: int, device: torch.device) -> Packing:
    """The tables for captions of `lengths` (C,) real words, padded to `words`."""
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
    """(4, tiles): the first and end node rows of every piece, and those of its captions."""
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
    moved = upload(together, device)
    return [moved[start : start + len(table)] for start, table in zip(starts, tables, strict=True)]
