"""Executes ONNX graphs for the gate, in ONNX Runtime or in onnx's own evaluator.

The evaluator computes float16 products as a tensor core does (float16 operands and results,
float32 sums). ONNX Runtime on a CPU computes them in float32, which proves nothing about float16.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.reference.ops.op_gru import GRU as PaddingBlindGRU  # noqa: N811

from sgraf_deploy.config import Precision
from sgraf_deploy.engines.buffers import Array
from sgraf_deploy.engines.onnx_runtime import import_onnxruntime, import_state
from sgraf_deploy.errors import GateError
from sgraf_deploy.gate.values import Arrays, Run

ONNXRUNTIME = "onnxruntime"
EVALUATOR = "onnx evaluator"

_EVALUATOR_ERRORS = (
    *(ArithmeticError, AttributeError, LookupError),
    *(RuntimeError, TypeError, ValueError),
)
"""The errors of onnx's evaluator, and of numpy in it, for a graph that cannot be computed."""

_FATAL_ONLY = 4
"""ONNX Runtime's log severity: whatever it would print on stderr is in the error, too."""


class GRU(OpRun):
    """onnx's GRU, which ignores `sequence_lens`: run caption by caption where there are any.

    Such graphs were exported up to schema version 2. Each direction runs on its own as a forward
    one: before onnx 1.23 there is no other.
    """

    op_domain = ""

    def _run(
        self,
        x: Array,
        w: Array,
        r: Array,
        b: Array,
        sequence_lens: Array | None = None,
        **attributes: Any,
    ) -> tuple[Array]:
        padding_blind: Any = PaddingBlindGRU  # onnx does not type it
        gru = padding_blind(self.onnx_node, self.run_params)
        gru.direction = "forward"
        if sequence_lens is None:
            return (gru._run(x, w, r, b, layout=0)[0],)
        words, captions = x.shape[:2]
        states = np.zeros((words, len(w), captions, r.shape[2]), dtype=x.dtype)
        for caption, length in enumerate(sequence_lens):
            for direction in range(len(w)):
                one, step = slice(direction, direction + 1), -1 if direction else 1
                real = x[:length, caption : caption + 1][::step]
                found = gru._run(real, w[one], r[one], b[one], layout=0)[0]
                states[:length, one, caption : caption + 1] = found[::step]
        return (states,)


def executor_name(precision: Precision) -> str:
    """The name of the executor that `open_graph` uses on this machine for a precision."""
    has_ort = importlib.util.find_spec("onnxruntime") is not None
    return ONNXRUNTIME if precision == "fp32" and has_ort else EVALUATOR


def open_graph(path: Path, precision: Precision) -> Run:
    """Open the graph in `path`; returns a function from named inputs to named outputs.

    Both raise GateError for a graph that cannot be executed.
    """
    if executor_name(precision) == ONNXRUNTIME:
        return _onnxruntime(path)
    with _refused(path, EVALUATOR, _EVALUATOR_ERRORS):
        evaluator = ReferenceEvaluator(onnx.load(path), new_ops=[GRU])

    def run(inputs: Arrays) -> Arrays:
        # The gate tries zeros and saturated exponentials, and itself checks that all is finite.
        with np.errstate(all="ignore"), _refused(path, EVALUATOR, _EVALUATOR_ERRORS):
            outputs = evaluator.run(None, _taken(inputs, evaluator.input_names))
        return dict(zip(evaluator.output_names, outputs, strict=True))

    return run


def evaluate_nodes(model: onnx.ModelProto, path: Path, feed: Arrays) -> Arrays:
    """Every value that the nodes of a graph compute, by name, in onnx's evaluator.

    Floats of `feed` are rounded to what the graph takes. Raises GateError, which names the file
    `path` of the graph, if it cannot be executed.
    """
    model = onnx.ModelProto.FromString(model.SerializeToString())
    outputs = {value.name for value in model.graph.output}
    names = [name for node in model.graph.node for name in node.output]
    model.graph.output.extend(
        onnx.ValueInfoProto(name=name) for name in names if name not in outputs
    )
    halves = {
        value.name
        for value in model.graph.input
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16
    }
    with np.errstate(all="ignore"), _refused(path, EVALUATOR, _EVALUATOR_ERRORS):
        evaluator = ReferenceEvaluator(model, new_ops=[GRU])
        taken = _taken(feed, evaluator.input_names)
        taken = {name: x.astype(np.float16) if name in halves else x for name, x in taken.items()}
        found = evaluator.run(None, taken)
    return dict(zip(evaluator.output_names, map(np.asarray, found), strict=True))


def _onnxruntime(path: Path) -> Run:
    onnxruntime, native = import_onnxruntime(), import_state()
    errors = tuple(kind for kind in vars(native).values() if _is_error(kind))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    with _refused(path, ONNXRUNTIME, errors):
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    taken = [each.name for each in session.get_inputs()]

    def run(inputs: Arrays) -> Arrays:
        with _refused(path, ONNXRUNTIME, errors):
            outputs = session.run(names, _taken(inputs, taken))
        return dict(zip(names, outputs, strict=True))

    return run


def _taken(inputs: Arrays, names: Collection[str]) -> Arrays:
    return {name: array for name, array in inputs.items() if name in names}


def _is_error(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)


@contextmanager
def _refused(path: Path, executor: str, errors: tuple[type[Exception], ...]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        name = "/".join(path.parts[-3:])
        raise GateError(f"{executor} cannot execute graph {name}", got=error) from error
