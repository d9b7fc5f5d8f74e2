"""Engine `ort`: ONNX Runtime on the CPU, on the bundle's graphs and NumPy arrays."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgraf_deploy.bundle.manifest import EXPORT_AGAIN
from sgraf_deploy.config import EXPLAIN, GraphName, GraphSignature, Precision
from sgraf_deploy.engines.base import Engine, EngineOptions, Graph
from sgraf_deploy.engines.buffers import Buffer, Sizes
from sgraf_deploy.engines.onnx_runtime import import_onnxruntime, import_state
from sgraf_deploy.errors import (
    BundleError,
    EngineMemoryError,
    InputError,
    SgrafDeployError,
    UnavailableError,
)

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, SessionOptions

    from sgraf_deploy.bundle.bundle import Bundle

PROVIDER = "CPUExecutionProvider"

EXECUTED = {"fp32": "fp32", "fp16": "fp32 arithmetic on an fp16 graph"}
"""ONNX Runtime has no float16 kernels for a CPU: it converts around every operator."""

_OUT_OF_MEMORY = ("bad_alloc", "Failed to allocate memory", "bad allocation", "out of memory")
_TYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int32)": "int32"}
_FATAL_ONLY = 4
"""A severity of ONNX Runtime, whose errors reach the caller as exceptions instead."""


class OrtEngine(Engine):
    """ONNX Runtime on the CPU; each session may be run by several threads.

    A tile is scored by one thread, and every thread scores a tile: there is nothing to wait for
    within a graph, and a tile's intermediates stay in one core's cache.
    """

    name = "ort"

    def __init__(self, bundle: Bundle, precision: Precision, options: EngineOptions) -> None:
        """Take the graphs of `bundle` in `precision`; InputError for a device but the CPU."""
        self.check_available("cpu")
        if options.device not in (None, "cpu"):
            raise InputError(
                f"engine {self.name}: device",
                expected="cpu",
                got=options.device,
                hint="on a GPU use --engine ort-cuda",
            )
        super().__init__(bundle, precision, options)
        self.executed = EXECUTED[precision]
        self.workers = options.threads or processors()

    @classmethod
    def check_available(cls, device: str) -> None:
        """Raise UnavailableError where ONNX Runtime cannot be imported."""
        import_onnxruntime()

    def _open(self, member: str, graph: GraphName) -> Graph:
        path = self._bundle.graph_path(member, graph, self._precision)
        signature = self.signature(member, graph)
        if "scorer" in graph:
            return OrtGraph(path, signature, threads=1, arena=True)
        return OrtGraph(path, signature, self.workers)

    def explainer(self, member: str) -> Graph | None:
        """The bundle's graph; None for a bundle without it."""
        found = self._bundle.manifest.explain.get(member)
        if found is None:
            return None

        def opening() -> Graph:
            return OrtGraph(self._bundle.file(found.ref), found.signature, self.workers)

        return self._opened((member, EXPLAIN), opening)


class OrtGraph(Graph):
    """One session of ONNX Runtime on the CPU."""

    def __init__(
        self, path: Path, signature: GraphSignature, threads: int, *, arena: bool = False
    ) -> None:
        """Open the ONNX file; BundleError if it is none or differs from `signature`.

        With `arena` the session keeps the memory of its largest run for the next.
        """
        super().__init__(signature)
        self._names = [spec.name for spec in signature.outputs]
        self._path = f"{path.parent.parent.name}/{path.parent.name}/{path.name}"
        self._session = _open_session(path, threads, arena)
        check_interface(self._session, signature, path)

    def _run(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], sizes: Sizes
    ) -> dict[str, Buffer]:
        with translated(self._path):
            if outputs:
                return self._run_bound(inputs, outputs)
            return dict(zip(self._names, self._session.run(self._names, dict(inputs)), strict=True))

    def _run_bound(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer]
    ) -> dict[str, Buffer]:
        binding = self._session.io_binding()
        for name, array in inputs.items():
            binding.bind_cpu_input(name, array)
        for name in self._names:
            bound = outputs.get(name)
            if bound is None:
                binding.bind_output(name)
            else:
                # ONNX Runtime writes through the address.
                binding.bind_output(name, "cpu", 0, bound.dtype, bound.shape, bound.ctypes.data)
        self._session.run_with_iobinding(binding)
        return {
            name: outputs[name] if name in outputs else value.numpy()
            for name, value in zip(self._names, binding.get_outputs(), strict=True)
        }


def processors() -> int:
    """The number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _open_session(path: Path, threads: int, arena: bool) -> InferenceSession:
    session = open_session(path, session_options(threads, arena), [PROVIDER])
    if session.get_providers() != [PROVIDER]:
        raise UnavailableError(
            f"ONNX Runtime opened {path} with other providers",
            expected=[PROVIDER],
            got=session.get_providers(),
            hint="pip install 'sgraf-deploy[cpu]'",
        )
    return session


def open_session(
    path: Path, options: SessionOptions, providers: Sequence[Any], module: Any = None
) -> InferenceSession:
    """A session with these providers; BundleError for a file that ONNX Runtime cannot open."""
    onnxruntime, native = import_onnxruntime(), import_state()
    try:
        session: InferenceSession = (module or onnxruntime).InferenceSession(
            str(path), options, providers=list(providers)
        )
    except (
        native.Fail,
        native.InvalidArgument,
        native.InvalidGraph,
        native.InvalidProtobuf,
        native.NoSuchFile,
        native.NotImplemented,
        native.RuntimeException,
    ) as error:
        raise BundleError(
            f"ONNX Runtime {onnxruntime.__version__} cannot open graph {path}",
            got=error,
            hint=EXPORT_AGAIN,
        ) from error
    return session


def check_interface(session: InferenceSession, signature: GraphSignature, path: Path) -> None:
    """Raise BundleError if a session's inputs and outputs are not the signature's."""
    for what, specs, found in (
        ("inputs", signature.inputs, session.get_inputs()),
        ("outputs", signature.outputs, session.get_outputs()),
    ):
        expected = [_described(spec.name, spec.dtype, spec.axes) for spec in specs]
        got = [_described(x.name, _TYPES.get(x.type, x.type), x.shape) for x in found]
        if expected != got:
            raise BundleError(
                f"{what} of graph {path}",
                expected="; ".join(expected),
                got="; ".join(got),
                hint=EXPORT_AGAIN,
            )


def session_options(threads: int, arena: bool) -> SessionOptions:
    """The options of a session on the CPU; `arena` as in `OrtGraph`."""
    options: SessionOptions = import_onnxruntime().SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.inter_op_num_threads = 1
    # Scorers run thousands of times: without an arena the system maps and clears their
    # intermediates each time, which takes as long as the run. Encoders would only keep memory
    # that is not needed later, and so would memory patterns, one for each of the many shapes.
    options.enable_cpu_mem_arena = arena
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads
    # Every session has its own threads: those of one must not spin while another runs.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _described(name: str, dtype: str, axes: Sequence[str | int]) -> str:
    return f"{name} {dtype} ({', '.join(map(str, axes))})"


@contextmanager
def translated(name: str) -> Iterator[None]:
    """Translate errors of ONNX Runtime while it runs a graph of that name."""
    native = import_state()
    try:
        yield
    except MemoryError as error:
        raise EngineMemoryError(f"graph {name} ran out of memory") from error
    except (RuntimeError, ValueError, native.Fail, native.RuntimeException) as error:
        raise _translated(name, error) from error
    except (native.InvalidArgument, native.NotImplemented, native.EPFail) as error:
        raise _translated(name, error) from error


def _translated(name: str, error: Exception) -> SgrafDeployError:
    """EngineMemoryError for an error that says so, else InputError."""
    text = str(error)
    if any(mark in text for mark in _OUT_OF_MEMORY):
        return EngineMemoryError(f"graph {name} ran out of memory", got=text)
    return InputError(f"ONNX Runtime refused to run graph {name}", got=text)
