"""What a manifest says of the graphs of all members."""

from __future__ import annotations

from typing import Any

import pytest
from support.refusals import place, refused
from support.small_bundle import manifest, with_combined

from sgraf_deploy.bundle.manifest import Manifest
from sgraf_deploy.errors import BundleError, SgrafDeployError

Json = Any


def error_of(value: Json, **fields: object) -> SgrafDeployError:
    with refused(BundleError, **fields) as found:
        Manifest.from_json(value)
    return found.error


def test_combined_graphs_are_in_precisions_of_the_members() -> None:
    value = with_combined(manifest(), "fp32").to_json()
    value["combined"]["fp16"] = value["combined"]["fp32"]

    assert place(error_of(value, expected="fp32", got='"fp16"')) == "combined.fp16"


@pytest.mark.parametrize(
    ("path", "wrong", "named"),
    [
        ("inputs.0.axes.1", 4, "inputs.0"),
        ("inputs.1.dtype", "float32", "inputs.1"),
        ("outputs.1.name", "scores", "outputs.1"),
        ("file", "../combined.onnx", "file"),
        ("more", 1, "more"),
    ],
)
def test_a_wrong_combined_graph_is_named(path: str, wrong: Json, named: str) -> None:
    value = with_combined(manifest(), "fp32").to_json()
    *steps, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    inner: Json = value["combined"]["fp32"]
    for step in steps:
        inner = inner[step]
    inner[last] = wrong

    found = place(error_of(value))

    assert f"{found}.".startswith(f"combined.fp32.{named}.")


def test_there_is_no_combined_graph_of_another_precision() -> None:
    value = manifest().to_json()
    value["combined"]["fp64"] = {}

    assert place(error_of(value)) == "combined.fp64"
