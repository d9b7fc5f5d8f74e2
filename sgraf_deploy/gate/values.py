"""Compares graphs with the literal reference at several shapes: the part that all gates share.

A bound that is not met is a GateError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import GraphName, Precision
from sgraf_deploy.errors import GateError
from sgraf_deploy.gate.correlation import spearman
from sgraf_deploy.gate.inputs import GateInputs, GateReference
from sgraf_deploy.gate.tolerances import (
    EMBEDDINGS,
    FP8_LOGITS_SHARE,
    FP16_LOGITS_SHARE,
    FP16_LOGITS_SHARE_DATA,
    FP16_SIMILARITIES,
    FP16_SPEARMAN,
    FP32_LOGITS,
    FP32_SIMILARITIES,
    PADDED_WORDS,
)

Arrays = dict[str, NDArray[Any]]
Run = Callable[[Arrays], Arrays]
"""Executes a graph, from named inputs to named outputs; ignores inputs that it does not take."""

_HINTS = {
    "fp16": "export with --precision fp32, which leaves FP16 out",
    "fp8": "export with --precision fp16",
}


@dataclass
class Differences:
    """The largest differences over every shape that was tried, and those shapes.

    `logits_scaled` is relative to max(1, |logit|).
    """

    embeddings: float = 0.0
    logits: float = 0.0
    logits_scaled: float = 0.0
    similarities: float = 0.0
    shapes: list[str] = field(default_factory=list)


def check_values(
    runs: Mapping[GraphName, Run],
    precision: Precision,
    inputs: GateInputs,
    expected: GateReference,
    label: str,
) -> dict[str, Any]:
    """Compare one member's graphs in one precision; returns its part of the parity report.

    Raises GateError, naming `label`, for the first bound that is not met.
    """
    differences = Differences()
    scale = max(
        1.0,
        *(float(np.abs(e).max()) for e in (expected.region_embeddings, expected.word_embeddings)),
    )
    encoded = _check_encoders(runs, inputs, expected, differences, label)
    reference = expected.logits_of(precision)
    logits = _check_scorers(runs, encoded, inputs.lengths, reference, differences, label)
    embeddings = _bounded(differences.embeddings, EMBEDDINGS[precision] * scale)
    report = {"embeddings": embeddings} | logits_report(
        differences, logits, reference, precision, real=inputs.real
    )
    enforce(report, precision, label)
    return report


def logits_report(
    differences: Differences,
    logits: NDArray[np.float32],
    reference: NDArray[np.float64],
    precision: Precision,
    *,
    real: bool,
) -> dict[str, Any]:
    """What the parity report says of logits and similarities, beside the bounds of a precision.

    `logits` (images, captions) are those of all inputs, which are data if `real`.
    """
    report: dict[str, Any] = {
        "shapes": differences.shapes,
        "similarities": _bounded(
            differences.similarities,
            FP32_SIMILARITIES if precision == "fp32" else FP16_SIMILARITIES,
        ),
    }
    deviation = float(reference.std())
    if precision == "fp32":
        report["logits"] = _bounded(differences.logits_scaled, FP32_LOGITS)
    else:
        share = FP16_LOGITS_SHARE_DATA if real else FP16_LOGITS_SHARE
        share = FP8_LOGITS_SHARE if precision == "fp8" else share
        report["logits"] = _bounded(differences.logits, share * deviation)
        correlation = spearman(logits.ravel(), reference.ravel())
        report["spearman"] = {"value": correlation, "bound": FP16_SPEARMAN if real else None}
    report["logits_std"] = deviation
    return report


def _check_encoders(
    runs: Mapping[GraphName, Run],
    inputs: GateInputs,
    expected: GateReference,
    differences: Differences,
    label: str,
) -> Arrays:
    """Compare the encoders at several shapes; returns their outputs for all the inputs."""
    images, captions = len(inputs.regions), len(inputs.lengths)
    encoded: Arrays = {}
    for rows in (slice(1), slice(images)):
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
    """Row ranges and extra padding words: the shortest caption, the longest, and all."""
    shortest, longest = int(lengths.argmin()), int(lengths.argmax())
    yield slice(shortest, shortest + 1), 0
    yield slice(longest, longest + 1), 1
    yield slice(None), 1
    yield slice(None), 0


def _compare_embeddings(
    outputs: Arrays, expected: GateReference, rows: slice, differences: Differences, label: str
) -> None:
    for name, values in outputs.items():
        reference = getattr(expected, name)[rows]
        if name == "word_embeddings":
            reference = reference[:, : values.shape[1]]
        if values.shape != reference.shape:
            raise GateError(f"{label} {name}", expected=reference.shape, got=values.shape)
        _finite(values, f"{label} {name}")
        differences.embeddings = max(differences.embeddings, _largest(values - reference))


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
    every = slice(None)
    for image_rows, caption_rows, padding in matrix_shapes(lengths):
        tile = _tile(encoded, lengths, image_rows, caption_rows, padding)
        logits = runs["scorer"](tile)["logits"]
        compare_logits(logits, expected[image_rows, caption_rows], differences, f"{label} scorer")
        differences.shapes.append(f"scorer {logits.shape[0]}×{logits.shape[1]}+{padding}")
    rng = np.random.default_rng(0)
    for pairs in (1, 2 * images):
        index = {
            "image_index": rng.integers(0, images, pairs, dtype=np.int32),
            "caption_index": rng.integers(0, captions, pairs, dtype=np.int32),
        }
        inputs = _tile(encoded, lengths, every, every, 0) | index
        values = runs["pair_scorer"](inputs)["logits"]
        reference = expected[index["image_index"], index["caption_index"]]
        compare_logits(values, reference, differences, f"{label} pair_scorer")
        differences.shapes.append(f"pair_scorer {pairs}")
    return logits


def matrix_shapes(lengths: NDArray[np.int32]) -> Iterator[tuple[slice, slice, int]]:
    """Rows of images and of captions, and extra padding words, of matrices to try.

    One pair, the same beside padding, the image of zeros, and last of all the whole matrix.
    """
    shortest = int(lengths.argmin())
    every, alone = slice(None), slice(shortest, shortest + 1)
    yield slice(1), alone, 0
    yield slice(1), alone, PADDED_WORDS
    yield slice(-1, None), every, 1
    yield every, every, 0


def _tile(
    encoded: Arrays, lengths: NDArray[np.int32], images: slice, captions: slice, padding: int
) -> Arrays:
    longest = int(lengths[captions].max())
    words = encoded["word_embeddings"][captions, :longest]
    image = ("region_embeddings", "image_global", "region_gram")
    return {
        **{name: encoded[name][images] for name in image if name in encoded},
        "word_embeddings": np.pad(words, ((0, 0), (0, padding), (0, 0))),
        "text_global": encoded["text_global"][captions],
        "lengths": lengths[captions],
    }


def compare_logits(
    values: NDArray[np.float32],
    expected: NDArray[np.float64],
    differences: Differences,
    label: str,
) -> None:
    """Take logits of any shape into the differences; GateError for NaN or another shape."""
    _comparable(values, expected, f"{label} logits")
    gap = np.abs(values - expected)
    differences.logits = max(differences.logits, _largest(gap))
    scaled = _largest(gap / np.maximum(1.0, np.abs(expected)))
    differences.logits_scaled = max(differences.logits_scaled, scaled)
    similarity = _largest(sigmoid(values.astype(np.float64)) - sigmoid(expected))
    differences.similarities = max(differences.similarities, similarity)


def compare_similarities(
    values: NDArray[np.float32],
    expected: NDArray[np.float64],
    differences: Differences,
    label: str,
) -> None:
    """Take similarities that a graph gives into the differences, as `compare_logits` does."""
    _comparable(values, expected, f"{label} similarities")
    differences.similarities = max(differences.similarities, _largest(values - expected))


def enforce(report: Mapping[str, Any], precision: Precision, label: str) -> None:
    """Raise GateError, naming `label`, for the first bound of a report that is not met."""
    hint = _HINTS.get(precision)
    for name in (each for each in ("embeddings", "logits", "similarities") if each in report):
        value, bound = report[name]["value"], report[name]["bound"]
        if not value <= bound:
            raise GateError(
                f"gate failed for {label}: largest difference of {name}",
                expected=f"at most {bound:.3g}",
                got=f"{value:.3g}",
                hint=hint,
            )
    correlation = report.get("spearman", {"bound": None})
    if correlation["bound"] is not None and not correlation["value"] >= correlation["bound"]:
        raise GateError(
            f"gate failed for {label}: rank correlation of the logits",
            expected=f"at least {correlation['bound']}",
            got=correlation["value"],
            hint=hint,
        )


def _bounded(value: float, bound: float) -> dict[str, float]:
    return {"value": value, "bound": bound}


def _comparable(values: NDArray[Any], expected: NDArray[Any], label: str) -> None:
    _finite(values, label)
    if values.shape != expected.shape:
        raise GateError(label, expected=expected.shape, got=values.shape)


def _finite(values: NDArray[Any], label: str) -> None:
    if not np.all(np.isfinite(values)):
        raise GateError(f"gate failed for {label}", expected="finite values", got="a NaN or an inf")


def _largest(values: NDArray[Any]) -> float:
    return float(np.abs(values).max())


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Similarities of logits, in float64."""
    result: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return result
