"""Lengths that no caption has: another program may give them, and a graph must stand them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from support.random_weights import random_weights
from support.small_models import VARIANTS, random_regions

from sgraf_deploy.config import GraphName, Precision
from sgraf_deploy.export.graphs import build_combined, build_graph
from sgraf_deploy.gate.executors import open_graph
from sgraf_deploy.model.folding import FoldedWeights, fold

Arrays = dict[str, NDArray[Any]]

WORDS = 6
WRONG = np.array([0, -3, WORDS, 99, 2], dtype=np.int32)
MEANT = np.array([1, 1, WORDS, WORDS, 2], dtype=np.int32)
"""What they count as."""

VARIANT = {"sgr": VARIANTS["sgr"], "saf": VARIANTS["saf-2-layers"]}


def weights_of(member: str) -> FoldedWeights:
    return fold(VARIANT[member], random_weights(VARIANT[member], 3))


def run(model: onnx.ModelProto, precision: Precision, folder: Path, inputs: Arrays) -> Arrays:
    onnx.save(model, folder / "graph.onnx")
    return open_graph(folder / "graph.onnx", precision)(inputs)


def captions(lengths: NDArray[np.int32]) -> Arrays:
    ids = np.random.default_rng(0).integers(0, 53, (len(lengths), WORDS), dtype=np.int32)
    return {"token_ids": ids, "lengths": lengths}


def encoded(member: str, precision: Precision, lengths: NDArray[np.int32]) -> Arrays:
    """Inputs of a scorer: noise as embeddings, of words past a caption's length, too."""
    config, rng = VARIANT[member], np.random.default_rng(1)
    stored = np.float32 if precision == "fp32" else np.float16
    count = len(lengths)
    regions = rng.standard_normal((3, config.regions, config.embed)) / config.embed**0.5
    words = rng.standard_normal((count, WORDS, config.embed)) / config.embed**0.5
    return {
        "region_embeddings": regions.astype(stored),
        "image_global": regions[:, 0].astype(stored),
        "region_gram": (regions @ regions.transpose(0, 2, 1)).astype(np.float32),
        "word_embeddings": words.astype(stored),
        "text_global": words[:, 0].astype(stored),
        "lengths": lengths,
        "image_index": np.arange(count, dtype=np.int32) % 3,
        "caption_index": np.arange(count, dtype=np.int32),
    }


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("member", VARIANT)
@pytest.mark.parametrize("graph", ["text_encoder", "scorer", "pair_scorer"])
def test_lengths_are_brought_into_the_words(
    graph: GraphName, member: str, precision: Precision, tmp_path: Path
) -> None:
    model = build_graph(weights_of(member), graph, precision)
    wrong, right = (
        captions(lengths) if graph == "text_encoder" else encoded(member, precision, lengths)
        for lengths in (WRONG, MEANT)
    )

    found, expected = (run(model, precision, tmp_path, each) for each in (wrong, right))

    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert np.isfinite(values).all(), name
        assert np.array_equal(values, expected[name]), name


def test_the_combined_graph_stands_them_too(tmp_path: Path) -> None:
    model = build_combined({name: weights_of(name) for name in VARIANT}, "fp32")
    regions = random_regions(VARIANT["sgr"], 2)

    found, expected = (
        run(model, "fp32", tmp_path, {"regions": regions, **captions(lengths)})
        for lengths in (WRONG, MEANT)
    )

    for name in ("logits", "similarities"):
        assert np.isfinite(found[name]).all()
        assert np.array_equal(found[name], expected[name])


def test_a_mask_serves_all_that_depends_on_lengths() -> None:
    """The recurrence, too, takes its lengths from it, which bounds them on both sides."""
    ops = [
        node.op_type for node in build_graph(weights_of("saf"), "text_encoder", "fp32").graph.node
    ]

    assert (ops.count("Max"), ops.count("GRU"), ops.count("Range")) == (1, 2, 1)
