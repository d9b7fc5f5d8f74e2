"""What a manifest says of the graphs of all members."""

from __future__ import annotations

import pytest
from support.manifests import Json, error_of, put, steps_of
from support.refusals import place
from support.small_bundle import manifest, with_combined


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
    put(value["combined"]["fp32"], steps_of(path), wrong)

    found = place(error_of(value))

    assert f"{found}.".startswith(f"combined.fp32.{named}.")


def test_there_is_no_combined_graph_of_another_precision() -> None:
    value = manifest().to_json()
    value["combined"]["fp64"] = {}

    assert place(error_of(value)) == "combined.fp64"
