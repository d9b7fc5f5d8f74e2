"""What a manifest says of the members' graphs `explain`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.manifests import Json, error_of, put, steps_of
from support.refusals import place
from support.small_bundle import manifest, member, ref

from sgraf_deploy.bundle.manifest import GraphFile, Manifest
from sgraf_deploy.config import explain_signature


def with_explain() -> Manifest:
    """An SGRAF manifest with both graphs."""
    full = manifest({"sgr": member("SGR"), "saf": member("SAF")})
    explain = {
        name: GraphFile(ref(f"{name}/explain.onnx", "content"), 18, explain_signature(each.config))
        for name, each in full.members.items()
    }
    return replace(full, explain=explain)


def test_it_reads_back_as_it_was_and_names_its_files() -> None:
    made = with_explain()

    assert Manifest.from_json(made.to_json()) == made
    names = [graph.file for graph in made.graphs]
    assert names[-2:] == ["sgr/explain.onnx", "saf/explain.onnx"]
    assert {graph.file for graph in made.files} >= {*names}


def test_either_every_member_has_one_or_none() -> None:
    value = with_explain().to_json()
    del value["explain"]["saf"]
    assert place(error_of(value)) == "explain.saf"
    value["explain"] = {}
    assert Manifest.from_json(value).explain == {}


def test_nobody_else_has_one() -> None:
    value = with_explain().to_json()
    value["explain"]["sgr-2"] = value["explain"]["sgr"]

    assert place(error_of(value, expected="sgr or saf", got='"sgr-2"')) == "explain.sgr-2"


@pytest.mark.parametrize(
    ("path", "wrong", "named"),
    [
        ("inputs.0.axes.1", 4, "inputs.0"),
        ("outputs.1.name", "weights", "outputs.1"),
        ("outputs.2.axes.2", 9, "outputs.2"),
        ("file", "../explain.onnx", "file"),
        ("more", 1, "more"),
    ],
)
@pytest.mark.parametrize("name", ["sgr", "saf"])
def test_a_wrong_graph_is_named(name: str, path: str, wrong: Json, named: str) -> None:
    value = with_explain().to_json()
    put(value["explain"][name], steps_of(path), wrong)

    assert f"{place(error_of(value))}.".startswith(f"explain.{name}.{named}.")
