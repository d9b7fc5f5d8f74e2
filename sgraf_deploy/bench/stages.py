"""Assigns nodes to stages of the scorer, by dataflow from the weights' names and the operations.

The names of nodes are not used, so it works for bundles of every age, and for graphs that ONNX
Runtime has rewritten.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import IntEnum
from math import prod
from typing import Protocol


class Stage(IntEnum):
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
    Stage.ATTENTION: "attention products",
    Stage.WORD_ATTENTION: "word attention: norm, softmax",
    Stage.CONTEXT_NORM: "context norm",
    Stage.CONTEXT: "context products",
    Stage.DIFFERENCE: "squared difference",
    Stage.LOCAL: "local projection and norm",
    Stage.GLOBAL: "global alignment",
    Stage.SGR: "SGR steps",
    Stage.SAF: "SAF gate",
    Stage.HEAD: "head",
    Stage.WORDS: "words transposed",
    Stage.REST: "rest: masks, shapes, pieces",
}

PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm"})

MOVES = frozenset(
    {"Reshape", "Transpose", "Concat", "Slice", "Shape", "Split", "Cast", "Gather", "Expand"}
    | {"Squeeze", "Unsqueeze", "Identity", "Range"}
)
"""Operations that only move data."""

_WEIGHTS = {
    "local_alignment.": Stage.LOCAL,
    "global_alignment.": Stage.GLOBAL,
    "reasoning.": Stage.SGR,
    "filtration.": Stage.SAF,
    "similarity.": Stage.HEAD,
}
_INPUTS = {
    "image_global": Stage.GLOBAL,
    "text_global": Stage.GLOBAL,
    "region_gram": Stage.CONTEXT_NORM,
}


class Node(Protocol):
    """The attributes of an ONNX node that are used here."""

    name: str
    op_type: str

    @property
    def input(self) -> Sequence[str]: ...  # noqa: D102

    @property
    def output(self) -> Sequence[str]: ...  # noqa: D102


def stages_of(nodes: Iterable[Node], module: str) -> dict[str, Stage]:
    """The stage of every named node of a scorer; `nodes` are in topological order."""
    stages: dict[str, Stage] = {**_INPUTS}
    texts = {"word_embeddings"}
    aggregation = Stage[module]
    by_name = {}
    for node in nodes:
        if node.op_type in MOVES and texts.intersection(node.input):
            texts.update(node.output)
        stage = _stage(node, [stages.get(value, Stage.REST) for value in node.input], texts)
        if stage is _NODES:
            stage = aggregation
        stages.update(dict.fromkeys(node.output, stage))
        by_name[node.name] = stage
    by_name.pop("", None)
    return by_name


_NODES = Stage.SGR
"""The stage that takes the joined alignments: SGR's steps, or SAF's gate instead."""


def _stage(node: Node, inputs: Sequence[Stage], texts: set[str]) -> Stage:
    for prefix, stage in _WEIGHTS.items():
        if any(value.startswith(prefix) for value in node.input):
            return stage
    latest, op = max(inputs, default=Stage.REST), node.op_type
    if op == "Shape":
        return Stage.REST
    if op in PRODUCTS:
        return _product_stage(latest, min(inputs), of_texts=bool(texts.intersection(node.input)))
    if op == "LeakyRelu" and latest == Stage.ATTENTION:
        return Stage.WORD_ATTENTION
    if op == "Sub" and latest == Stage.CONTEXT:
        return Stage.DIFFERENCE
    if op == "Concat" and Stage.LOCAL in inputs:
        return _NODES
    return latest


def _product_stage(latest: Stage, earliest: Stage, *, of_texts: bool) -> Stage:
    """The stage of a product without weights: with words, of regions only, or with attention."""
    if latest == Stage.REST:
        return Stage.ATTENTION if of_texts else Stage.CONTEXT_NORM
    attended = latest in (Stage.WORD_ATTENTION, Stage.CONTEXT_NORM)
    return Stage.CONTEXT if attended and earliest == Stage.REST else latest


def product_flop(first: Sequence[int], output: Sequence[int]) -> float:
    """Operations of a product, from the shapes of its result and of its first factor, which is
    never broadcast."""
    rows = prod(output[:-1])
    return 2.0 * prod(output) * prod(first) / rows
