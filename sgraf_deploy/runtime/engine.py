"""The one seam between the scorer and whatever runs the graphs, and the registry of engines.

An engine opens the graphs of one bundle in one precision, keeps arrays on its device, gathers
rows of them there and runs graphs on them without a copy to the host in between. Work may be
asynchronous: only `fetch` waits.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import DEFAULT_PRECISIONS, PRECISIONS, GraphName, GraphSignature, Precision
from sgraf_deploy.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from sgraf_deploy.bundle import Bundle
    from sgraf_deploy.runtime.ranks import Bars, RankCounter

TENSORRT_INSTALL = (
    "pip install tensorrt, or for TensorRT for RTX "
    "pip install tensorrt-rtx-cu13-bindings onnxruntime-ep-nv-tensorrt-rtx-cu13"
)
CUDA_INSTALL = "pip install cuda-bindings 'cuda-toolkit[nvrtc]'"

Array = NDArray[Any]
Buffer = Any
"""An array on an engine's device; only the engine that made it knows what it is."""


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is opened with.

    `threads` bounds the CPU threads that score (None: the engine's own choice). `checkpoints`
    are files that stand in for `reference/` in a bundle that was exported without it.
    `engine_dir` is where compiled engines are, if not in the bundle; one that this user never
    compared with the reference on this kind of GPU is opened only if `allow_unverified`, and
    compared then.
    """

    threads: int | None = None
    device: str | None = None
    checkpoints: tuple[Path, ...] = ()
    engine_dir: Path | None = None
    allow_unverified: bool = False


@dataclass(frozen=True)
class TileAdvice:
    """The tiles that suit an engine.

    `intermediate_bytes` is what a tile's (images, captions * words, embed) float32 would take, None
    where tiles are as large as the memory budget allows. A small job is cut up for several threads,
    into tiles of no fewer pairs than `smallest_share`, and of no less work than `smallest_flop` in
    the local alignments.
    """

    intermediate_bytes: int | None = 4 * 2**20
    """By default what a CPU's caches hold of an engine that works operation by operation: larger
    tiles fall out of them, smaller ones cost calls."""
    smallest_share: int = 16
    smallest_flop: float = 0.0
    words: int | None = None
    """Of an engine that computes no padding: so many words of captions of any length, in all.

    None: captions of similar length, which are padded to the longest.
    """


CACHED_TILES, LARGEST_TILES = TileAdvice(), TileAdvice(intermediate_bytes=None)


class Graph(Protocol):
    """One opened graph of one member."""

    @property
    def signature(self) -> GraphSignature:
        """The named inputs and outputs, in order."""

    def run(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer] | None = None
    ) -> dict[str, Buffer]:
        """Run on device buffers by input name; write into `outputs` where one is bound.

        Several threads may run one graph at the same time. Raises EngineMemoryError when the
        device's memory does not suffice.
        """


class Engine(Protocol):
    """Runs the graphs of one bundle in one precision on one device."""

    name: str
    executed: str
    """What the arithmetic really is, for reports: `fp32`, `fp16`, `fp16-rounded`, …"""
    device: str
    workers: int
    """How many runs of the scorers it wants at a time, each from a thread of its own."""

    @property
    def tile_advice(self) -> TileAdvice:
        """The tiles that suit it."""

    @property
    def unverified(self) -> bool:
        """Whether something that it runs still has to be compared with the reference."""

    def open(self, member: str, graph: GraphName) -> Graph:
        """Open a member's graph (`sgr` or `saf`); a second call returns the same one."""

    def largest(self, graph: GraphName) -> tuple[Mapping[str, int], ...]:
        """The largest sizes by axis that a graph takes, one for each of its profiles.

        Nothing where any size is taken. Every run fits one of them.
        """

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """Room on the device for outputs to be bound to; its values are whatever was there."""

    def put(self, array: Array) -> Buffer:
        """Bring a host array onto the device, where it stays until nothing refers to it.

        An engine whose device is the host may keep the array itself: who puts it no longer
        writes to it.
        """

    def gather(self, buffer: Buffer, rows: slice | NDArray[np.int32]) -> Buffer:
        """Rows of a resident buffer.

        A slice (of step 1) gives a view, to which an output may be bound; indices of any shape
        give a copy of shape rows.shape + row shape. Indices are in range.
        """

    def fetch(self, buffer: Buffer) -> Array:
        """Wait for a buffer and return it as a host array."""

    def rank_counter(self, bars: Bars) -> RankCounter:
        """Counts on the device which candidates reach the bars of their queries."""

    def mark_verified(self) -> None:
        """Remember, for later uses as well, that everything was compared with the reference."""

    def device_memory(self) -> dict[str, int]:
        """Bytes on a GPU by purpose, `peak` among them; nothing for an engine on the host."""

    def close(self) -> None:
        """Release sessions, weights and device memory."""


@dataclass(frozen=True)
class EngineEntry:
    """How to import an engine, and what its user installs to have it."""

    target: str
    """`module:class`; the class takes (bundle, precision, options)."""
    install: str
    purpose: str
    precision: Precision = "fp32"
    """What it runs where nothing is said."""
    gpu: bool = False
    """Whether it runs on a GPU alone."""
    cpu: bool = False
    """Whether it runs on the CPU alone."""
    precisions: tuple[Precision, ...] = DEFAULT_PRECISIONS
    """What it can run."""


ENGINES: dict[str, EngineEntry] = {
    "native": EngineEntry(
        "sgraf_deploy.runtime.engines.native:NativeEngine",
        "pip install 'sgraf-deploy[cpu]'",
        "ONNX Runtime's encoders, and the scorer in C for the CPU's vector units",
        cpu=True,
        precisions=("fp32",),
    ),
    "ort": EngineEntry(
        "sgraf_deploy.runtime.engines.ort:OrtEngine",
        "pip install 'sgraf-deploy[cpu]'",
        "ONNX Runtime on the bundle's graphs",
        cpu=True,
    ),
    "torch": EngineEntry(
        "sgraf_deploy.model.engines:TorchEngine",
        "pip install 'sgraf-deploy[torch]'",
        "the exact rewrites in PyTorch, batched",
        precisions=PRECISIONS,
    ),
    "torch-reference": EngineEntry(
        "sgraf_deploy.model.engines:ReferenceEngine",
        "pip install 'sgraf-deploy[torch]'",
        "the literal per-caption loop in PyTorch, slow: the yardstick",
        precisions=("fp32",),
    ),
    "trt": EngineEntry(
        "sgraf_deploy.runtime.engines.trt:TrtEngine",
        f"{TENSORRT_INSTALL}; and {CUDA_INSTALL}",
        "TensorRT, or TensorRT for RTX, on engines that `compile` built",
        precision="fp16",
        gpu=True,
        precisions=PRECISIONS,
    ),
    "ort-cuda": EngineEntry(
        "sgraf_deploy.runtime.engines.ort_cuda:OrtCudaEngine",
        f"pip install onnxruntime-gpu; and {CUDA_INSTALL}",
        "ONNX Runtime's CUDA provider on the bundle's graphs",
        precision="fp16",
        gpu=True,
    ),
    "ort-trt": EngineEntry(
        "sgraf_deploy.runtime.engines.ort_cuda:OrtTensorrtEngine",
        f"pip install onnxruntime-gpu tensorrt; and {CUDA_INSTALL}",
        "ONNX Runtime's TensorRT provider on the bundle's graphs",
        precision="fp16",
        gpu=True,
    ),
    "fused": EngineEntry(
        "sgraf_deploy.model.fused.engine:FusedEngine",
        "pip install 'sgraf-deploy[fused]'",
        "scorers as Triton kernels, unconfirmed on a GPU",
        precision="fp16",
        gpu=True,
    ),
}

AUTO_ORDER = ("native", "ort", "torch")
"""`auto` takes the first of these that is available, fastest first."""


def unavailable(name: str) -> UnavailableError | None:
    """Why the engine cannot be used on this machine, and what mends it; None if it can."""
    entry = ENGINES[name]
    what = f"engine {name} is not available"
    try:
        module, attribute = entry.target.split(":")
        reason: str | None = getattr(importlib.import_module(module), attribute).unavailable()
    except UnavailableError as error:
        return UnavailableError(f"{what}: {error.reason}", mend=error.mend or entry.install)
    except ImportError as error:
        reason = f"Python cannot import {error.name or error}"
    except OSError as error:  # a package is there, but not a library that it loads
        reason = str(error)
    return None if reason is None else UnavailableError(f"{what}: {reason}", mend=entry.install)


def unavailable_reason(name: str) -> str | None:
    """Why the engine cannot be used on this machine, or None if it can."""
    error = unavailable(name)
    return None if error is None else error.reason.removeprefix(f"engine {name} is not available: ")


def default_precision(name: str) -> Precision:
    """What an engine runs where no precision is asked for; fp32 for `auto` and unknown names."""
    return ENGINES[name].precision if name in ENGINES else "fp32"


def open_engine(name: str, bundle: Bundle, precision: Precision, options: EngineOptions) -> Engine:
    """Open the engine called `name` (or `auto`) on a bundle.

    Raises InputError for an unknown name, and UnavailableError for a precision that it does not
    run and, with the command that installs what is missing, for one that does not work here.
    """
    name = check_engine(name, precision)
    known = ENGINES[name].precisions
    if precision not in known:
        raise UnavailableError(
            f"engine {name}",
            expected=f"precision {' or '.join(known)}",
            got=precision,
            mend="use --engine torch or, on a GPU, trt",
        )
    module, attribute = ENGINES[name].target.split(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)(bundle, precision, options)
    return engine


def check_engine(name: str, precision: Precision | None = None) -> str:
    """The name of an engine that works here; for `auto` of the fastest that runs the precision.

    Raises as `open_engine`.
    """
    if name == "auto":
        return choose_engine(precision)
    if name not in ENGINES:
        raise InputError("engine", expected=["auto", *ENGINES], got=name)
    error = unavailable(name)
    if error is not None:
        raise error
    return name


def choose_engine(precision: Precision | None = None) -> str:
    """The fastest engine that is available here, for a precision if one is given.

    Raises UnavailableError if there is none.
    """
    for name in AUTO_ORDER:
        runs = precision is None or precision in ENGINES[name].precisions
        if runs and unavailable_reason(name) is None:
            return name
    what = "no engine is available" + ("" if precision is None else f" that runs {precision}")
    raise UnavailableError(what, mend=ENGINES[AUTO_ORDER[0]].install)
