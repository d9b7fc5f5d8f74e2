"""The gate on exported graphs: each is compared with the literal reference at several shapes.

Interfaces come first (names, types, axes), then values. A bound that is not met is a GateError, and
the bundle is not published.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError

from sgraf_deploy.bundle.manifest import EXPORT_AGAIN, GraphFile, Member
from sgraf_deploy.config import COMBINED, GRAPHS, GraphName, GraphSignature, Precision
from sgraf_deploy.errors import BundleError, GateError
from sgraf_deploy.gate.combined import check_combined
from sgraf_deploy.gate.executors import executor_name, open_graph
from sgraf_deploy.gate.inputs import GateInputs, GateReference
from sgraf_deploy.gate.values import check_values

_ONNX_TYPES = {"float32": "FLOAT", "float16": "FLOAT16", "int32": "INT32"}


def gate_members(
    folder: Path,
    members: Mapping[str, Member],
    combined: Mapping[Precision, GraphFile],
    inputs: GateInputs,
    references: Mapping[str, GateReference],
) -> dict[str, Any]:
    """Run the gate on every graph in a bundle's folder; returns the parity report.

    `combined` are the graphs of all members, of which the report says nothing if there are none.
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
    if combined:
        report[COMBINED] = {
            precision: _gate_combined(
                folder / file.ref.file, file.signature, precision, inputs, references
            )
            for precision, file in combined.items()
        }
    return report


def _gate_combined(
    path: Path,
    signature: GraphSignature,
    precision: Precision,
    inputs: GateInputs,
    references: Mapping[str, GateReference],
) -> dict[str, Any]:
    """Check the graph of all members in one precision, as `run_gate` does those of one."""
    label = f"{COMBINED} {precision}"
    check_interface(read_graph(path), signature, label)
    report = {"executor": executor_name(precision)}
    run = open_graph(path, precision)
    return report | check_combined(run, precision, inputs, references.values(), label)


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
    BundleError for a file that is not ONNX.
    """
    for graph in GRAPHS:
        check_interface(read_graph(paths[graph]), signatures[graph], f"{label} {graph}")
    runs = {graph: open_graph(paths[graph], precision) for graph in GRAPHS}
    report = {"executor": executor_name(precision)}
    return report | check_values(runs, precision, inputs, expected, label)


def read_graph(path: Path) -> onnx.ModelProto:
    """The graph in a file; BundleError for a file that is not ONNX."""
    try:
        return onnx.load(path)
    except DecodeError as error:
        raise BundleError(
            f"graph {path} is not an ONNX file", got=error, hint=EXPORT_AGAIN
        ) from error


def check_interface(model: onnx.ModelProto, spec: GraphSignature, label: str) -> None:
    """Raise GateError unless a graph's inputs and outputs have the right names, types and axes."""
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
