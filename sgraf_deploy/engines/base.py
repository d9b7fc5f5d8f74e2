"""The one seam between the scorer and whatever runs the graphs: `Engine` and `Graph`.

An engine opens the graphs of one bundle in one precision, keeps arrays on its device, gathers
rows of them there and runs graphs on them without a copy to the host in between. Work may be
asynchronous: only `fetch` waits.

Both are base classes. An engine whose arrays are NumPy's writes `check_available`, `_open` and its
graphs' `_run`; one on a GPU also overrides what puts arrays on the device and brings them back.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, ClassVar, Literal, final

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import MOST_THREADS, GraphName, GraphSignature, Precision
from sgraf_deploy.engines.bounds import ANY, Range
from sgraf_deploy.engines.buffers import HOST, Array, Buffer, BufferKind, InputCheck, Sizes
from sgraf_deploy.engines.ranks import HostRankCounter, RankCounter, Thresholds
from sgraf_deploy.errors import InputError

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle

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

    Example:
        >>> options = sgraf_deploy.EngineOptions(threads=2, device="cpu")
        >>> with sgraf_deploy.load("f8k.sgraf", engine="ort", options=options) as other:
        ...     other.score(regions, ["a man climbs a rock"]).shape
        (6, 1)
    """

    threads: int | None = None
    device: str | None = None
    checkpoints: tuple[Path, ...] = ()
    engine_dir: Path | None = None
    allow_unverified: bool = False
    cuda_graphs: bool = True
    """Whether engine `trt` captures a run that comes again, with the same shapes at the same
    addresses, as a CUDA graph, and launches that graph from then on. A run that cannot be captured
    is enqueued as usual, with one warning for each graph of the bundle."""
    specialisation: Specialisation = "lazy"
    """When TensorRT for RTX compiles kernels specialised for the shapes of a run.

    `lazy` compiles in the background, while kernels for any shape run; `eager` compiles before the
    first run of new shapes, which waits for it; `none` never does. With `lazy` no run is captured,
    because a CUDA graph would keep the kernels of that moment. TensorRT itself compiles when it
    builds a plan.
    """

    def __repr__(self) -> str:
        """The options that differ from their defaults."""
        values = ((each.name, getattr(self, each.name), each.default) for each in fields(self))
        chosen = [f"{name}={value!r}" for name, value, default in values if value != default]
        return f"EngineOptions({', '.join(chosen)})"


@dataclass(frozen=True)
class TileAdvice:
    """The tile sizes that suit an engine."""

    intermediate_bytes: int | None = 4 * 2**20
    """The largest size of a tile's intermediate, (images, captions * words, embed) float32, in
    bytes; None for tiles as large as the memory budget allows. The default is sized for a CPU's
    caches where each operator materialises its result: larger tiles spill out of them, smaller ones
    pay more overhead for calls."""
    smallest_share: int = 16
    """The fewest pairs of a tile where a small job is cut up for several threads."""
    smallest_flop: float = 0.0
    """The least work of such a tile in the local alignments, in floating-point operations."""
    words: int | None = None
    """The words of all captions of a tile together, for an engine that computes no padding: a tile
    then holds captions of any length. None for captions of similar length, padded to the longest.
    """
    tile_bytes: int = 2**30
    """The memory, in bytes, that one tile may take where the caller gives no budget."""
    encoder_bytes: int = 16 * 2**20
    """The memory, in bytes, that one batch of an encoder may take."""


CACHED_TILES, LARGEST_TILES = TileAdvice(), TileAdvice(intermediate_bytes=None)


def gpu_tiles(device_bytes: int) -> TileAdvice:
    """The tile sizes that suit a GPU of so much memory: large enough to keep it busy.

    Preparing a tile takes the host about a millisecond, in which an H100 scores some 20,000 pairs.
    """
    return replace(
        LARGEST_TILES,
        tile_bytes=min(8 * 2**30, device_bytes // 8),
        encoder_bytes=min(256 * 2**20, device_bytes // 64),
    )


_NOT_BOUND: Mapping[str, Buffer] = {}


class Graph(ABC):
    """One opened graph of one member. An engine's graph class writes `_run`."""

    kind: ClassVar[BufferKind] = HOST
    """What the engine's buffers are, so that they can be checked without a copy to the host."""
    also_float16: ClassVar[tuple[str, ...]] = ()
    """The inputs that may be float16 where the signature says float32: images as stored."""
    largest: tuple[Mapping[str, int], ...] = ()
    """The largest size of each dynamic axis, by profile; empty where any size is taken."""

    def __init__(self, signature: GraphSignature, *, ragged: GraphSignature | None = None) -> None:
        """Take the named inputs and outputs, in order, that every run is checked against.

        `ragged` is a second signature (`config.ragged_signature`) of a scorer that also takes
        captions without padding; a run is checked against it if it has `offsets`.
        """
        self.signature, self.ragged = signature, ragged
        self._check = InputCheck(signature, self.kind, self.also_float16)
        self._check_ragged = ragged and InputCheck(ragged, self.kind, self.also_float16)

    @final
    def run(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer] | None = None
    ) -> dict[str, Buffer]:
        """Run on device buffers by input name, and write into those of `outputs`, by output name.

        Returns every output by name, the bound buffers among them. Several threads may run one
        graph at the same time.

        Raises:
            InputError: inputs or outputs are not the signature's, in name, dtype, shape, layout or,
                for lengths and indices that the host knows, in range; or fit no profile.
            EngineMemoryError: the device's memory does not suffice; a smaller run may still fit.
        """
        ragged = self._check_ragged if "offsets" in inputs else None
        check = ragged or self._check
        sizes = check.inputs(inputs)
        if outputs:
            check.outputs(outputs, sizes)
        return self._run(inputs, outputs or _NOT_BOUND, sizes)

    @abstractmethod
    def _run(
        self, inputs: Mapping[str, Buffer], outputs: Mapping[str, Buffer], sizes: Sizes
    ) -> dict[str, Buffer]:
        """Run on buffers that were checked against the signature; returns every output by name.

        `outputs` are the buffers that the caller bound, none of them or some, and `sizes` the sizes
        of the dynamic axes by name. The library's errors are translated here: EngineMemoryError
        where its memory does not suffice, upon which the scorer goes on with smaller tiles.
        """

    def _named(self, results: Sequence[Buffer], outputs: Mapping[str, Buffer]) -> dict[str, Buffer]:
        """The results, in the signature's order, by name; those of bound outputs copied into them.

        For a library that returns its results instead of writing them where it is told to.
        """
        found = {}
        for spec, result in zip(self.signature.outputs, results, strict=True):
            bound = outputs.get(spec.name)
            if bound is not None:
                bound[...] = result
            found[spec.name] = result if bound is None else bound
        return found

    def close(self) -> None:  # noqa: B027  # most graphs hold nothing
        """Release what the graph holds; its engine calls this when nothing runs any more."""


class Engine(ABC):
    """Runs the graphs of one bundle in one precision on one device.

    A subclass sets `name` and `executed`, and writes `check_available` and `_open`. Everything else
    has a body that suits an engine on the host, whose buffers are NumPy arrays. An engine on a GPU
    also overrides `empty`, `put`, `gather`, `fetch`, and `rank_counter` and `device_memory`.
    """

    name: str
    """The engine's name in the registry."""
    executed: str
    """What the arithmetic really is, for reports: `fp32`, `fp16`, `fp16-rounded`, …"""
    device: str = "cpu"
    """Where buffers lie: `cpu` or `cuda:N`."""
    workers: int = 1
    """How many tiles the engine wants to be scored at a time, each from a thread of its own; 1 if
    one run uses every core, or the whole GPU, by itself."""
    exact_pairs: ClassVar[bool] = False
    """Whether a pair has the same bits alone, in any batch and in any tile, on the host.

    Members are then left out where they cannot change a result: see `runtime.pruning`.
    """

    def __init__(self, bundle: Bundle, precision: Precision, options: EngineOptions) -> None:
        """Take the graphs of `bundle` in `precision`; nothing is opened yet.

        Raises InputError for fewer than one thread, or more than MOST_THREADS.
        """
        if options.threads is not None and not 1 <= options.threads <= MOST_THREADS:
            what = f"engine {self.name}: threads"
            raise InputError(what, expected=f"1 … {MOST_THREADS}", got=options.threads)
        self._bundle, self._precision, self._options = bundle, precision, options
        self._graphs: dict[tuple[str, str], Graph] = {}
        self._opening = Lock()

    @classmethod
    @abstractmethod
    def check_available(cls, device: str) -> None:
        """Raise UnavailableError, with a hint at what puts it right, unless it works on a device.

        The device is `cpu` or `cuda:N`, of a kind that the engine's `EngineEntry` names. Nothing
        else is raised, and nothing large is allocated: `doctor` asks every engine.
        """

    @abstractmethod
    def _open(self, member: str, graph: GraphName) -> Graph:
        """Open a member's graph; called once for each, by one thread at a time.

        Raises BundleError for a file that is damaged or is not what the manifest says.
        """

    @property
    def tile_advice(self) -> TileAdvice:
        """The tile sizes that suit the engine; by default those that a CPU's caches hold."""
        return CACHED_TILES

    @property
    def checkpoints(self) -> tuple[Path, ...]:
        """The files that stand in for the bundle's original weights; see `EngineOptions`."""
        return self._options.checkpoints

    @property
    def unverified(self) -> bool:
        """Whether something that runs still has to be compared with the reference; by default no.

        `load` compares it, and calls `mark_verified`.
        """
        return False

    def mark_verified(self) -> None:  # noqa: B027  # for engines that are never unverified
        """Remember, for later uses too, that everything was compared with the reference."""

    def signature(self, member: str, graph: GraphName) -> GraphSignature:
        """The inputs and outputs that a member's graph has in the bundle."""
        return self._bundle.graph(member, graph, self._precision).signature

    def open(self, member: str, graph: GraphName) -> Graph:
        """A member's graph, opened when it is first asked for; later calls return the same one.

        Raises BundleError for a graph that is damaged or is not what the manifest says.
        """
        return self._opened((member, graph), lambda: self._open(member, graph))

    def explainer(self, member: str) -> Graph | None:
        """A member's graph `explain`, opened as by `open`; None where the engine does not run it.

        It is float32 in every precision. By default None: `explanation` then runs it on the CPU.
        """
        return None

    def logit_range(self, member: str) -> Range:
        """The logits that a member's scorers can give at all; by default any."""
        return ANY

    def _opened(self, key: tuple[str, str], opening: Callable[[], Graph]) -> Graph:
        found = self._graphs.get(key)
        if found is None:
            with self._opening:
                found = self._graphs.get(key)
                if found is None:
                    found = self._graphs[key] = opening()
        return found

    def largest(self, graph: GraphName) -> tuple[Mapping[str, int], ...]:
        """The largest size of each dynamic axis that every member's graph takes, by profile.

        Every run fits one of the profiles. Empty, as by default, where any size is taken.
        """
        return ()

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Buffer:
        """A buffer that outputs can be bound to; its values are arbitrary.

        Raises EngineMemoryError where there is no room on the device.
        """
        return np.empty(shape, dtype=dtype)

    def put(self, array: Array) -> Buffer:
        """Bring a host array onto the device, where it stays until nothing refers to it.

        An engine on the host may keep the array itself, so the caller no longer writes to it; by
        default it is copied only if it is not contiguous. Raises EngineMemoryError.
        """
        return np.ascontiguousarray(array)

    def gather(self, buffer: Buffer, rows: slice | NDArray[np.int32]) -> Buffer:
        """Rows of a resident buffer.

        A slice of step 1 gives a view, to which an output may be bound; indices of any shape, all
        of them in range, give a copy of shape rows.shape + row shape. Raises EngineMemoryError.
        """
        return buffer[rows] if isinstance(rows, slice) else np.take(buffer, rows, axis=0)

    def fill(self, buffer: Buffer, array: Array) -> None:
        """Copy a host array into a buffer of its shape and dtype, such as the view of a slice.

        What was gathered from it before keeps the former values; later gathers have the new ones.
        """
        buffer[...] = array

    def fetch(self, buffer: Buffer) -> Array:
        """Wait for a buffer and return it as a host array; by default it is one."""
        array: Array = buffer
        return array

    def rank_counter(self, thresholds: Thresholds) -> RankCounter:
        """What counts, tile by tile, the candidates that reach the thresholds of their queries.

        By default every tile is fetched and compared on the host.
        """
        return HostRankCounter(self.fetch, thresholds)

    def device_memory(self) -> dict[str, int]:
        """Bytes on a GPU by purpose, `peak` among them; by default none, for the host."""
        return {}

    def close(self) -> None:
        """Release graphs, and in a subclass weights and device memory; nothing runs any more."""
        with self._opening:
            graphs, self._graphs = self._graphs, {}
        for graph in graphs.values():
            graph.close()
