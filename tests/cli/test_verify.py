"""`sgraf-deploy verify` and `inspect`: what a bundle is, and whether it still is what it was."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from cli.world import World, done, edit_manifest, error_line, replace_file, run, tree
from onnx import numpy_helper

from sgraf_deploy.bundle import Bundle
from sgraf_deploy.cli.common import megabytes
from sgraf_deploy.config import GRAPHS


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

    assert f"{world.bundle} is intact and within every bound" in result.stdout
    assert "synthetic: 6 images of standard normal regions" in result.stdout
    for graphs in ("sgr fp32", "sgr fp16", "saf fp32", "saf fp16"):
        assert f"\n{graphs}" in result.stdout
    assert "Warning" not in result.stderr
    assert tree(world.bundle) == before


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_of_other_weights_fails_the_gate(world: World, precision: str, graph: str) -> None:
    file = f"saf/{precision}/{graph}.onnx"
    bundle = replace_file(world.copy(), file, with_other_weights(world.bundle / file, 0.5))
    Bundle.open(bundle).verify_files()

    result = run("verify", bundle)

    assert result.exit_code == 1
    assert f"gate failed for saf {precision}: largest difference of" in error_line(result)
    assert "is intact" not in result.output


def test_a_graph_of_another_interface_fails_the_gate(world: World) -> None:
    model = onnx.load(world.bundle / "sgr/fp32/scorer.onnx")
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "pictures"
    bundle = replace_file(world.copy(), "sgr/fp32/scorer.onnx", model.SerializeToString())

    result = run("verify", bundle)

    assert result.exit_code == 1
    assert "sgr fp32 scorer: outputs of the graph" in error_line(result)
    assert "pictures" in error_line(result)


def test_a_bare_bundle_is_verified_with_its_checkpoint(world: World) -> None:
    result = done("verify", world.bare, "--checkpoint", world.saf, "--checkpoint", world.sgr)

    assert "is intact and within every bound" in result.stdout


def test_files_that_do_not_belong_are_named(world: World) -> None:
    bundle = world.copy()
    (bundle / "notes.txt").write_text("mine", encoding="utf-8")

    result = done("verify", bundle)

    assert "Warning: files that are no part of the bundle: notes.txt" in result.stderr


def test_inspect_shows_models_axes_and_sizes(world: World) -> None:
    result = done("inspect", world.bundle)

    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    sha256 = Bundle.open(world.bundle).sha256
    assert lines[0].startswith(f"{world.bundle}: SGRAF, ")
    assert lines[0].endswith(f"sha256 {sha256[:16]}…")
    assert lines[1] == "vocabulary of 53 words, tokenizer nltk-vocabulary-punkt"
    assert "sgr: 7 regions × 64, embed 32, sim_dim 16, 3 steps, bidirectional GRU × 1" in lines
    assert "saf: 7 regions × 64, embed 32, sim_dim 16, bidirectional GRU × 1" in lines
    assert (
        "image_encoder regions (images, 7, 64) float32 "
        "region_embeddings (images, 7, 32) float32 | float16"
    ) in lines
    assert "region_gram (images, 7, 7) float32, fp32 alone" in lines
    assert "lengths (captions) int32" in lines
    assert "size of the file image_encoder text_encoder scorer pair_scorer all four" in lines
    # Two members, 7 regions and the global vector, 32 numbers each, of 4 or 2 bytes; in fp32 the
    # regions' products as well.
    fp32 = 2 * (8 * 32 + 7 * 7) * 4
    fp16 = 2 * 8 * 32 * 2
    at = next(row for row, line in enumerate(lines) if line.startswith("fp32: "))
    assert lines[at].startswith(f"fp32: {fp32:,} bytes per encoded image, 256 per word")
    assert lines[at + 1].startswith(f"fp16: {fp16:,} bytes per encoded image, 128 per word")
    assert max(map(len, result.stdout.splitlines())) <= 120 + len(str(world.bundle))


def test_inspect_counts_the_bytes_of_the_graphs(world: World) -> None:
    table = done("inspect", world.bundle).stdout.split("size of the file")[1]

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


def test_inspect_a_bare_bundle(world: World) -> None:
    result = done("inspect", world.bare)

    assert "no vocabulary: works on token ids below 53" in result.stdout
    assert "original weights left out" in result.stdout
    assert "fp16" not in result.stdout


def test_inspect_a_checkpoint_without_epoch(world: World) -> None:
    def forget(manifest: dict[str, dict[str, dict[str, dict[str, object]]]]) -> None:
        manifest["members"]["sgr"]["checkpoint"]["epoch"] = None

    result = done("inspect", edit_manifest(world.copy(), forget))

    assert result.stdout.count(", epoch 17; original weights kept") == 1
    assert "None" not in result.stdout


def test_inspect_json_is_the_manifest(world: World) -> None:
    result = done("inspect", world.bundle, "--json")

    assert json.loads(result.stdout) == Bundle.open(world.bundle).manifest.to_json()
    assert result.stdout.isascii()
