"""The tables that kernels read rows by."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sgraf_deploy.engines.fused.packing import Packing, Packings, pack

CPU = torch.device("cpu")


def tables(lengths: list[int], words: int = 9, block_nodes: int = 8) -> Packing:
    return pack(np.array(lengths, dtype=np.int32), words, block_nodes, CPU)


def test_words_and_nodes_lie_caption_by_caption() -> None:
    found = tables([2, 3, 1])
    assert found.lengths.tolist() == [2, 3, 1]
    assert found.first_word.tolist() == [0, 2, 5]
    assert found.word_source.tolist() == [0, 1, 9, 10, 11, 18]
    assert found.word_caption.tolist() == [0, 0, 1, 1, 1, 2]
    assert found.first_node.tolist() == [0, 3, 7]
    assert found.word_node.tolist() == [1, 2, 4, 5, 6, 8]
    assert found.node_caption.tolist() == [0, 0, 0, 1, 1, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("lengths", "tiles"),
    [
        ([2, 3, 1], [(0, 7, 0, 7), (7, 9, 7, 9)]),
        ([7, 7], [(0, 8, 0, 8), (8, 16, 8, 16)]),
        ([1, 8, 1], [(0, 2, 0, 2), (2, 10, 2, 11), (10, 11, 2, 11), (11, 13, 11, 13)]),
        ([20], [(0, 8, 0, 21), (8, 16, 0, 21), (16, 21, 0, 21)]),
        ([], []),
    ],
    ids=["whole", "full", "long-between-short", "long", "none"],
)
def test_tiles_hold_whole_captions_or_a_piece_of_a_long_one(
    lengths: list[int], tiles: list[tuple[int, ...]]
) -> None:
    found = tables(lengths, words=20)
    columns = (found.tile_first, found.tile_end, found.tile_first_key, found.tile_end_key)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == tiles


def test_every_table_starts_where_kernels_may_read_16_bytes() -> None:
    found = tables([2, 3, 1, 8])
    base = found.lengths.data_ptr()
    for name, table in vars(found).items():
        assert (table.data_ptr() - base) % 16 == 0, name
        assert table.dtype == torch.int32


def test_tables_of_captions_that_come_again_are_kept() -> None:
    packings = Packings(block_nodes=8, device=CPU, most=2)
    lengths = np.array([2, 3, 1], dtype=np.int32)
    first = packings.of(lengths, 9)
    assert packings.of(lengths.copy(), 9) is first
    assert packings.of(lengths, 4) is not first
    assert packings.of(lengths[:2], 9).lengths.tolist() == [2, 3]
    assert packings.of(lengths, 9) is not first  # Two others came since.
    assert packings.of(lengths, 9).word_source.tolist() == first.word_source.tolist()
