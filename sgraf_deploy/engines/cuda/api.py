"""The part of CUDA that the GPU engines use, as an interface that tests implement without a GPU.

Pointers are integers; streams, events and captured graphs are opaque to whoever uses them. Only
`synchronize` waits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Stream = Any
Event = Any
CapturedGraph = Any


@dataclass(frozen=True)
class Gather:
    """A copy of rows, `row_bytes` bytes each: target row i becomes source row `index[i]`.

    `source`, `index` (rows,) int32 and `target` point to device memory that does not overlap.
    """

    source: int
    index: int
    target: int
    rows: int
    row_bytes: int


@dataclass(frozen=True)
class RankTile:
    """A tile of every member's logits, the thresholds of its queries, and the counts to add to.

    These are pointers to device memory: `logits` to `members` pointers, each to (images, captions)
    float32; `columns` (captions,) int32, the captions' places among `all_captions`;
    `image_thresholds` (models, all_images) and `caption_thresholds` (models, all_captions) float32;
    `image_counts` (models, 2, all_images) and `caption_counts` (models, 2, all_captions) int32, how
    many candidates are no worse than the threshold, and how many equal it; `wrong` (2,) int32, the
    image plus 1 and the caption of a logit that is not finite. The models are the members and, of
    several, their ensemble.
    """

    logits: int
    members: int
    columns: int
    image_thresholds: int
    caption_thresholds: int
    image_counts: int
    caption_counts: int
    wrong: int
    first_image: int
    images: int
    captions: int
    all_images: int
    all_captions: int
    captions_per_image: int


class Cuda(Protocol):
    """One GPU.

    A thread calls `activate` before anything else. Only the methods that free and destroy, and
    `synchronize`, may be called by any thread at any time, also during a garbage collection. After
    the GPU was released, as at the end of the interpreter, they do nothing. Those that free and
    destroy raise nothing.
    """

    name: str
    compute_capability: str
    """Such as `9.0`."""

    def activate(self) -> None:
        """Make the GPU the calling thread's."""

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and bytes in all."""

    def allocate(self, size: int) -> int:
        """Device memory; EngineMemoryError if there is not enough."""

    def free(self, pointer: int) -> None:
        """Free device memory, which nothing uses any more."""

    def allocate_pinned(self, size: int) -> Bytes:
        """Page-locked host memory, for asynchronous copies; EngineMemoryError if there is none."""

    def free_pinned(self, memory: Bytes) -> None:
        """Free pinned host memory."""

    def create_stream(self) -> Stream:
        """A stream: a queue of work on the GPU."""

    def destroy_stream(self, stream: Stream) -> None:
        """Destroy a stream that is empty."""

    def create_event(self) -> Event:
        """An event: a mark that a stream can pass."""

    def destroy_event(self, event: Event) -> None:
        """Destroy an event."""

    def record(self, event: Event, stream: Stream) -> None:
        """Put the event behind everything that is in the stream now."""

    def passed(self, event: Event) -> bool:
        """Whether the stream has passed the event."""

    def wait(self, stream: Stream, event: Event) -> None:
        """Let the stream's later work begin only once the event is passed; returns at once."""

    def synchronize(self, event: Event) -> None:
        """Wait until the event is passed."""

    def upload(self, target: int, source: Bytes, stream: Stream) -> None:
        """Copy pinned host memory to the device."""

    def download(self, target: Bytes, source: int, stream: Stream) -> None:
        """Copy device memory to pinned host memory."""

    def gather(self, gather: Gather, stream: Stream) -> None:
        """Copy rows on the device."""

    def count_ranks(self, tile: RankTile, stream: Stream) -> None:
        """Compare a tile with its thresholds, and add to the counts."""

    def begin_capture(self, stream: Stream) -> None:
        """Collect what this thread puts into the stream, instead of running it.

        `end_capture` or `abandon_capture` must follow. Raises DeviceError where it cannot begin.
        """

    def end_capture(self, stream: Stream) -> CapturedGraph:
        """The captured graph, ready to be launched; the stream is as it was before.

        Raises DeviceError where a call that may not be captured invalidated it, or where it cannot
        be made ready; nothing of it is then left.
        """

    def abandon_capture(self, stream: Stream) -> None:
        """End a capture and drop what was collected; raises nothing."""

    def launch(self, graph: CapturedGraph, stream: Stream) -> None:
        """Run a captured graph, at the addresses that it was captured with."""

    def destroy_graph(self, graph: CapturedGraph) -> None:
        """Destroy a captured graph."""
