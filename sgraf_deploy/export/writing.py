"""Writes the files of a bundle's folder; every function returns what the manifest says of them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from sgraf_deploy.bundle.bundle import hash_file
from sgraf_deploy.bundle.manifest import CheckpointInfo, FileRef, GraphFile
from sgraf_deploy.config import (
    COMBINED,
    EXPLAIN,
    GRAPHS,
    GraphName,
    GraphSignature,
    Precision,
    combined_signature,
    explain_signature,
    signature,
)
from sgraf_deploy.data.vocabulary import Vocabulary
from sgraf_deploy.errors import BundleError
from sgraf_deploy.export.annotations import annotate
from sgraf_deploy.export.graphs import build_combined, build_explain, build_graph
from sgraf_deploy.files.writer import write_file
from sgraf_deploy.gate.inputs import GateInputs, GateReference, write_gate
from sgraf_deploy.model.checkpoint import Checkpoint, write_reference
from sgraf_deploy.model.folding import FoldedWeights


def write_graphs(
    folder: Path,
    member: str,
    checkpoint: Checkpoint,
    folded: FoldedWeights,
    precisions: Sequence[Precision],
    opset: int | None,
) -> dict[Precision, dict[GraphName, GraphFile]]:
    """Write a member's four ONNX graphs in every precision, `MEMBER/PRECISION/GRAPH.onnx`.

    `folded` are the checkpoint's weights; `opset` is None for each precision's own.
    """
    graphs: dict[Precision, dict[GraphName, GraphFile]] = {}
    for precision in precisions:
        place = folder / member / precision
        graphs[precision] = {}
        for graph in GRAPHS:
            model = build_graph(folded, graph, precision, opset)
            spec = signature(graph, checkpoint.config, precision)
            annotate(model, spec, precision, {"": checkpoint})
            path = place / f"{graph}.onnx"
            graphs[precision][graph] = _write_graph(folder, path, model, spec)
    return graphs


def write_explain(
    folder: Path, member: str, checkpoint: Checkpoint, folded: FoldedWeights, opset: int | None
) -> GraphFile:
    """Write a member's graph `explain`, `MEMBER/explain.onnx`: float32 whatever the precisions."""
    model = build_explain(folded, opset)
    spec = explain_signature(checkpoint.config)
    annotate(model, spec, "fp32", {"": checkpoint})
    return _write_graph(folder, folder / member / f"{EXPLAIN}.onnx", model, spec)


def write_combined(
    folder: Path,
    checkpoints: Mapping[str, Checkpoint],
    folded: Mapping[str, FoldedWeights],
    precisions: Sequence[Precision],
    opset: int | None,
) -> dict[Precision, GraphFile]:
    """Write the graph of all members in every precision, `combined/PRECISION/combined.onnx`."""
    spec = combined_signature(next(iter(folded.values())).config)
    members = {f"{name}.": checkpoint for name, checkpoint in checkpoints.items()}
    graphs: dict[Precision, GraphFile] = {}
    for precision in precisions:
        model = build_combined(folded, precision, opset)
        annotate(model, spec, precision, members)
        path = folder / COMBINED / precision / f"{COMBINED}.onnx"
        graphs[precision] = _write_graph(folder, path, model, spec)
    return graphs


def _write_graph(
    folder: Path, path: Path, model: onnx.ModelProto, spec: GraphSignature
) -> GraphFile:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, model.SerializeToString(), what="graph", error=BundleError)
    (opset,) = (each.version for each in model.opset_import)
    return GraphFile(hash_file(path, relative_to=folder), opset, spec)


def write_weights(folder: Path, member: str, checkpoint: Checkpoint) -> FileRef:
    """Write a member's original weights, `reference/MEMBER.safetensors`."""
    path = folder / "reference" / f"{member}.safetensors"
    path.parent.mkdir(exist_ok=True)
    write_reference(path, checkpoint.weights)
    return hash_file(path, relative_to=folder)


def write_gate_file(
    folder: Path, inputs: GateInputs, references: Mapping[str, GateReference]
) -> FileRef:
    """Write what the gate ran on and what the reference said of it, `reference/gate.npz`."""
    path = folder / "reference" / "gate.npz"
    write_gate(path, inputs, references)
    return hash_file(path, relative_to=folder)


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> FileRef:
    """Write the vocabulary, `vocab.json`."""
    path = folder / "vocab.json"
    vocabulary.save(path)
    return hash_file(path, relative_to=folder)


def checkpoint_info(checkpoint: Checkpoint) -> CheckpointInfo:
    """What the manifest says of the checkpoint that a member was exported from."""
    return CheckpointInfo(
        file=_plain_name(checkpoint.path) if checkpoint.path else "",
        sha256=checkpoint.sha256,
        epoch=checkpoint.epoch,
        best_rsum=checkpoint.best_rsum,
        data_name=checkpoint.data_name,
    )


def image_encoder_fingerprint(weights: Mapping[str, np.ndarray[Any, Any]]) -> str:
    """The sha256 of the image encoder's weights: equal for two members whose embeddings are."""
    digest = sha256()
    for name in sorted(weights):
        if name.startswith(("image_encoder.", "image_global.")):
            digest.update(f"{name} {weights[name].shape}\n".encode())
            digest.update(np.ascontiguousarray(weights[name], dtype=np.float32).tobytes())
    return digest.hexdigest()


def _plain_name(path: Path) -> str:
    """A file's name as text: JSON cannot hold bytes that are not UTF-8, so they are escaped."""
    return os.fsencode(path.name).decode("utf-8", "backslashreplace")
