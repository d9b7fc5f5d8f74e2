"""`inspect --commands`: lines for other programs, and the script that makes their inputs."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.cli_world import done, refused_line, run, tree
from support.commands import imported
from support.refusals import naming

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import GraphFile
from sgraf_deploy.config import GRAPHS, GraphSignature
from sgraf_deploy.errors import BundleError, InputError

Shapes = dict[str, tuple[int, ...]]
MORE_PROFILES = ("_one_caption", "_one_image")
"""What the names of a scorer's second and third profile end with."""


def groups(output: str) -> dict[str, list[list[str]]]:
    """The words of the lines of every case, by its name, as a shell reads them."""
    lines = output.splitlines()
    parts = [list(part) for empty, part in groupby(lines, lambda line: not line) if not empty]
    assert [line[:2] for line in parts[0]] == ["# "]
    return {
        part[0].removeprefix("# "): [shlex.split(line) for line in part[1:]] for part in parts[1:]
    }


def trtexec_shapes(words: list[str], which: str) -> Shapes:
    (spec,) = (word.partition("=")[2] for word in words if word.startswith(f"--{which}Shapes="))
    pairs = (each.split(":") for each in spec.split(","))
    return {name: tuple(map(int, shape.split("x"))) for name, shape in pairs}


def polygraphy_shapes(words: list[str]) -> Shapes:
    given = words[words.index("--input-shapes") + 1 : words.index("--data-loader-script")]
    pairs = (each.split(":") for each in given)
    return {name: tuple(map(int, shape.strip("[]").split(","))) for name, shape in pairs}


def perf_shapes(words: list[str]) -> Shapes:
    given = [word for flag, word in pairwise(words) if flag == "--shape"]
    pairs = (each.split(":") for each in given)
    return {name: tuple(map(int, shape.split(","))) for name, shape in pairs}


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


@pytest.fixture(scope="module")
def written(
    combined: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, list[list[str]]]]:
    """The script, and the words of what was printed."""
    script = tmp_path_factory.mktemp("commands") / "inputs.py"
    return script, groups(done("inspect", combined.path, "--commands", script).stdout)


def expected_cases(bundle: Bundle) -> Iterator[tuple[str, str, GraphFile]]:
    """The name of every case, its model and its graph's file."""
    for member, one in bundle.manifest.members.items():
        for precision, graphs in one.graphs.items():
            for name in (*GRAPHS, *(f"scorer{suffix}" for suffix in MORE_PROFILES)):
                graph = next(graph for graph in GRAPHS if name.startswith(graph))
                yield f"{member}_{precision}_{name}", f"{member}_{graph}", graphs[graph]
    for precision, file in bundle.manifest.combined.items():
        for suffix in ("", *MORE_PROFILES):
            yield f"combined_{precision}{suffix}", "combined", file


def fits(shapes: Shapes, signature: GraphSignature) -> dict[str, int]:
    """The size of every dynamic axis; every tensor has its own axes, and they agree."""
    assert list(shapes) == [spec.name for spec in signature.inputs]
    sizes: dict[str | int, int] = {}
    for spec in signature.inputs:
        for axis, size in zip(spec.axes, shapes[spec.name], strict=True):
            assert sizes.setdefault(axis, size) == size
            assert isinstance(axis, str) or axis == size
    return {axis: size for axis, size in sizes.items() if isinstance(axis, str)}


def test_every_graph_and_precision_has_lines_with_its_inputs(
    combined: Bundle, written: tuple[Path, dict[str, list[list[str]]]]
) -> None:
    script, found = written
    expected = list(expected_cases(combined))
    assert sorted(found) == sorted(name for name, *_ in expected)
    for name, model, file in expected:
        path, signature = combined.path / file.ref.file, file.signature
        python, trtexec, polygraphy, perf = found[name]
        raw = script.with_name("inputs_raw") / name

        assert python == ["python3", str(script), name]
        assert trtexec[:2] == ["trtexec", f"--onnx={path}"]
        low, best, high = (
            fits(trtexec_shapes(trtexec, each), signature) for each in ("min", "opt", "max")
        )
        assert set(low.values()) == {1}
        assert all(1 <= best[axis] <= high[axis] for axis in high)
        loaded = [f"{spec.name}:{raw / spec.name}" for spec in signature.inputs]
        assert trtexec[-1] == f"--loadInputs={','.join(loaded)}"

        assert polygraphy[:5] == ["polygraphy", "run", str(path), "--onnxrt", "--validate"]
        assert fits(polygraphy_shapes(polygraphy), signature) == best
        assert option(polygraphy, "--data-loader-script") == f"{script}:{name}"

        assert perf[0] == "perf_analyzer"
        assert option(perf, "-m") == model
        assert option(perf, "--input-data") == str(raw)
        assert fits(perf_shapes(perf), signature) == best


def check_values(made: dict[str, NDArray[Any]], vocab_size: int) -> None:
    lengths = made.get("lengths")
    if lengths is not None:
        texts = made["token_ids"] if "token_ids" in made else made["word_embeddings"]
        words = texts.shape[1]
        assert lengths.min() >= 1
        assert lengths.max() == words
        past = np.arange(words) >= lengths[:, None]
        assert not texts[past].any()
    if "token_ids" in made:
        assert made["token_ids"][~past].min() >= 1
        assert made["token_ids"].max() < vocab_size
    for index, rows in (("image_index", "image_global"), ("caption_index", "text_global")):
        if index in made:
            assert made[index].min() >= 0
            assert made[index].max() < len(made[rows])
    if "region_gram" in made:
        regions = made["region_embeddings"]
        np.testing.assert_allclose(
            made["region_gram"], np.einsum("nrd,nsd->nrs", regions, regions), atol=1e-6
        )


def test_the_script_makes_valid_inputs(
    combined: Bundle, written: tuple[Path, dict[str, list[list[str]]]]
) -> None:
    script, found = written
    module = imported(script)
    assert list(module.GRAPHS) == list(found)
    for name, _, file in expected_cases(combined):
        signature = file.signature
        (made,) = getattr(module, name)()  # as Polygraphy calls it
        shapes = {tensor: array.shape for tensor, array in made.items()}
        assert fits(shapes, signature) == fits(polygraphy_shapes(found[name][2]), signature)
        for spec in signature.inputs:
            assert made[spec.name].dtype == spec.dtype
            assert np.isfinite(made[spec.name]).all()
        check_values(made, combined.manifest.vocab_size)
    assert not hasattr(module, "sgr_fp32_nothing")


def test_the_script_writes_raw_inputs_beside_itself(
    written: tuple[Path, dict[str, list[list[str]]]], tmp_path: Path
) -> None:
    script = Path(shutil.copy(written[0], tmp_path / "made.py"))
    name = "saf_fp16_scorer"

    def ran(*names: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(script), *names]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    assert ran(name).returncode == 0
    raw = tmp_path / "made_raw" / name
    expected = imported(script).inputs(name)
    assert sorted(path.name for path in raw.iterdir()) == sorted(expected)
    for tensor, array in expected.items():
        np.testing.assert_array_equal(np.fromfile(raw / tensor, array.dtype), array.reshape(-1))
    for wrong in ((), ("nothing",), (name, "nothing")):
        refused = ran(*wrong)
        assert refused.returncode == 1
        assert name in refused.stderr


def test_a_script_is_not_overwritten_but_by_itself(combined: Bundle, tmp_path: Path) -> None:
    script = tmp_path / "inputs.py"
    first = done("inspect", combined.path, "--commands", script).stdout
    before = tree(tmp_path)
    assert done("inspect", combined.path, "--commands", script).stdout == first
    assert tree(tmp_path) == before

    script.write_text("mine = 1\n", encoding="utf-8")
    refused_line(
        run("inspect", combined.path, "--commands", script), InputError, "--commands", script
    )
    assert script.read_text(encoding="utf-8") == "mine = 1\n"
    assert list(tmp_path.iterdir()) == [script]


@pytest.mark.parametrize(
    "name", ["inputs", "inputs.txt", "my-inputs.py", "a:b/inputs.py", "a,b/inputs.py"]
)
def test_a_script_that_could_not_be_used_is_refused(
    combined: Bundle, tmp_path: Path, name: str
) -> None:
    script = tmp_path / name
    script.parent.mkdir(exist_ok=True)
    result = run("inspect", combined.path, "--commands", script)
    refused_line(result, InputError, "--commands", got=naming(script.name))
    assert result.stdout == ""
    assert not script.exists()


def test_the_lines_of_a_damaged_bundle_are_not_printed(combined: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(combined.path, tmp_path / "copy.sgraf")
    (copy / "saf" / "fp16" / "scorer.onnx").unlink()
    result = run("inspect", copy, "--commands", tmp_path / "inputs.py")
    refused_line(result, BundleError, "saf/fp16/scorer.onnx")
    assert not (tmp_path / "inputs.py").exists()


def test_paths_are_quoted(combined: Bundle, tmp_path: Path) -> None:
    folder = tmp_path / "it's $HOME;  here"
    copy = shutil.copytree(combined.path, folder / "a bundle.sgraf")
    script = folder / "inputs.py"
    found = groups(done("inspect", copy, "--commands", script).stdout)
    python, trtexec, polygraphy, _ = found["sgr_fp32_text_encoder"]
    graph = copy / "sgr" / "fp32" / "text_encoder.onnx"
    assert python[1] == str(script)
    assert trtexec[1] == f"--onnx={graph}"
    assert polygraphy[2] == str(graph)


def test_a_path_that_cannot_be_printed_is_refused(combined: Bundle, tmp_path: Path) -> None:
    copy = shutil.copytree(combined.path, tmp_path / "two\nlines.sgraf")
    result = run("inspect", copy, "--commands", tmp_path / "inputs.py")
    refused_line(result, InputError, copy)
    assert not (tmp_path / "inputs.py").exists()


def test_json_and_commands_exclude_each_other(combined: Bundle, tmp_path: Path) -> None:
    result = run("inspect", combined.path, "--json", "--commands", tmp_path / "inputs.py")
    refused_line(result, InputError, "--json", "--commands")
    assert list(tmp_path.iterdir()) == []
