"""An upper bound of the compiled scorer's working memory, which `workspace.h` lays out."""

from __future__ import annotations

from sgraf_deploy.config import ModelConfig

KEPT_WORDS = 128
"""A thread keeps a workspace for captions of so many words, and frees a larger one after use."""

_GROUP_WORDS, _GROUP_PAIRS, _PANEL_PAIRS, _QUERIES = 240, 32, 64, 240
_DEPTH, _BLOCK, _WIDEST, _VECTOR = 132, 6, 64, 16
"""As in C; the widest product and vector are those of AVX-512, which no other set exceeds."""

_GROUP_BYTES = 1400 << 10
_BUFFERS = 15
_PANEL = 8192
"""Bytes of the panel itself, and what aligning it takes."""

_FLOAT = 4


def workspace_bytes(config: ModelConfig, words: int) -> int:
    """The most bytes that a thread takes to score captions of up to `words` words."""
    words = max(words, KEPT_WORDS)
    nodes, sim_dim = words + 1, -(-config.sim_dim // _BLOCK) * _BLOCK
    pairs, queries = _spare(_PANEL_PAIRS), _spare(min(nodes, _QUERIES))
    floats = (
        _columns(_spare(words + _GROUP_WORDS), config.embed, config.regions, 1, 1)
        + _columns(_spare(words + _GROUP_WORDS + _GROUP_PAIRS), sim_dim, sim_dim, sim_dim)
        + _columns(pairs, config.embed, sim_dim, sim_dim, sim_dim)
        + _columns(_WIDEST + _VECTOR, _DEPTH)
        + _columns(_spare(nodes), sim_dim)
        + _columns(queries, nodes)
        + _widened(config)
    )
    return _FLOAT * (floats + _BUFFERS * _VECTOR) + _PANEL


def _widened(config: ModelConfig) -> int:
    """The floats of a group's images, or of a panel's globals, if they are float16."""
    image = config.regions * config.embed
    group = min(_GROUP_PAIRS * image, max(_GROUP_BYTES // _FLOAT, image))
    return max(group, _PANEL_PAIRS * config.embed)


def _spare(columns: int) -> int:
    """A buffer's stride, in floats: an odd number of cache lines."""
    return 16 * ((columns + _WIDEST + _VECTOR + 15) // 16 | 1)


def _columns(stride: int, *rows: int) -> int:
    """The floats of buffers of one stride, with the rows that a product may touch beyond them."""
    return stride * sum(each + 3 * _BLOCK for each in rows)
