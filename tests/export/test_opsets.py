"""Graphs in every opset that may be asked for, and the oldest IR version that it needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from support.loops import all_of
from support.random_weights import random_weights
from support.refusals import naming, refused
from support.small_models import VARIANTS, padded, random_captions, random_regions

from sgraf_deploy.config import DEFAULT_PRECISIONS, GRAPHS, PRECISIONS, GraphName, Precision
from sgraf_deploy.errors import InputError
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.export.graphs import build_combined, build_graph
from sgraf_deploy.export.opsets import NEWEST, OLDEST, OPSETS, check_opset
from sgraf_deploy.model.folding import fold

EVERY = range(OLDEST["fp32"], NEWEST + 1)
MEMBERS = {
    name: fold(VARIANTS[variant], random_weights(VARIANTS[variant], 3))
    for name, variant in {"sgr": "sgr-odd-sizes", "saf": "saf"}.items()
}
BOTH = {name: fold(VARIANTS[name], random_weights(VARIANTS[name], 3)) for name in ("sgr", "saf")}


@all_of(MEMBERS, GRAPHS, PRECISIONS, EVERY)
def test_a_graph_is_valid_in_every_opset(
    member: str, graph: GraphName, precision: Precision, opset: int
) -> None:
    if opset < OLDEST[precision]:
        return
    model = build_graph(MEMBERS[member], graph, precision, opset)

    assert [(each.domain, each.version) for each in model.opset_import] == [("", opset)]
    onnx.checker.check_model(model, full_check=True)
    for node in model.graph.node:
        onnx.defs.get_schema(node.op_type, opset)
    if precision != "fp8":  # which ONNX Runtime does not run on a CPU
        onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize(("opset", "version"), [(15, 8), (18, 8), (19, 9), (20, 9), (23, 11)])
def test_the_ir_is_the_oldest_that_the_opset_may_have(opset: int, version: int) -> None:
    assert build_graph(BOTH["saf"], "scorer", "fp32", opset).ir_version == version


def test_every_opset_computes_the_same() -> None:
    ids, lengths = padded(random_captions(VARIANTS["sgr"], (3, 1, 7)))
    inputs = {"regions": random_regions(VARIANTS["sgr"], 2), "token_ids": ids, "lengths": lengths}
    found = []
    for opset in EVERY:
        model = build_combined(BOTH, "fp32", opset).SerializeToString()
        found.append(onnxruntime.InferenceSession(model).run(["logits"], inputs)[0])

    assert all(np.array_equal(each, found[0]) for each in found)
    assert found[0].shape == (2, 3)


@pytest.mark.parametrize(
    ("opset", "precisions", "expected", "hint"),
    [
        (14, ("fp32",), "15 … 23", "--opset"),
        (24, ("fp16", "fp32"), "15 … 23", "--opset"),
        (18, ("fp32", "fp8"), "19 … 23", "--precision fp32"),
        (-1, ("fp8",), "19 … 23", "--opset"),
    ],
)
def test_another_opset_is_refused(
    opset: int, precisions: tuple[Precision, ...], expected: str, hint: str
) -> None:
    with refused(InputError, expected=expected, got=opset, hint=hint):
        check_opset(opset, precisions)
    with refused(InputError, got=naming(opset)):
        ExportOptions(precisions=precisions, opset=opset, gate_data=Path("any"))


def test_the_range_reaches_as_far_as_it_says() -> None:
    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
        build_graph(BOTH["saf"], "scorer", "fp32", OLDEST["fp32"] - 1)
    with pytest.raises((onnx.checker.ValidationError, onnx.shape_inference.InferenceError)):
        build_graph(BOTH["saf"], "scorer", "fp8", OLDEST["fp8"] - 1)
    versions = {row[0].removesuffix("rc1"): row[2] for row in helper.VERSION_TABLE}
    assert versions["1.18.0"] == NEWEST  # of the oldest onnx that the package takes


def test_the_manifest_says_the_opset(checkpoint_files: dict[str, Path], tmp_path: Path) -> None:
    assert {OPSETS[precision] for precision in DEFAULT_PRECISIONS} == {18}
    options = ExportOptions(precisions=("fp32",), combined=True, opset=16)

    made = export_bundle([checkpoint_files["saf"]], tmp_path / "saf.sgraf", options).bundle

    files = made.manifest.members["saf"].graphs["fp32"].values()
    assert {file.opset for file in (*files, *made.manifest.combined.values())} == {16}
    for ref in made.manifest.graphs:
        assert onnx.load(made.file(ref)).opset_import[0].version == 16
