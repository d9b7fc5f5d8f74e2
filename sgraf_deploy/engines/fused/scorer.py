"""Launches the kernels that turn encoded images and captions into logits, in order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from triton.runtime.errors import OutOfResources

from sgraf_deploy.config import Precision
from sgraf_deploy.engines.fused import attention_kernels as attend
from sgraf_deploy.engines.fused import reasoning_kernels as reason
from sgraf_deploy.engines.fused.blocks import ALIGNMENT, Blocks, padded
from sgraf_deploy.engines.fused.packing import Packing, Packings
from sgraf_deploy.engines.torch.transfer import download
from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.model.folded import Encoded
from sgraf_deploy.model.folding import FoldedWeights, Linear, ReasoningStep


@dataclass(frozen=True)
class Launch:
    """One kernel, the number of its programs, and its arguments by name."""

    kernel: Any
    programs: int
    arguments: dict[str, Any]
    warps: int
    stages: int


def run(launch: Launch) -> None:
    """Start a kernel on the current device; UnavailableError if the device is too small for it."""
    try:
        launch.kernel[(launch.programs,)](
            **launch.arguments,
            num_warps=launch.warps,
            num_stages=launch.stages,
            enable_fp_fusion=True,
        )
    except OutOfResources as error:
        raise UnavailableError(
            f"engine fused: kernel {launch.kernel.__name__} does not fit on this GPU",
            got=error,
            hint="use engine torch",
        ) from error


@dataclass(frozen=True)
class _Tile:
    """What the kernels of one run share: sizes, tables, and the nodes that they write."""

    images: int
    captions: int
    words: int
    single: bool
    """Whether every caption's nodes fit into one block of nodes."""
    tables: Packing
    nodes: Tensor

    @property
    def pairs(self) -> int:
        return self.images * self.captions

    @property
    def node_rows(self) -> int:
        return self.words + self.captions


class FusedScorer:
    """One member's scorer: weights on a device, in the precision of its products.

    `launch` is called with each kernel in turn. `on_host` gives lengths (C,) as a host array; the
    default waits for the device. Biases, the gate and the last layer are float32.
    """

    def __init__(
        self,
        weights: FoldedWeights,
        precision: Precision,
        device: torch.device,
        *,
        blocks: Blocks,
        launch: Callable[[Launch], None] = run,
        on_host: Callable[[Tensor], NDArray[np.int32]] = download,
    ) -> None:
        self.config = weights.config
        self.dtype = torch.float16 if precision == "fp16" else torch.float32
        self.device = device
        self.blocks = blocks
        self._launch = launch
        self._on_host = on_host
        self._packings = Packings(blocks.nodes, device)
        self._weights = weights
        self._constants: dict[str, tuple[Tensor, Tensor]] = {}
        self._sizes = {
            "sim_dim": self.config.sim_dim,
            "padded_sim": padded(self.config.sim_dim),
        }

    def __call__(self, encoded: Encoded[Tensor]) -> Tensor:
        """Logits (N, C) float32 of every image with every caption, from embeddings as stored."""
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                return self._score(encoded)
        return self._score(encoded)

    def _score(self, encoded: Encoded[Tensor]) -> Tensor:
        lengths = self._on_host(encoded.lengths)
        tables = self._packings.of(lengths, encoded.word_embeddings.shape[1])
        words = encoded.word_embeddings.reshape(-1, self.config.embed)[tables.word_source]
        images, captions = len(encoded.image_global), len(lengths)
        nodes = words.new_empty(images, len(words) + captions, self.config.sim_dim)
        single = int(lengths.max(initial=0)) < self.blocks.nodes
        tile = _Tile(images, captions, len(words), single, tables, nodes)
        logits = torch.empty(images, captions, dtype=torch.float32, device=self.device)
        if tile.pairs == 0:
            return logits
        self._local(tile, encoded, words)
        self._global(tile, encoded.image_global.contiguous(), encoded.text_global.contiguous())
        if self._reasons:
            self._reasoning(tile, logits)
        else:
            self._filtration(tile, logits)
        return logits

    @property
    def _reasons(self) -> bool:
        return self._weights.filtration is None

    def _local(self, tile: _Tile, encoded: Encoded[Tensor], words: Tensor) -> None:
        """Cross attention of every word to every region, then the words' alignments."""
        regions = encoded.region_embeddings.contiguous()
        blocks, count = self.blocks, self.config.regions
        region_rows = tile.images * count
        columns = _ceil(region_rows, ALIGNMENT) * ALIGNMENT
        raw = torch.empty(tile.words, columns, dtype=torch.float32, device=self.device)
        self._start(
            attend.raw_attention,
            _ceil(tile.words, blocks.raw_rows) * _ceil(columns, blocks.raw_columns),
            {"words": words, "regions": regions, "raw": raw, "word_rows": tile.words}
            | {"region_rows": region_rows, "columns": columns, "embed": self.config.embed}
            | {"block_rows": blocks.raw_rows, "block_columns": blocks.raw_columns}
            | {"block_embed": blocks.embed},
        )
        scales = raw.new_empty(tile.captions, columns)
        self._start(
            attend.word_scales,
            tile.captions * _ceil(columns, blocks.columns),
            {"raw": raw, "scales": scales, "first_word": tile.tables.first_word}
            | {"lengths": tile.tables.lengths, "captions": tile.captions, "columns": columns}
            | {"block_words": blocks.scale_words, "block_columns": blocks.columns},
            warps=4,
        )
        gram = encoded.region_gram
        if gram is None:
            wide = regions.float()
            gram = wide @ wide.mT
        self._start(
            attend.local_alignments,
            _ceil(tile.words, blocks.words) * tile.images,
            {"raw": raw, "scales": scales, "regions": regions, "gram": gram.contiguous()}
            | {"words": words, "word_caption": tile.tables.word_caption}
            | {"word_node": tile.tables.word_node, "nodes": tile.nodes}
            | self._linear(self._weights.local_alignment)
            | {"word_rows": tile.words, "node_rows": tile.node_rows, "columns": columns}
            | {"gram_precision": "tf32x3" if self.dtype == torch.float16 else "ieee"}
            | {"region_count": count, "padded_regions": padded(count)}
            | {"embed": self.config.embed, "block_embed": blocks.embed}
            | {"block_rows": blocks.words}
            | self._sizes,
        )

    def _global(self, tile: _Tile, image_global: Tensor, text_global: Tensor) -> None:
        self._start(
            attend.global_alignments,
            _ceil(tile.pairs, self.blocks.pairs),
            {"image_global": image_global, "text_global": text_global, "nodes": tile.nodes}
            | {"first_node": tile.tables.first_node, "node_rows": tile.node_rows}
            | self._linear(self._weights.global_alignment)
            | {"pairs": tile.pairs, "captions": tile.captions, "embed": self.config.embed}
            | {"block_rows": self.blocks.pairs, "block_embed": self.blocks.embed}
            | self._sizes,
        )

    def _reasoning(self, tile: _Tile, logits: Tensor) -> None:
        """SGR: every step but the last for all nodes, the last for node 0 alone."""
        nodes, spare = tile.nodes, torch.empty_like(tile.nodes)
        *steps, last = self._weights.reasoning
        tables = tile.tables
        for step in steps:
            self._start(
                reason.reasoning_step,
                len(tables.tile_first) * tile.images,
                {"nodes": nodes, "output": spare, "node_caption": tables.node_caption}
                | {"tile_first": tables.tile_first, "tile_end": tables.tile_end}
                | {"tile_first_key": tables.tile_first_key, "tile_end_key": tables.tile_end_key}
                | self._linear(step.key, "key_")
                | self._linear(step.update, "update_")
                | {"tiles": len(tables.tile_first), "node_rows": tile.node_rows}
                | {"block_nodes": self.blocks.nodes, "single": tile.single}
                | {"block_keys": self.blocks.nodes if tile.single else self.blocks.keys}
                | {"block_sim": self.blocks.sim_dim}
                | self._sizes,
                warps=self.blocks.node_warps,
                stages=self.blocks.node_stages,
            )
            nodes, spare = spare, nodes
        self._last_step(tile, last, nodes, logits)

    def _last_step(self, tile: _Tile, step: ReasoningStep, nodes: Tensor, logits: Tensor) -> None:
        blocks, tables = self.blocks, tile.tables
        queries = logits.new_empty(tile.pairs, self.config.sim_dim)
        rows = {"block_rows": blocks.pairs, "block_sim": blocks.sim_dim}
        pairs = {"captions": tile.captions, "node_rows": tile.node_rows}
        self._start(
            reason.first_queries,
            _ceil(tile.pairs, blocks.pairs),
            {"nodes": nodes, "first_node": tables.first_node, "queries": queries}
            | self._linear(step.key)
            | {"pairs": tile.pairs}
            | pairs
            | rows
            | self._sizes,
        )
        messages = nodes.new_empty(tile.pairs, self.config.sim_dim)
        self._start(
            reason.first_messages,
            tile.pairs,
            {"nodes": nodes, "first_node": tables.first_node, "lengths": tables.lengths}
            | {"queries": queries, "messages": messages, "block_nodes": blocks.pooled}
            | pairs
            | self._sizes,
            warps=blocks.pool_warps,
            stages=blocks.pool_stages,
        )
        self._start(
            reason.reasoning_logits,
            _ceil(tile.pairs, blocks.pairs),
            {"messages": messages, "logits": logits, "pairs": tile.pairs}
            | self._linear(step.update, "update_")
            | self._linear(self._weights.similarity, "similarity_", exact=True)
            | rows
            | self._sizes,
        )

    def _filtration(self, tile: _Tile, logits: Tensor) -> None:
        """SAF, with a program for each pair."""
        if self._weights.filtration is None:
            return
        self._start(
            reason.filtration_logits,
            tile.pairs,
            {"nodes": tile.nodes, "first_node": tile.tables.first_node, "logits": logits}
            | {"lengths": tile.tables.lengths, "block_nodes": self.blocks.pooled}
            | self._linear(self._weights.filtration, "gate_", exact=True)
            | self._linear(self._weights.similarity, "similarity_", exact=True)
            | {"captions": tile.captions, "node_rows": tile.node_rows}
            | self._sizes,
            warps=self.blocks.pool_warps,
            stages=self.blocks.pool_stages,
        )

    def _start(
        self,
        kernel: Any,
        programs: int,
        arguments: dict[str, Any],
        *,
        warps: int | None = None,
        stages: int | None = None,
    ) -> None:
        warps, stages = warps or self.blocks.warps, stages or self.blocks.stages
        self._launch(Launch(kernel, programs, arguments, warps, stages))

    def _linear(
        self, linear: Linear, prefix: str = "", *, exact: bool = False
    ) -> dict[str, Tensor]:
        """A layer's weight, in float32 if `exact`, and its bias, by argument."""
        found = self._constants.get(linear.name)
        if found is None:  # Threads that come first at the same time copy it twice, to no harm.
            weight = torch.from_numpy(linear.weight.copy()).to(self.device)
            bias = torch.from_numpy(linear.bias.copy()).to(self.device)
            found = weight if exact else weight.to(self.dtype), bias
            self._constants[linear.name] = found
        return {f"{prefix}weight": found[0], f"{prefix}bias": found[1]}


def _ceil(size: int, block: int) -> int:
    return -(-size // block)
