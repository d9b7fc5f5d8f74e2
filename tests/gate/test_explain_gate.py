"""The gate on the graphs `explain`: every output, padding, and the interface."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.refusals import ANY, refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import BundleError, GateError
from sgraf_deploy.gate.explain import check_explain, gate_explain
from sgraf_deploy.gate.inputs import GateInputs, GateReference, explained_pairs, read_gate
from sgraf_deploy.gate.values import Arrays

MEMBERS = ("sgr", "saf")
OUTPUTS = {
    "sgr": ("attention", "alignments", "edges"),
    "saf": ("attention", "alignments", "gates", "kept", "contribution"),
}
EVERY = [(member, name) for member, names in OUTPUTS.items() for name in names]

Read = tuple[GateInputs, dict[str, GateReference]]


@pytest.fixture(scope="module")
def read(exported: Bundle) -> Read:
    return read_gate(exported.gate_path(), MEMBERS)


def test_whole_graphs_pass_far_below_the_bounds(exported: Bundle, read: Read) -> None:
    report = gate_explain(exported.path, exported.manifest.explain, *read)["explain"]

    assert report == exported.manifest.parity["explain"]
    for member, outputs in OUTPUTS.items():
        assert report[member].keys() == {"executor", "logits", *outputs}
        for name in ("logits", *outputs):
            assert report[member][name]["value"] <= 0.05 * report[member][name]["bound"]


def test_without_graphs_there_is_no_report(exported: Bundle, read: Read) -> None:
    assert gate_explain(exported.path, {}, *read) == {}


def test_the_pairs_have_what_is_hard(read: Read) -> None:
    inputs, _ = read
    images, captions = explained_pairs(inputs)
    lengths = inputs.lengths[captions]

    assert not inputs.regions[images[-1]].any()
    assert {inputs.lengths.min(), inputs.lengths.max()} <= {*lengths.tolist()}
    assert images.dtype == captions.dtype == np.int32


@pytest.mark.parametrize(("member", "name"), EVERY)
def test_every_output_is_compared(exported: Bundle, read: Read, member: str, name: str) -> None:
    inputs, references = read
    wrong = references[member].internals[name].copy()
    wrong.flat[np.flatnonzero(wrong)[0]] += 1e-3
    internals = {**references[member].internals, name: wrong}
    expected = {**references, member: replace(references[member], internals=internals)}

    with refused(GateError, member, name, expected=ANY, got=ANY):
        gate_explain(exported.path, exported.manifest.explain, inputs, expected)


@pytest.mark.parametrize("member", MEMBERS)
def test_the_logits_are_compared(exported: Bundle, read: Read, member: str) -> None:
    inputs, references = read
    logits = references[member].logits + 1e-2
    expected = {**references, member: replace(references[member], logits=logits)}

    with refused(GateError, member, "logits", expected=ANY, got=ANY):
        gate_explain(exported.path, exported.manifest.explain, inputs, expected)


@pytest.mark.parametrize(("member", "name"), EVERY)
def test_padding_must_be_exactly_0(exported: Bundle, read: Read, member: str, name: str) -> None:
    from sgraf_deploy.gate.executors import open_graph

    inputs, references = read
    whole = open_graph(exported.file(exported.manifest.explain[member].ref), "fp32")

    def leaking(arrays: Arrays) -> Arrays:
        outputs = whole(arrays)
        flat = outputs[name].reshape(-1)
        flat[flat == 0] = 1e-30
        return outputs

    with refused(GateError, member, name, expected=ANY, got=ANY):
        check_explain(leaking, inputs, references[member], f"{member} explain")


@pytest.mark.parametrize("fault", ["nan", "shape"])
def test_what_is_no_value_is_caught(exported: Bundle, read: Read, fault: str) -> None:
    from sgraf_deploy.gate.executors import open_graph

    inputs, references = read
    whole = open_graph(exported.file(exported.manifest.explain["saf"].ref), "fp32")

    def broken(arrays: Arrays) -> Arrays:
        outputs = whole(arrays)
        wrong = outputs["kept"]
        outputs["kept"] = np.full_like(wrong, np.nan) if fault == "nan" else wrong[:, 1:]
        return outputs

    with refused(GateError, "saf", "kept", expected=ANY, got=ANY):
        check_explain(broken, inputs, references["saf"], "saf explain")


def test_a_damaged_weight_and_another_interface_are_caught(
    exported: Bundle, read: Read, tmp_path: Path
) -> None:
    files = exported.manifest.explain
    shutil.copytree(exported.path, tmp_path / "copy")
    path = tmp_path / "copy" / files["saf"].ref.file
    whole = onnx.load(path)
    model = onnx.ModelProto()
    model.CopyFrom(whole)
    for tensor in model.graph.initializer:
        if tensor.name == "local_alignment.weight":
            tensor.CopyFrom(
                numpy_helper.from_array(1.1 * numpy_helper.to_array(tensor), tensor.name)
            )
    onnx.save(model, path)
    with refused(GateError, "saf", expected=ANY, got=ANY):
        gate_explain(tmp_path / "copy", files, *read)
    whole.graph.output[1].name = "other"
    onnx.save(whole, path)
    with refused(GateError, "saf", expected=ANY, got=ANY):
        gate_explain(tmp_path / "copy", files, *read)


def test_a_gate_without_values_of_the_graph_is_refused(exported: Bundle, read: Read) -> None:
    inputs, references = read
    none: Mapping[str, GateReference] = {
        name: replace(each, internals={}) for name, each in references.items()
    }
    with refused(BundleError, "sgr", hint=ANY):
        gate_explain(exported.path, exported.manifest.explain, inputs, none)
