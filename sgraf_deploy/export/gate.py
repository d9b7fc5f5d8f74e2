"""The gate: every exported graph against the literal reference, at several shapes.

Interfaces first (names, types, axes), then values. A bound that fails is a GateError, and what
was to be published is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from sgraf_deploy.bench.rank_changes import spearman
from sgraf_deploy.config import GRAPHS, GraphName, GraphSignature, Precision
from sgraf_deploy.errors import BundleError, GateError
from sgraf_deploy.export.executors import Arrays, Run, executor_name, open_graph
from sgraf_deploy.export.gate_data import GateInputs, GateReference
from sgraf_deploy.manifest import Member

FP32_LOGITS = 1e-4
"""Times max(1, |logit|)."""
FP32_SIMILARITIES = 1e-5
FP16_SIMILARITIES = 2e-3
FP16_LOGITS_SHARE = 0.05
"""Of the standard deviation of the reference's logits, with any weights."""
FP16_LOGITS_SHARE_DATA = 0.01
"""The same on real data, which comes with trained weights."""
FP16_SPEARMAN = 0.9999
EMBEDDINGS: dict[Precision, float] = {"fp32": 1e-5, "fp16": 2e-3}
"""Times max(1, the largest reference value)."""

_ONNX_TYPES = {"float32": "FLOAT", "float16": "FLOAT16", "int32": "INT32"}


@dataclass
class Differences:
    """The largest differences seen, over every shape that was tried."""

    embeddings: float = 0.0
    logits: float = 0.0
    logits_scaled: float = 0.0
    similarities: float = 0.0
    shapes: list[str] = field(default_factory=list)


def gate_members(
    folder: Path,
    members: Mapping[str, Member],
    inputs: GateInputs,
    references: Mapping[str, GateReference],
) -> dict[str, Any]:
    """Run the gate on every graph of a bundle's folder; returns the parity report.

    Raises GateError for the first interface or bound that is not met.
    """
    report: dict[str, Any] = {
        "source": inputs.source,
        "images": len(inputs.regions),
        "captions": len(inputs.lengths),
        "members": {name: {} for name in members},
    }
    for name, member in members.items():
        for precision, graphs in member.graphs.items():
            report["members"][name][precision] = run_gate(
                {graph: folder / file.ref.file for graph, file in graphs.items()},
                {graph: file.signature for graph, file in graphs.items()},
                precision,
                inputs,
                references[name],
                f"{name} {precision}",
            )
    return report


def run_gate(
    paths: Mapping[GraphName, Path],
    signatures: Mapping[GraphName, GraphSignature],
    precision: Precision,
    inputs: GateInputs,
    expected: GateReference,
    label: str,
) -> dict[str, Any]:
    """Check one member's graphs in one precision; returns what the parity report says of it.

    Raises GateError, naming `label`, for the first interface or bound that is not met, and
    BundleError for a file that is no graph.
    """
    for graph in GRAPHS:
        check_interface(_read_graph(paths[graph]), signatures[graph], f"{label} {graph}")
    runs = {graph: open_graph(paths[graph], precision) for graph in GRAPHS}
    differences = Differences()
    scale = max(
        1.0,
        *(float(np.abs(e).max()) for e in (expected.region_embeddings, expected.word_embeddings)),
    )
    encoded = _check_encoders(runs, inputs, expected, differences, label)
    logits = _check_scorers(runs, encoded, inputs.lengths, expected.logits, differences, label)
    report: dict[str, Any] = {
        "executor": executor_name(precision),
        "shapes": differences.shapes,
        "embeddings": _bounded(differences.embeddings, EMBEDDINGS[precision] * scale),
        "similarities": _bounded(
            differences.similarities,
            FP32_SIMILARITIES if precision == "fp32" else FP16_SIMILARITIES,
        ),
    }
    deviation = float(expected.logits.std())
    if precision == "fp32":
        report["logits"] = _bounded(differences.logits_scaled, FP32_LOGITS)
    else:
        share = FP16_LOGITS_SHARE_DATA if inputs.real else FP16_LOGITS_SHARE
        report["logits"] = _bounded(differences.logits, share * deviation)
        correlation = spearman(logits.ravel(), expected.logits.ravel())
        report["spearman"] = {"value": correlation, "bound": FP16_SPEARMAN if inputs.real else None}
    report["logits_std"] = deviation
    _enforce(report, precision, label)
    return report


def _read_graph(path: Path) -> onnx.ModelProto:
    try:
        return onnx.load(path)
    except DecodeError as error:
        raise BundleError(
            f"graph {path} is no ONNX file", got=error, mend="export the bundle again"
        ) from error


def check_interface(model: onnx.ModelProto, spec: GraphSignature, label: str) -> None:
    """Names, types and axes of a graph's inputs and outputs; GateError where one differs."""
    for kind, values, right in (
        ("inputs", model.graph.input, spec.inputs),
        ("outputs", model.graph.output, spec.outputs),
    ):
        found = [_describe(value) for value in values]
        wanted = [(tensor.name, _ONNX_TYPES[tensor.dtype], tensor.axes) for tensor in right]
        if found != wanted:
            raise GateError(f"{label}: {kind} of the graph", expected=wanted, got=found)


def _describe(value: onnx.ValueInfoProto) -> tuple[str, str, tuple[str | int, ...]]:
    tensor = value.type.tensor_type
    axes = tuple(axis.dim_param or axis.dim_value for axis in tensor.shape.dim)
    return value.name, onnx.TensorProto.DataType.Name(tensor.elem_type), axes


def _check_encoders(
    runs: Mapping[GraphName, Run],
    inputs: GateInputs,
    expected: GateReference,
    differences: Differences,
    label: str,
) -> Arrays:
    """Compare the encoders at several shapes; returns what they make of all the inputs."""
    images, captions = len(inputs.regions), len(inputs.lengths)
    encoded: Arrays = {}
    for rows in (slice(0, 1), slice(0, images)):
        outputs = runs["image_encoder"]({"regions": inputs.regions[rows]})
        _compare_embeddings(outputs, expected, rows, differences, f"{label} image_encoder")
        differences.shapes.append(f"image_encoder {rows.stop}")
        encoded |= outputs
    for rows, padding in _caption_shapes(inputs.lengths):
        longest = int(inputs.lengths[rows].max())
        ids = np.pad(inputs.token_ids[rows, :longest], ((0, 0), (0, padding)))
        outputs = runs["text_encoder"]({"token_ids": ids, "lengths": inputs.lengths[rows]})
        words = outputs["word_embeddings"]
        if words.shape[:2] != ids.shape:
            raise GateError(f"{label} text_encoder", expected=ids.shape, got=words.shape[:2])
        if not np.all(words[:, longest:] == 0):
            raise GateError(f"{label} text_encoder", expected="zeros past every caption's end")
        outputs["word_embeddings"] = words[:, :longest]
        _compare_embeddings(outputs, expected, rows, differences, f"{label} text_encoder")
        differences.shapes.append(f"text_encoder {ids.shape[0]}×{ids.shape[1]}")
        if ids.shape[0] == captions:
            encoded |= outputs
    return encoded


def _caption_shapes(lengths: NDArray[np.int32]) -> Iterator[tuple[slice, int]]:
    """Row ranges and extra padded words: the shortest caption alone, one word more, all."""
    shortest, longest = int(lengths.argmin()), int(lengths.argmax())
    yield slice(shortest, shortest + 1), 0
    yield slice(longest, longest + 1), 1
    yield slice(0, len(lengths)), 1
    yield slice(0, len(lengths)), 0


def _compare_embeddings(
    outputs: Arrays, expected: GateReference, rows: slice, differences: Differences, label: str
) -> None:
    for name, values in outputs.items():
        right = getattr(expected, name)[rows]
        if name == "word_embeddings":
            right = right[:, : values.shape[1]]
        if values.shape != right.shape:
            raise GateError(f"{label} {name}", expected=right.shape, got=values.shape)
        _finite(values, f"{label} {name}")
        differences.embeddings = max(differences.embeddings, _largest(values - right))


def _check_scorers(
    runs: Mapping[GraphName, Run],
    encoded: Arrays,
    lengths: NDArray[np.int32],
    expected: NDArray[np.float64],
    differences: Differences,
    label: str,
) -> NDArray[np.float32]:
    """Compare both scorers at several shapes; returns the full matrix of logits."""
    images, captions = expected.shape
    shortest = int(lengths.argmin())
    every = slice(0, images), slice(0, captions)
    logits = np.empty(expected.shape, dtype=np.float32)
    for image_rows, caption_rows, padding in (
        (slice(0, 1), slice(shortest, shortest + 1), 0),
        (slice(0, 1), slice(shortest, shortest + 1), 3),
        (slice(images - 1, images), slice(0, captions), 1),
        (*every, 0),
    ):
        tile = _tile(encoded, lengths, image_rows, caption_rows, padding)
        values = runs["scorer"](tile)["logits"]
        _compare_logits(values, expected[image_rows, caption_rows], differences, f"{label} scorer")
        differences.shapes.append(f"scorer {values.shape[0]}×{values.shape[1]}+{padding}")
        if values.shape == expected.shape:
            logits = values
    rng = np.random.default_rng(0)
    for pairs in (1, 2 * images):
        index = {
            "image_index": rng.integers(0, images, pairs, dtype=np.int32),
            "caption_index": rng.integers(0, captions, pairs, dtype=np.int32),
        }
        values = runs["pair_scorer"](_tile(encoded, lengths, *every, 0) | index)["logits"]
        right = expected[index["image_index"], index["caption_index"]]
        _compare_logits(values, right, differences, f"{label} pair_scorer")
        differences.shapes.append(f"pair_scorer {pairs}")
    return logits


def _tile(
    encoded: Arrays, lengths: NDArray[np.int32], images: slice, captions: slice, padding: int
) -> Arrays:
    longest = int(lengths[captions].max())
    words = encoded["word_embeddings"][captions, :longest]
    return {
        "region_embeddings": encoded["region_embeddings"][images],
        "image_global": encoded["image_global"][images],
        "word_embeddings": np.pad(words, ((0, 0), (0, padding), (0, 0))),
        "text_global": encoded["text_global"][captions],
        "lengths": lengths[captions],
    }


def _compare_logits(
    values: NDArray[np.float32],
    expected: NDArray[np.float64],
    differences: Differences,
    label: str,
) -> None:
    _finite(values, f"{label} logits")
    if values.shape != expected.shape:
        raise GateError(f"{label} logits", expected=expected.shape, got=values.shape)
    gap = np.abs(values - expected)
    differences.logits = max(differences.logits, _largest(gap))
    scaled = _largest(gap / np.maximum(1.0, np.abs(expected)))
    differences.logits_scaled = max(differences.logits_scaled, scaled)
    similarity = _largest(_sigmoid(values.astype(np.float64)) - _sigmoid(expected))
    differences.similarities = max(differences.similarities, similarity)


def _enforce(report: Mapping[str, Any], precision: Precision, label: str) -> None:
    mend = None
    if precision == "fp16":
        mend = "export with --precision fp32, which leaves FP16 out"
    for name in ("embeddings", "logits", "similarities"):
        value, bound = report[name]["value"], report[name]["bound"]
        if not value <= bound:
            raise GateError(
                f"gate failed for {label}: largest difference of {name}",
                expected=f"at most {bound:.3g}",
                got=f"{value:.3g}",
                mend=mend,
            )
    correlation = report.get("spearman", {"bound": None})
    if correlation["bound"] is not None and not correlation["value"] >= correlation["bound"]:
        raise GateError(
            f"gate failed for {label}: rank correlation of the logits",
            expected=f"at least {correlation['bound']}",
            got=correlation["value"],
            mend=mend,
        )


def _bounded(value: float, bound: float) -> dict[str, float]:
    return {"value": value, "bound": bound}


def _finite(values: NDArray[Any], label: str) -> None:
    if not np.all(np.isfinite(values)):
        raise GateError(f"gate failed for {label}", expected="finite values", got="a NaN or an inf")


def _largest(values: NDArray[Any]) -> float:
    return float(np.abs(values).max(initial=0.0))


def _sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return result
