"""Programs that run a bundle's graphs: which of them are compared, and how each is called."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
Run = Callable[[Path, Arrays], dict[str, NDArray[Any]]]
"""From a graph and its inputs to its outputs, both by name."""

Graphs = Literal["members", "combined"]

NO_GPU = "not run, only parsed and built: running needs a GPU"
NOT_HERE = "not run: needs NVIDIA's packages and a GPU"


@dataclass(frozen=True)
class Program:
    """A row of the table: a program, the graphs that it is given, and why there are no figures."""

    name: str
    graphs: Graphs
    why_not: str | None = None


PROGRAMS = (
    Program("ONNX Runtime, Python", "members"),
    Program("ONNX Runtime, Python", "combined"),
    Program("ONNX Runtime, C++", "combined"),
    Program("ONNX Runtime, WebAssembly", "members"),
    Program("ONNX Runtime, WebAssembly", "combined"),
    Program("OpenVINO, Python", "members"),
    Program("OpenVINO, Python", "combined"),
    Program("OpenVINO, C++", "combined"),
    Program("TensorRT for RTX", "members", NO_GPU),
    Program("TensorRT for RTX", "combined", NO_GPU),
    Program("TensorRT, trtexec", "members", NOT_HERE),
    Program("Triton, perf_analyzer", "members", NOT_HERE),
)
"""The rows of the table, in its order."""

MOST = 1e-4
"""The largest difference of two programs' logits in FP32."""


@dataclass(frozen=True)
class Found:
    """What a program's logits differ by at most, and whether they rank as the yardstick's do."""

    difference: float
    ranks: bool


def table(found: Mapping[Program, Found]) -> list[str]:
    """The rows of `PROGRAMS` as Markdown."""
    lines = ["| program | graphs | largest difference of logits | ranks |", "|---|---|---|---|"]
    for program in PROGRAMS:
        if program.why_not is not None:
            values = f"{program.why_not} | –"
        else:
            one = found[program]
            values = f"{one.difference:.1e} | {'equal' if one.ranks else 'differ'}"
        lines.append(f"| {program.name} | {program.graphs} | {values} |")
    return lines


def run_onnxruntime(graph: Path, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Run a graph in ONNX Runtime's Python package."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def run_openvino(graph: Path, inputs: Arrays, *, fixed: bool = False) -> dict[str, NDArray[Any]]:
    """Run a graph in OpenVINO's Python package, in float32 whatever the processor has.

    Captions may be `fixed` to their number and words, for which it makes other kernels.
    """
    import openvino

    core = openvino.Core()
    model = core.read_model(graph)
    if fixed and "token_ids" in inputs:
        model.reshape({name: list(inputs[name].shape) for name in ("token_ids", "lengths")})
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled(dict(inputs))
    return {output.get_any_name(): results[output] for output in compiled.outputs}


def run_in_node(node_modules: Path, folder: Path) -> Run:
    """A function that runs graphs in onnxruntime-web under Node, through files in a folder."""
    script = Path(__file__).parents[1] / "outside" / "run_graph.mjs"

    def run(graph: Path, inputs: Arrays) -> dict[str, NDArray[Any]]:
        described = {name: (each.dtype.name, each.shape) for name, each in inputs.items()}
        (folder / "inputs.json").write_text(json.dumps(described), encoding="utf-8")
        for name, array in inputs.items():
            np.ascontiguousarray(array).tofile(folder / name)
        done = ran("node", script, node_modules, graph, folder)
        assert done.returncode == 0, done.stderr
        outputs = json.loads((folder / "outputs.json").read_text(encoding="utf-8"))
        return {
            name: np.fromfile(folder / name, dtype).reshape(shape)
            for name, (dtype, shape) in outputs.items()
        }

    return run


def build_example(folder: Path, *options: str) -> Path:
    """Build the C++ example with CMake's options; returns the program. A warning is an error."""
    source = Path(__file__).parents[2] / "examples" / "cpp"
    release = ("-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_FLAGS=-Werror")
    for words in (("-S", source, "-B", folder, *release, *options), ("--build", folder)):
        done = ran("cmake", *words)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "rerank"


def ran(*words: object) -> subprocess.CompletedProcess[str]:
    """A program that has ended, however it did, with what it said."""
    command = [str(word) for word in words]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)


@dataclass(frozen=True)
class Ranked:
    """What the C++ example prints, the best image first."""

    rows: list[int]
    similarities: list[float]
    logits: list[float]


def run_example(
    program: Path, graph: Path, regions: Path, token_ids: NDArray[np.int32], top_k: int
) -> Ranked:
    """Run the C++ example on a caption, and read what it prints."""
    done = ran(program, graph, regions, top_k, *token_ids)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0] == ["rank", "similarity", "logit", "row"]
    assert [int(line[0]) for line in lines[1:]] == list(range(1, len(lines)))
    return Ranked(
        [int(line[3]) for line in lines[1:]],
        [float(line[1]) for line in lines[1:]],
        [float(line[2]) for line in lines[1:]],
    )
