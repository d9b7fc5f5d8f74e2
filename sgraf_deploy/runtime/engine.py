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

from sgraf_deploy.config import GraphName, GraphSignature, Precision
from sgraf_deploy.errors import InputError, UnavailableError

if TYPE_CHECKING:
    from sgraf_deploy.bundle import Bundle

Array = NDArray[Any]
Buffer = Any
"""An array on an engine's device; only the engine that made it knows what it is."""


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is opened with.

    `threads` bounds the CPU threads that score (None: the engine's own choice). `checkpoints`
    are files that stand in for `reference/` in a bundle that was exported without it.
    """

    threads: int | None = None
    device: str | None = None
    checkpoints: tuple[Path, ...] = ()


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

    def open(self, member: str, graph: GraphName) -> Graph:
        """Open a member's graph (`sgr` or `saf`); a second call returns the same one."""

    def put(self, array: Array) -> Buffer:
        """Bring a host array onto the device, where it stays until nothing refers to it.

        An engine whose device is the host may keep the array itself: who puts it no longer
        writes to it, and an empty one that outputs are bound to is not copied.
        """

    def gather(self, buffer: Buffer, rows: slice | NDArray[np.int32]) -> Buffer:
        """Rows of a resident buffer.

        A slice (of step 1) gives a view, to which an output may be bound; indices of any shape
        give a copy of shape rows.shape + row shape. Indices are in range.
        """

    def fetch(self, buffer: Buffer) -> Array:
        """Wait for a buffer and return it as a host array."""

    def close(self) -> None:
        """Release sessions, weights and device memory."""


@dataclass(frozen=True)
class EngineEntry:
    """How to import an engine, and what its user installs to have it."""

    target: str
    """`module:class`; the class takes (bundle, precision, options)."""
    install: str
    purpose: str


ENGINES: dict[str, EngineEntry] = {
    "ort": EngineEntry(
        "sgraf_deploy.runtime.engines.ort:OrtEngine",
        "pip install 'sgraf-deploy[cpu]'",
        "ONNX Runtime on the bundle's graphs",
    ),
    "torch": EngineEntry(
        "sgraf_deploy.model.engines:TorchEngine",
        "pip install 'sgraf-deploy[torch]'",
        "the exact rewrites in PyTorch, batched",
    ),
    "torch-reference": EngineEntry(
        "sgraf_deploy.model.engines:ReferenceEngine",
        "pip install 'sgraf-deploy[torch]'",
        "the literal per-caption loop in PyTorch, slow: the yardstick",
    ),
    "fused": EngineEntry(
        "sgraf_deploy.model.fused.engine:FusedEngine",
        "pip install 'sgraf-deploy[fused]'",
        "scorers as Triton kernels, unconfirmed on a GPU",
    ),
}

PLANNED = {"trt": "this version builds TensorRT engines, but runs none yet"}
"""Engines that people ask for and that do not exist; why."""

_INSTEAD = "install ONNX Runtime, pip install 'sgraf-deploy[cpu]', and take --engine ort"

AUTO_ORDER = ("ort", "torch")
"""`auto` takes the first of these that is available, fastest first."""


def unavailable_reason(name: str) -> str | None:
    """Why the engine cannot be used on this machine, or None if it can."""
    try:
        module, attribute = ENGINES[name].target.split(":")
        reason: str | None = getattr(importlib.import_module(module), attribute).unavailable()
    except UnavailableError as error:
        return str(error)
    except ImportError as error:
        return f"Python cannot import {error.name or error}"
    except OSError as error:  # a package is there, but not a library that it loads
        return str(error)
    return reason


def open_engine(name: str, bundle: Bundle, precision: Precision, options: EngineOptions) -> Engine:
    """Open the engine called `name` (or `auto`) on a bundle.

    Raises InputError for an unknown name and UnavailableError, with the command that installs
    what is missing, for one that does not work here.
    """
    name = check_engine(name)
    module, attribute = ENGINES[name].target.split(":")
    engine: Engine = getattr(importlib.import_module(module), attribute)(bundle, precision, options)
    return engine


def check_engine(name: str) -> str:
    """The name of an engine that works here; of the fastest for `auto`.

    Raises as `open_engine`.
    """
    if name == "auto":
        return choose_engine()
    if name in PLANNED:
        raise UnavailableError(f"engine {name} is not available: {PLANNED[name]}", mend=_INSTEAD)
    if name not in ENGINES:
        raise InputError("engine", expected=["auto", *ENGINES], got=name)
    reason = unavailable_reason(name)
    if reason is not None:
        raise UnavailableError(
            f"engine {name} is not available: {reason}", mend=ENGINES[name].install
        )
    return name


def choose_engine() -> str:
    """The fastest engine that is available here; UnavailableError if there is none."""
    for name in AUTO_ORDER:
        if unavailable_reason(name) is None:
            return name
    raise UnavailableError("no engine is available", mend=ENGINES[AUTO_ORDER[0]].install)
