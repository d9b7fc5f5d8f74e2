"""`sgraf-deploy verify` and `inspect`: what a bundle is, and whether it still is what it was."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from support.cli_world import (
    Ran,
    World,
    done,
    edit_manifest,
    line_naming,
    lines_with,
    refused_line,
    replace_file,
    run,
    tree,
)
from support.refusals import holds, naming

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.cli.common import megabytes
from sgraf_deploy.config import GRAPHS
from sgraf_deploy.errors import GateError


def with_other_weights(path: Path, share: float) -> bytes:
    """The graph with its largest weight scaled by 1 + share."""
    model = onnx.load(path)
    weights = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    array = numpy_helper.to_array(weights)
    changed = (array * (1 + share)).astype(array.dtype)
    weights.CopyFrom(numpy_helper.from_array(changed, weights.name))
    content: bytes = model.SerializeToString()
    return content


def test_a_whole_bundle_is_verified(world: World) -> None:
    before = tree(world.bundle)

    result = done("verify", world.bundle)

    assert holds(result.stdout.splitlines()[-1], world.bundle)
    line_naming(result.stdout, "synthetic", 6)
    for graphs in ("sgr fp32", "sgr fp16", "saf fp32", "saf fp16"):
        assert f"\n{graphs}" in result.stdout
    assert result.warned == []
    assert tree(world.bundle) == before


def test_layers_name_the_first_node_beyond_the_bound(world: World) -> None:
    before = tree(world.bundle)
    for bound, named in ((1e-9, "first"), (1e9, "no node")):
        lines = done("verify", world.bundle, "--layers", "--layer-bound", bound).stdout
        found = [line for line in lines.splitlines() if " fp16 " in line and " nodes: " in line]
        assert len(found) == 2 * len(GRAPHS)
        assert all(named in line for line in found)
        assert lines.count("worst") == 2 * len(GRAPHS)
    assert tree(world.bundle) == before


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_of_other_weights_fails_the_gate(world: World, precision: str, graph: str) -> None:
    file = f"saf/{precision}/{graph}.onnx"
    bundle = replace_file(world.copy(), file, with_other_weights(world.bundle / file, 0.5))
    Bundle.open(bundle).verify_files()

    result = run("verify", bundle)

    compared = "embeddings" if "encoder" in graph else "logits"
    names = ("saf", precision, compared)
    refused_line(result, GateError, *names, expected=naming(), got=naming())
    assert result.stdout == ""


def test_a_graph_of_another_interface_fails_the_gate(world: World) -> None:
    model = onnx.load(world.bundle / "sgr/fp32/scorer.onnx")
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "pictures"
    bundle = replace_file(world.copy(), "sgr/fp32/scorer.onnx", model.SerializeToString())

    result = run("verify", bundle)

    names = ("sgr", "fp32", "scorer", "outputs")
    refused_line(result, GateError, *names, expected=naming("images"), got=naming("pictures"))


def test_a_bare_bundle_is_verified_with_its_checkpoint(world: World) -> None:
    result = done("verify", world.bare, "--checkpoint", world.saf, "--checkpoint", world.sgr)

    assert holds(result.stdout.splitlines()[-1], world.bare)


def test_files_that_do_not_belong_are_named(world: World) -> None:
    bundle = world.copy()
    (bundle / "notes.txt").write_text("mine", encoding="utf-8")

    result = done("verify", bundle)

    (warned,) = lines_with("Warning: ", result.stderr)
    assert holds(warned, "notes.txt")


def test_inspect_shows_models_axes_and_sizes(world: World) -> None:
    result = done("inspect", world.bundle)

    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    sha256 = Bundle.open(world.bundle).sha256
    line_naming(lines[0], world.bundle, "SGRAF", sha256[:16])
    line_naming(lines[1], 53, "nltk-vocabulary-punkt")
    dimensions = (7, 64, "embed 32", "sim_dim 16", 1)
    line_naming(result.stdout, "sgr", *dimensions, 3)
    assert not holds(line_naming(result.stdout, "saf", *dimensions), 3)
    assert (
        "image_encoder regions (images, 7, 64) float32 "
        "region_embeddings (images, 7, 32) float32 | float16"
    ) in lines
    line_naming(result.stdout, "region_gram (images, 7, 7) float32", "fp32")
    assert "lengths (captions) int32" in lines
    line_naming(result.stdout, *GRAPHS)
    # Two members, 7 regions and the global vector, 32 numbers each, of 4 or 2 bytes; in fp32 the
    # regions' products as well.
    fp32 = 2 * (8 * 32 + 7 * 7) * 4
    fp16 = 2 * 8 * 32 * 2
    line_naming(result.stdout, "fp32", f"{fp32:,}", 256)
    line_naming(result.stdout, "fp16", f"{fp16:,}", 128)
    assert max(map(len, result.stdout.splitlines())) <= 120 + len(str(world.bundle))


def test_inspect_counts_the_bytes_of_the_graphs(world: World) -> None:
    stdout = done("inspect", world.bundle).stdout
    table = stdout.partition(line_naming(stdout, *GRAPHS))[2]

    for graphs in ("sgr/fp32", "sgr/fp16", "saf/fp32", "saf/fp16"):
        (line,) = (line for line in table.splitlines() if line.startswith(graphs.replace("/", " ")))
        sizes = [(world.bundle / graphs / f"{graph}.onnx").stat().st_size for graph in GRAPHS]
        assert line.split()[2:] == [
            word for size in (*sizes, sum(sizes)) for word in (f"{size / 1e3:.1f}", "kB")
        ]


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0.0 kB"), (999_900, "999.9 kB"), (1_000_000, "1.0 MB"), (1_234_567_890, "1,234.6 MB")],
)
def test_sizes_are_for_people(size: int, text: str) -> None:
    assert megabytes(size) == text


def sources(inspected: Ran) -> dict[str, str]:
    """What is said of every checkpoint after its file and hash."""
    found = re.findall(r"(small_\w+\.pth\.tar)\b.*?…(.*)", inspected.stdout)
    assert found
    return dict(found)


def test_inspect_a_bare_bundle(world: World) -> None:
    result = done("inspect", world.bare)

    assert holds(result.stdout.splitlines()[1], 53)
    assert not holds(result.stdout, "nltk-vocabulary-punkt")
    kept, left_out = (sources(done("inspect", path)) for path in (world.bundle, world.bare))
    assert kept["small_SGR.pth.tar"] != left_out["small_SGR.pth.tar"]
    assert "fp16" not in result.stdout


def test_inspect_a_checkpoint_without_epoch(world: World) -> None:
    def forget(manifest: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
        manifest["members"]["sgr"]["checkpoint"]["epoch"] = None

    result = done("inspect", edit_manifest(world.copy(), forget))

    named = {file: holds(said, 17) for file, said in sources(result).items()}
    assert named == {"small_SGR.pth.tar": False, "small_SAF.pth.tar": True}
    assert "None" not in result.stdout


def test_inspect_json_is_the_manifest(world: World) -> None:
    result = done("inspect", world.bundle, "--json")

    assert json.loads(result.stdout) == Bundle.open(world.bundle).manifest.to_json()
    assert result.stdout.isascii()
