"""Graphs in the oldest ONNX Runtime that installs, beside the one that the program runs with."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import GraphSignature, Precision, TensorSpec
from sgraf_deploy.demo.assets import CHECKPOINTS, PACKAGED
from sgraf_deploy.export.exporter import ExportOptions, export_bundle
from sgraf_deploy.export.opsets import OLDEST

pytestmark = pytest.mark.outside

RUN = Path(__file__).with_name("run_oldest.py")
SIZES = {"images": 3, "captions": 4, "words": 6, "pairs": 5}
BOUNDS = {"fp32": 1e-4, "fp16": 1e-2}
"""Of any output. ONNX Runtime computes fp16 in float32 between roundings, so one may round to
another float16 where a sum's last bit differs."""


@pytest.fixture(scope="module")
def oldest() -> Path:
    """The Python of the environment of `oldest.txt`, which `make test-outside` makes."""
    variable = "SGRAF_DEPLOY_OLDEST_PYTHON"
    if variable not in os.environ:
        pytest.fail(f"{variable} names no Python: run `make test-outside`")
    return Path(os.environ[variable])


@pytest.mark.parametrize("opset", [None, OLDEST["fp32"]], ids=["by-default", "oldest-opset"])
def test_the_oldest_runtime_gives_the_same(opset: int | None, oldest: Path, tmp_path: Path) -> None:
    options = ExportOptions(combined=True, opset=opset)
    checkpoints = [PACKAGED / name for name in CHECKPOINTS]
    bundle = export_bundle(checkpoints, tmp_path / "demo.sgraf", options).bundle
    folder = tmp_path / "graphs"
    folder.mkdir()
    expected = {name: _now(bundle, name, folder) for name in _graphs(bundle)}

    done = subprocess.run([oldest, RUN, folder], check=True, capture_output=True, text=True)

    pinned = RUN.with_name("oldest.txt").read_text(encoding="utf-8")
    assert f"onnxruntime=={done.stdout};" in pinned
    assert len(expected) == 2 * (2 * 4 + 1)
    for name, (precision, arrays) in expected.items():
        with np.load(folder / f"{name}.out.npz") as found:
            assert set(found) == set(arrays)
            for output, values in arrays.items():
                gap = np.abs(found[output].astype(np.float64) - values).max()
                assert gap <= BOUNDS[precision], (name, output)


def _graphs(bundle: Bundle) -> dict[str, tuple[Path, GraphSignature, Precision]]:
    manifest = bundle.manifest
    found = {}
    for precision in manifest.precisions:
        for member, entry in manifest.members.items():
            for graph, file in entry.graphs[precision].items():
                path = bundle.graph_path(member, graph, precision)
                found[f"{member}-{graph}-{precision}"] = (path, file.signature, precision)
        path = bundle.combined_path(precision)
        found[f"combined-{precision}"] = (path, manifest.combined[precision].signature, precision)
    return found


def _now(
    bundle: Bundle, name: str, folder: Path
) -> tuple[Precision, dict[str, NDArray[np.float64]]]:
    """Lays out a graph and inputs for it; returns what this ONNX Runtime makes of them."""
    path, signature, precision = _graphs(bundle)[name]
    shutil.copy(path, folder / f"{name}.onnx")
    rng = np.random.default_rng(0)
    words = bundle.manifest.vocab_size
    inputs = {spec.name: _random(spec, words, rng) for spec in signature.inputs}
    np.savez(folder / f"{name}.npz", allow_pickle=False, **inputs)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [spec.name for spec in signature.outputs]
    outputs = session.run(names, inputs)
    return precision, {
        output: values.astype(np.float64) for output, values in zip(names, outputs, strict=True)
    }


def _random(spec: TensorSpec, words: int, rng: np.random.Generator) -> NDArray[Any]:
    shape = [SIZES[axis] if isinstance(axis, str) else axis for axis in spec.axes]
    if spec.dtype == "int32":
        most = {"token_ids": words, "lengths": SIZES["words"] + 1}
        most |= {"image_index": SIZES["images"], "caption_index": SIZES["captions"]}
        least = 1 if spec.name == "lengths" else 0
        return rng.integers(least, most[spec.name], shape, dtype=np.int32)
    return rng.standard_normal(shape).astype(spec.dtype) / 8
