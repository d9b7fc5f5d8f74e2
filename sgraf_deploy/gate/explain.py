"""Compares every member's graph `explain` with the literal reference, on a few pairs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.manifest import EXPORT_AGAIN, GraphFile
from sgraf_deploy.config import EXPLAIN
from sgraf_deploy.errors import BundleError, GateError
from sgraf_deploy.gate.executors import executor_name, open_graph
from sgraf_deploy.gate.graphs import check_interface, read_graph
from sgraf_deploy.gate.inputs import GateInputs, GateReference, explained_pairs
from sgraf_deploy.gate.tolerances import EXPLAINED, FP32_LOGITS, PADDED_WORDS
from sgraf_deploy.gate.values import Arrays, Run

NODES = ("alignments", "gates", "kept", "contribution", "edges")
"""Outputs with an axis of nodes, one longer than that of the words."""


def gate_explain(
    folder: Path,
    graphs: Mapping[str, GraphFile],
    inputs: GateInputs,
    references: Mapping[str, GateReference],
) -> dict[str, Any]:
    """Check the members' graphs; returns the part `explain` of the parity report, if there are any.

    Raises GateError for an interface or a value that differs, and for padding that is not 0.
    """
    report = {}
    for member, file in graphs.items():
        path, label = folder / file.ref.file, f"{member} {EXPLAIN}"
        check_interface(read_graph(path), file.signature, label)
        found = check_explain(open_graph(path, "fp32"), inputs, references[member], label)
        report[member] = {"executor": executor_name("fp32")} | found
    return {EXPLAIN: report} if report else {}


def check_explain(
    run: Run, inputs: GateInputs, expected: GateReference, label: str
) -> dict[str, Any]:
    """Compare the outputs for pairs together, with padding behind the longest, and each alone.

    Returns the largest difference of every output, beside its bound. The logits' is relative to
    max(1, |logit|). Raises GateError, naming `label`.
    """
    if not expected.internals:
        raise BundleError(f"the gate's values of {label}", got="none", hint=EXPORT_AGAIN)
    images, captions = explained_pairs(inputs)
    internals = dict(expected.internals) | {"logits": expected.logits[images, captions]}
    largest = dict.fromkeys(internals, 0.0)
    every = np.arange(len(images))
    for rows, padding in ((every, PADDED_WORDS), *((every[row : row + 1], 0) for row in every)):
        lengths = inputs.lengths[captions[rows]]
        words = int(lengths.max()) + padding
        outputs = run(_inputs(inputs, expected, images[rows], captions[rows], words))
        for name, reference in internals.items():
            values = _values(outputs, name, reference[rows], words, label)
            right = _fitted(name, reference[rows], words)
            gap = np.abs(values.astype(np.float64) - right)
            if name == "logits":
                gap /= np.maximum(1.0, np.abs(right))
            largest[name] = max(largest[name], float(gap.max()))
    bounds = {name: FP32_LOGITS if name == "logits" else EXPLAINED for name in largest}
    for name, value in largest.items():
        if not value <= bounds[name]:
            raise GateError(
                f"gate failed for {label}: largest difference of {name}",
                expected=f"at most {bounds[name]:.3g}",
                got=f"{value:.3g}",
            )
    return {name: {"value": largest[name], "bound": bounds[name]} for name in largest}


def _inputs(
    inputs: GateInputs,
    expected: GateReference,
    images: NDArray[np.int32],
    captions: NDArray[np.int32],
    words: int,
) -> Arrays:
    """What the graph takes: the reference's embeddings, of the captions of these pairs alone."""
    longest = expected.word_embeddings.shape[1]
    embeddings = expected.word_embeddings[captions][:, :words]
    padding = ((0, 0), (0, max(0, words - longest)), (0, 0))
    return {
        "region_embeddings": expected.region_embeddings,
        "image_global": expected.image_global,
        "word_embeddings": np.pad(embeddings, padding),
        "text_global": expected.text_global[captions],
        "lengths": inputs.lengths[captions],
        "image_index": images,
        "caption_index": np.arange(len(captions), dtype=np.int32),
    }


def _values(
    outputs: Arrays, name: str, reference: NDArray[Any], words: int, label: str
) -> NDArray[np.float32]:
    """An output; GateError for another shape, or where padding is not exactly 0."""
    values, right = outputs[name], _fitted(name, reference, words)
    if values.shape != right.shape:
        raise GateError(f"{label} {name}", expected=right.shape, got=values.shape)
    if not np.all(np.isfinite(values)):
        raise GateError(f"{label} {name}", expected="finite values", got="a NaN or an inf")
    if name != "logits" and np.any(values[right == 0] != 0):
        raise GateError(f"{label} {name}", expected="zeros for padding", got="others")
    return values


def _fitted(name: str, reference: NDArray[Any], words: int) -> NDArray[Any]:
    """The reference's values, whose padding is longer or shorter than that of a run's."""
    if name == "logits":
        return reference
    size = words + (name in NODES)
    axes = (2, 3) if name == "edges" else (1,)
    for axis in axes:
        more = max(0, size - reference.shape[axis])
        widths = [(0, more if place == axis else 0) for place in range(reference.ndim)]
        reference = np.pad(reference, widths).take(np.arange(size), axis)
    return reference
