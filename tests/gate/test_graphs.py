"""The gate lets whole graphs through and catches each kind of damage."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.random_weights import random_weights
from support.refusals import check_error, holds, is_number, naming, refused
from support.sabotage import (
    INTERFACES,
    VALUES,
    Edit,
    drop_epsilon,
    forget_the_lengths,
    freeze_inside,
)
from support.small_models import SGR

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GRAPHS, GraphName, Precision
from sgraf_deploy.errors import GateError
from sgraf_deploy.export.gate_inputs import reference_outputs, synthetic_inputs
from sgraf_deploy.export.graphs import build_graph
from sgraf_deploy.gate import values
from sgraf_deploy.gate.executors import executor_name, open_graph
from sgraf_deploy.gate.explain import gate_explain
from sgraf_deploy.gate.graphs import gate_members, run_gate
from sgraf_deploy.gate.inputs import GateInputs, GateReference, read_gate
from sgraf_deploy.model.folding import fold

MEMBERS = ("sgr", "saf")
PLACES = [(member, precision) for member in MEMBERS for precision in ("fp32", "fp16")]

every_place = pytest.mark.parametrize(("member", "precision"), PLACES)
two_places = pytest.mark.parametrize(("member", "precision"), [PLACES[0], PLACES[-1]])


@dataclass(frozen=True)
class Gated:
    """One member's graphs in one precision, as files, and what the gate compares them with."""

    bundle: Bundle
    member: str
    precision: Precision
    paths: Mapping[GraphName, Path]
    inputs: GateInputs
    expected: GateReference

    def run(self) -> dict[str, Any]:
        graphs = self.bundle.manifest.members[self.member].graphs[self.precision]
        signatures = {name: file.signature for name, file in graphs.items()}
        label = f"{self.member} {self.precision}"
        return run_gate(self.paths, signatures, self.precision, self.inputs, self.expected, label)

    def edited(self, graph: GraphName, edit: Edit, folder: Path) -> Gated:
        """The same with one graph loaded, edited and saved elsewhere."""
        model = onnx.load(self.paths[graph])
        before = model.SerializeToString(deterministic=True)
        edit(model)
        assert model.SerializeToString(deterministic=True) != before
        onnx.save(model, folder / f"{graph}.onnx")
        return replace(self, paths={**self.paths, graph: folder / f"{graph}.onnx"})


@pytest.fixture(scope="module")
def gated(exported: Bundle) -> Callable[[str, str], Gated]:
    inputs, references = read_gate(exported.gate_path(), MEMBERS)

    def find(member: str, precision: str) -> Gated:
        chosen: Precision = "fp32" if precision == "fp32" else "fp16"
        paths = {name: exported.graph_path(member, name, chosen) for name in GRAPHS}
        return Gated(exported, member, chosen, paths, inputs, references[member])

    return find


@every_place
def test_whole_graphs_pass(gated: Callable[[str, str], Gated], member: str, precision: str) -> None:
    whole = gated(member, precision)

    report = whole.run()

    assert report["executor"] == executor_name(whole.precision)
    for name in ("embeddings", "logits", "similarities"):
        assert 0 < report[name]["value"] <= report[name]["bound"]
    assert report["logits_std"] == whole.expected.logits.std() > 1e-2
    captions, words = whole.inputs.token_ids.shape
    assert set(report["shapes"]) >= {
        "image_encoder 1",
        "image_encoder 7",
        "text_encoder 1×2",
        f"text_encoder 1×{words + 1}",
        f"text_encoder {captions}×{words}",
        "scorer 1×1+0",
        "scorer 1×1+3",
        "scorer 1×8+1",
        "scorer 7×8+0",
        "pair_scorer 1",
        "pair_scorer 14",
    }


@two_places
def test_graphs_run_in_the_executor_that_is_reported(
    gated: Callable[[str, str], Gated], member: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, opened = gated(member, precision), []

    def spy(path: Path, precision: Precision) -> values.Run:
        opened.append((path, precision))
        return open_graph(path, precision)

    monkeypatch.setattr("sgraf_deploy.gate.graphs.open_graph", spy)
    whole.run()
    assert opened == [(whole.paths[name], whole.precision) for name in GRAPHS]


@every_place
def test_real_gaps_lie_far_below_the_bounds(
    gated: Callable[[str, str], Gated], member: str, precision: str
) -> None:
    report = gated(member, precision).run()

    share = {"fp32": 0.05, "fp16": 0.25}[precision]
    for name in ("embeddings", "logits", "similarities"):
        assert report[name]["value"] <= share * report[name]["bound"]


@two_places
@pytest.mark.parametrize("damage", VALUES)
def test_a_wrong_value_is_caught(
    gated: Callable[[str, str], Gated], member: str, precision: str, damage: str, tmp_path: Path
) -> None:
    graph, edit = VALUES[damage]
    edited = gated(member, precision).edited(graph, edit, tmp_path)

    with pytest.raises(GateError) as caught:
        edited.run()

    helps = precision == "fp16" and is_number(caught.value.got)
    hint = "--precision fp32" if helps else None
    check_error(caught.value, member, precision, hint=hint)
    assert caught.value.exit_code == 1


@two_places
@pytest.mark.parametrize("damage", INTERFACES)
def test_a_wrong_interface_is_caught(
    gated: Callable[[str, str], Gated], member: str, precision: str, damage: str, tmp_path: Path
) -> None:
    graph, edit = INTERFACES[damage]
    edited = gated(member, precision).edited(graph, edit, tmp_path)

    with refused(GateError, member, precision, graph) as caught:
        edited.run()
    # As many inputs or outputs as there are, of which one is another.
    expected, got = caught.error.expected, caught.error.got
    assert isinstance(expected, list)
    assert isinstance(got, list)
    assert sum(right != found for right, found in zip(expected, got, strict=True)) == 1


@two_places
def test_an_axis_that_is_frozen_inside_is_caught(
    gated: Callable[[str, str], Gated], member: str, precision: str, tmp_path: Path
) -> None:
    """The declared axes look dynamic; only running at other shapes tells."""
    edited = gated(member, precision).edited("scorer", freeze_inside, tmp_path)

    with pytest.raises(GateError) as caught:
        edited.run()
    assert any(holds(caught.value.what, name) for name in ("scorer.onnx", "logits"))


@two_places
def test_a_recurrence_that_begins_with_the_padding_is_caught(
    gated: Callable[[str, str], Gated], member: str, precision: str, tmp_path: Path
) -> None:
    edited = gated(member, precision).edited("text_encoder", forget_the_lengths, tmp_path)

    with pytest.raises(GateError):
        edited.run()


@two_places
@pytest.mark.parametrize("graph", ["image_encoder", "scorer", "pair_scorer"])
def test_a_dropped_epsilon_is_caught(
    member: str, precision: str, graph: GraphName, exported: Bundle, tmp_path: Path
) -> None:
    """The image of zeros, through a projection without bias, is a row of zeros."""
    gated = without_bias(exported, member, "fp32" if precision == "fp32" else "fp16", tmp_path)
    (tmp_path / "edited").mkdir()
    gated.run()

    output = "region_embeddings" if graph == "image_encoder" else "logits"
    with refused(GateError, member, precision, output, hint=None) as caught:
        gated.edited(graph, drop_epsilon, tmp_path / "edited").run()
    assert not is_number(caught.error.got)


def without_bias(bundle: Bundle, member: str, precision: Precision, folder: Path) -> Gated:
    config = bundle.manifest.members[member].config
    weights = random_weights(config, 3)
    weights["image_encoder.projection.bias"][:] = 0
    folded = fold(config, weights)
    paths: dict[GraphName, Path] = {name: folder / f"{name}.onnx" for name in GRAPHS}
    for name, path in paths.items():
        onnx.save(build_graph(folded, name, precision), path)
    inputs = synthetic_inputs(config)
    assert not inputs.regions[-1].any()
    expected = reference_outputs(config, weights, inputs)
    assert not expected.region_embeddings[-1].any()
    return Gated(bundle, member, precision, paths, inputs, expected)


@pytest.mark.parametrize("member", MEMBERS)
def test_real_data_has_tighter_bounds(gated: Callable[[str, str], Gated], member: str) -> None:
    half = gated(member, "fp16")
    real = replace(half, inputs=replace(half.inputs, real=True))
    deviation = half.expected.logits.std()

    loose, tight = half.run(), real.run()

    assert loose["logits"]["bound"] == pytest.approx(0.05 * deviation)
    assert tight["logits"]["bound"] == pytest.approx(0.01 * deviation)
    assert loose["spearman"]["bound"] is None
    assert tight["spearman"]["bound"] == 0.9999
    assert loose["spearman"]["value"] == tight["spearman"]["value"] > 0.9999


def test_a_rank_correlation_below_its_bound_is_caught(
    gated: Callable[[str, str], Gated], monkeypatch: pytest.MonkeyPatch
) -> None:
    half = gated("saf", "fp16")
    real = replace(half, inputs=replace(half.inputs, real=True))
    monkeypatch.setattr(values, "FP16_SPEARMAN", 1.5)

    with refused(GateError, "saf", "fp16", expected=naming(1.5), hint="--precision fp32"):
        real.run()
    half.run()


@pytest.mark.parametrize("name", ["region_embeddings", "image_global", "text_global", "logits"])
def test_every_output_is_compared(gated: Callable[[str, str], Gated], name: str) -> None:
    whole = gated("sgr", "fp32")
    wrong = getattr(whole.expected, name).copy()
    wrong.flat[-1] += 1e-3

    compared = "logits" if name == "logits" else "embeddings"
    with refused(GateError, "sgr", "fp32", compared) as caught:
        replace(whole, expected=replace(whole.expected, **{name: wrong})).run()
    assert is_number(caught.error.got)


def test_the_report_covers_every_member_and_precision(exported: Bundle) -> None:
    inputs, references = read_gate(exported.gate_path(), MEMBERS)

    manifest = exported.manifest
    report = gate_members(exported.path, manifest.members, {}, inputs, references)
    report |= gate_explain(exported.path, manifest.explain, inputs, references)

    assert report == manifest.parity
    assert report["source"] == inputs.source
    assert (report["images"], report["captions"]) == (7, 8)
    assert {name: list(found) for name, found in report["members"].items()} == {
        "sgr": ["fp32", "fp16"],
        "saf": ["fp32", "fp16"],
    }
    for found in report["members"].values():
        assert found["fp32"]["executor"] == executor_name("fp32")
        assert found["fp16"]["spearman"]["value"] > 0.9999


def test_the_member_that_fails_is_named(exported: Bundle) -> None:
    inputs, references = read_gate(exported.gate_path(), MEMBERS)
    swapped = {"sgr": references["sgr"], "saf": references["sgr"]}
    with refused(GateError, "saf", "fp32"):
        gate_members(exported.path, exported.manifest.members, {}, inputs, swapped)


def test_the_gates_inputs_have_what_is_hard() -> None:
    inputs = synthetic_inputs(SGR)

    assert not inputs.regions[-1].any()
    assert np.abs(inputs.regions[:-1]).sum(axis=(1, 2)).min() > 0
    assert inputs.lengths.min() == 2
    assert inputs.lengths.max() == inputs.token_ids.shape[1] == 20
    padding = np.arange(20) >= inputs.lengths[:, None]
    assert not inputs.token_ids[padding].any()
    assert inputs.regions.dtype == np.float32
    assert inputs.token_ids.dtype == inputs.lengths.dtype == np.int32
    assert not inputs.real
    again = synthetic_inputs(SGR)
    assert np.array_equal(again.regions, inputs.regions)
    assert np.array_equal(again.token_ids, inputs.token_ids)
