"""Assigns nodes to stages of the scorer, by dataflow from the weights' names and the operations.

The names of nodes are not used, so it works for bundles of every age, and for graphs that ONNX
Runtime has rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from math import prod
from typing import Protocol


class ScorerStage(IntEnum):
    """Stages in the order of the paper's formulas: a node is in the latest stage of its inputs."""

    REST = 0
    ATTENTION = 1
    WORD_ATTENTION = 2
    CONTEXT_NORM = 3
    CONTEXT = 4
    DIFFERENCE = 5
    LOCAL = 6
    GLOBAL = 7
    SGR = 8
    SAF = 9
    HEAD = 10
    WORDS = 11
    """Of engine native alone."""

    @property
    def label(self) -> str:
        """The stage's name in tables and reports."""
        return _LABELS[self]


_LABELS = {
    ScorerStage.ATTENTION: "attention products",
    ScorerStage.WORD_ATTENTION: "word attention: norm, softmax",
    ScorerStage.CONTEXT_NORM: "context norm",
    ScorerStage.CONTEXT: "context products",
    ScorerStage.DIFFERENCE: "squared difference",
    ScorerStage.LOCAL: "local projection and norm",
    ScorerStage.GLOBAL: "global alignment",
    ScorerStage.SGR: "SGR steps",
    ScorerStage.SAF: "SAF gate",
    ScorerStage.HEAD: "head",
    ScorerStage.WORDS: "words transposed",
    ScorerStage.REST: "rest: masks, shapes, pieces",
}

PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm"})

MOVES = frozenset(
    {"Reshape", "Transpose", "Concat", "Slice", "Shape", "Split", "Cast", "Gather", "Expand"}
    | {"Squeeze", "Unsqueeze", "Identity", "Range"}
)
"""Operations that only move data."""

_WEIGHTS = {
    "local_alignment.": ScorerStage.LOCAL,
    "global_alignment.": ScorerStage.GLOBAL,
    "reasoning.": ScorerStage.SGR,
    "filtration.": ScorerStage.SAF,
    "similarity.": ScorerStage.HEAD,
}
_INPUTS = {
    "image_global": ScorerStage.GLOBAL,
    "text_global": ScorerStage.GLOBAL,
    "region_gram": ScorerStage.CONTEXT_NORM,
}


class Node(Protocol):
    """The attributes of an ONNX node that are used here."""

    name: str
    op_type: str

    @property
    def input(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def output(self) -> Sequence[str]: ...  # noqa: D102


def stages_of(nodes: Iterable[Node], module: str) -> dict[str, ScorerStage]:
    """The stage of every named node of a scorer; `nodes` are in topological order."""
    stages: dict[str, ScorerStage] = {**_INPUTS}
    texts = {"word_embeddings"}
    aggregation = ScorerStage[module]
    by_name = {}
    for node in nodes:
        if node.op_type in MOVES and texts.intersection(node.input):
            texts.update(node.output)
        stage = _stage(node, [stages.get(value, ScorerStage.REST) for value in node.input], texts)
        if stage is _NODES:
            stage = aggregation
        stages.update(dict.fromkeys(node.output, stage))
        by_name[node.name] = stage
    by_name.pop("", None)
    return by_name


_NODES = ScorerStage.SGR
"""The stage that takes the joined alignments: SGR's steps, or SAF's gate instead."""


def _stage(node: Node, inputs: Sequence[ScorerStage], texts: set[str]) -> ScorerStage:
    for prefix, stage in _WEIGHTS.items():
        if any(value.startswith(prefix) for value in node.input):
            return stage
    latest, op = max(inputs, default=ScorerStage.REST), node.op_type
    if op == "Shape":
        return ScorerStage.REST
    if op in PRODUCTS:
        return _product_stage(latest, min(inputs), of_texts=bool(texts.intersection(node.input)))
    if op == "LeakyRelu" and latest == ScorerStage.ATTENTION:
        return ScorerStage.WORD_ATTENTION
    if op == "Sub" and latest == ScorerStage.CONTEXT:
        return ScorerStage.DIFFERENCE
    if op == "Concat" and ScorerStage.LOCAL in inputs:
        return _NODES
    return latest


def _product_stage(latest: ScorerStage, earliest: ScorerStage, *, of_texts: bool) -> ScorerStage:
    """The stage of a product without weights: with words, of regions only, or with attention."""
    if latest == ScorerStage.REST:
        return ScorerStage.ATTENTION if of_texts else ScorerStage.CONTEXT_NORM
    attended = latest in (ScorerStage.WORD_ATTENTION, ScorerStage.CONTEXT_NORM)
    return ScorerStage.CONTEXT if attended and earliest == ScorerStage.REST else latest


def product_flop(first: Sequence[int], output: Sequence[int]) -> float:
    """Operations of a product, from the shapes of its result and of its first factor, which is
    never broadcast."""
    rows = prod(output[:-1])
    return 2.0 * prod(output) * prod(first) / rows
