"""The C++ example prints the ranks of `sgraf-deploy rerank`, and refuses what it cannot read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.cli_world import done
from support.elsewhere import ran, run_example

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.cli.demo import QUERY
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.runtime.tokens import CaptionReader

pytestmark = pytest.mark.outside

RUNTIMES = ("onnxruntime", "openvino")
TOP_K = 20


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_the_example_ranks_as_rerank_does(
    demo: Bundle,
    scenes: tuple[Path, PrecompSplit],
    example: Callable[[str], Path],
    tmp_path: Path,
    runtime: str,
) -> None:
    folder, split = scenes
    caption = split.captions[5 * QUERY]
    arguments = (demo.path, "--data", folder, "--split", split.name, "--caption", caption)
    shown = done("rerank", *arguments, "--top-k", TOP_K).stdout.splitlines()[-TOP_K:]
    expected = [line.split()[:4] for line in shown]
    (token_ids,) = CaptionReader(demo).token_ids([caption])
    graph, stored = demo.combined_path("fp32"), folder / f"{split.name}_ims.npy"

    found = run_example(example(runtime), graph, stored, token_ids, TOP_K)

    assert found.rows == [int(row) for *_, row in expected]
    np.testing.assert_allclose(found.similarities, [float(each[1]) for each in expected], atol=6e-5)
    np.testing.assert_allclose(found.logits, [float(each[2]) for each in expected], atol=6e-4)

    np.save(tmp_path / "float32.npy", split.regions.astype(np.float32))
    same = run_example(example(runtime), graph, tmp_path / "float32.npy", token_ids, TOP_K)
    assert same == found


def test_the_example_reads_every_float16(example: Callable[[str], Path], tmp_path: Path) -> None:
    """Scores need not show it: what the example read is told by a graph that hands it back."""
    import onnx
    from onnx import TensorProto, helper

    shapes = {"regions": ["n", "r", "d"], "token_ids": ["c", "w"], "lengths": ["c"]}
    types = dict.fromkeys(shapes, TensorProto.INT32) | {"regions": TensorProto.FLOAT}
    inputs = [helper.make_tensor_value_info(n, types[n], shape) for n, shape in shapes.items()]
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", "c"])
        for name in ("logits", "similarities")
    ]
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [-1, 1])
    nodes = [
        helper.make_node("Reshape", ["regions", "shape"], ["logits"]),
        helper.make_node("Identity", ["logits"], ["similarities"]),
    ]
    graph = helper.make_graph(nodes, "given", inputs, outputs, [shape])
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "given.onnx")
    halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
    small = halves[np.isfinite(halves) & (np.abs(halves.astype(np.float32)) < 1000)]
    np.save(tmp_path / "halves.npy", small.reshape(-1, 1, 1))

    found = run_example(
        example("onnxruntime"),
        tmp_path / "given.onnx",
        tmp_path / "halves.npy",
        np.array([1], np.int32),
        len(small),
    )

    values = small[found.rows].astype(np.float32)
    assert sorted(found.rows) == list(range(len(small)))
    assert (np.diff(values) <= 0).all()
    np.testing.assert_allclose(found.logits, values, rtol=0, atol=6e-7)


@pytest.mark.parametrize("content", ["missing", "text", "float64", "two axes", "fortran", "short"])
def test_the_example_names_a_file_that_it_cannot_read(
    demo: Bundle, example: Callable[[str], Path], tmp_path: Path, content: str
) -> None:
    path = tmp_path / "regions.npy"
    zeros = np.zeros((2, 36, 64), np.float32)
    if content == "text":
        path.write_text("no array", encoding="utf-8")
    elif content != "missing":
        changed = {
            "float64": zeros.astype(np.float64),
            "two axes": zeros[0],
            "fortran": np.asfortranarray(zeros),
            "short": zeros,
        }
        np.save(path, changed[content])
        if content == "short":
            path.write_bytes(path.read_bytes()[:-4])
    result = ran(example("onnxruntime"), demo.combined_path("fp32"), path, 3, 1, 2)
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: {path}: ")
    assert result.stdout == ""


def test_the_example_says_how_it_is_used(example: Callable[[str], Path]) -> None:
    result = ran(example("openvino"))
    assert result.returncode == 2
    assert result.stderr.startswith("usage: ")
