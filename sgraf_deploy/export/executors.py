"""Two ways to execute an ONNX graph at gate sizes: ONNX Runtime, and onnx's own evaluator.

The evaluator computes float16 products as a tensor core does (float16 operands and results,
float32 sums); ONNX Runtime on a CPU runs them in float32 and proves nothing about float16.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_gru import GRU as PaddingBlindGRU  # noqa: N811

from sgraf_deploy.config import Precision

Array = NDArray[Any]
Arrays = dict[str, Array]
Run = Callable[[Arrays], Arrays]

ONNXRUNTIME = "onnxruntime"
EVALUATOR = "onnx evaluator"


class GRU(OpRun):  # type: ignore[misc]  # onnx's base class is untyped
    """onnx's GRU, run caption by caption because it ignores `sequence_lens`."""

    op_domain = ""

    def _run(
        self, x: Array, w: Array, r: Array, b: Array, sequence_lens: Array, **attributes: Any
    ) -> tuple[Array]:
        gru = PaddingBlindGRU(self.onnx_node, self.run_params)
        words, captions = x.shape[:2]
        states = np.zeros((words, len(w), captions, r.shape[2]), dtype=x.dtype)
        for caption, length in enumerate(sequence_lens):
            real = x[:length, caption : caption + 1]
            states[:length, :, caption : caption + 1] = gru._run(real, w, r, b)[0]
        return (states,)


def executor_name(precision: Precision) -> str:
    """Which executor `open_graph` uses here for a precision."""
    has_ort = importlib.util.find_spec("onnxruntime") is not None
    return ONNXRUNTIME if precision == "fp32" and has_ort else EVALUATOR


def open_graph(path: Path, precision: Precision) -> Run:
    """A function from named inputs to named outputs that executes the graph in `path`."""
    if executor_name(precision) == ONNXRUNTIME:
        return _onnxruntime(path)
    evaluator = ReferenceEvaluator(onnx.load(path), new_ops=[GRU])

    def run(inputs: Arrays) -> Arrays:
        # Zero rows and saturated exponentials are part of what the gate tries.
        with np.errstate(over="ignore", under="ignore"):
            outputs = evaluator.run(None, inputs)
        return dict(zip(evaluator.output_names, outputs, strict=True))

    return run


def _onnxruntime(path: Path) -> Run:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(inputs: Arrays) -> Arrays:
        return dict(zip(names, session.run(names, inputs), strict=True))

    return run
