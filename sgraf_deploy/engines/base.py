"""The one seam between the scorer and whatever runs the graphs.

An engine opens the graphs of one bundle in one precision, keeps arrays on its device, gathers
rows of them there and runs graphs on them without a copy to the host in between. Work may be
asynchronous: only `fetch` waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import GraphName, GraphSignature
from sgraf_deploy.engines.buffers import Array, Buffer
from sgraf_deploy.engines.ranks import RankCounter, Thresholds

Specialisation = Literal["lazy", "eager", "none"]


@dataclass(frozen=True)
class EngineOptions:
    """What an engine is opened with.

    `threads` bounds the CPU threads that score (None: the engine's own choice). `device` is `cpu`,
    `cuda` or `cuda:N`; `load` names one before it opens an engine (see `policy`). `checkpoints` are
    files that stand in for `reference/` in a bundle that was exported without it.
    `engine_dir` is where compiled plans are, if not in the bundle; one that this user never
    compared with the reference on this kind of GPU is opened only if `allow_unverified`, and
    compared then.
    """

    threads: int | None = None
    device: str | None = None
    checkpoints: tuple[Path, ...] = ()
    engine_dir: Path | None = None
    allow_unverified: bool = False
    cuda_graphs: bool = True
    """Whether engine `trt` captures a run that comes again, with the same shapes at the same
    addresses, as a CUDA graph, and launches that from then on. A run that cannot be captured goes
    on as it is, with one warning a graph of the bundle."""
    specialisation: Specialisation = "lazy"
    """When TensorRT for RTX compiles kernels for the very shapes of a run.

    `lazy`: in the background, while kernels for any shape run; `eager`: before the first run of new
    shapes, which waits for it; `none`: never. With `lazy` no run is captured, as a CUDA graph would
    hold the kernels of the moment. TensorRT itself compiles when it builds a plan.
    """

    def __repr__(self) -> str:
        """What is not as it is by default."""
        values = ((one.name, getattr(self, one.name), one.default) for one in fields(self))
        chosen = [f"{name}={value!r}" for name, value, default in values if value != default]
        return f"EngineOptions({', '.join(chosen)})"


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
    """Where buffers lie: `cpu` or `cuda:N`."""
    workers: int
    """How many runs of the scorers it wants at a time, each from a thread of its own."""

    @classmethod
    def check_available(cls, device: str) -> None:
        """Raise UnavailableError, with what puts it right, unless it works here on a device.

        The device is of a kind that its `EngineEntry` names. Nothing else is raised, and nothing
        large is allocated: `doctor` asks every engine.
        """

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

    def rank_counter(self, thresholds: Thresholds) -> RankCounter:
        """Counts on the device which candidates reach the thresholds of their queries."""

    def mark_verified(self) -> None:
        """Remember, for later uses as well, that everything was compared with the reference."""

    def device_memory(self) -> dict[str, int]:
        """Bytes on a GPU by purpose, `peak` among them; nothing for an engine on the host."""

    def close(self) -> None:
        """Release sessions, weights and device memory."""
