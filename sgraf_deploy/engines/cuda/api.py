"""What the GPU engines need of CUDA, as one interface that a test can implement without a GPU.

Pointers, streams, events and graphs are plain integers or whatever the implementation likes; only
it looks inside. Nothing here waits but `synchronize`.
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
    """Copy rows of `row_bytes` each: target row i becomes source row `index[i]`.

    `index` points at int32 row numbers on the device; the three memories do not overlap.
    """

    source: int
    index: int
    target: int
    rows: int
    row_bytes: int


@dataclass(frozen=True)
class RankTile:
    """A tile of logits, of any number of members, and what its candidates are compared with.

    All pointers to device memory. `logits`: as many pointers as there are `members`, each to
    (images, captions) float32; `columns`: (captions,) int32, the captions' places among
    `all_captions`. `image_bars` (models, all_images)
    and `caption_bars` (models, all_captions) float32, `image_counts` (models, 2, all_images) and
    `caption_counts` (models, 2, all_captions) int32: how many reach the threshold, and how many are
    level with it. The models are the members and, of several, the ensemble. `wrong`: two int32,
    the image plus 1 and the caption where a logit is not finite.
    """

    logits: int
    members: int
    columns: int
    image_bars: int
    caption_bars: int
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

    A thread calls `activate` before anything else, but whatever frees and destroys, and
    `synchronize`, may be called by any thread at any time: also by one that collects garbage, and
    when the GPU was let go of already, as at the end of the interpreter; they then do nothing.
    What frees and destroys raises nothing.
    """

    name: str
    compute_capability: str
    """`9.0`, …"""

    def activate(self) -> None:
        """Make the GPU the calling thread's."""

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and bytes in all."""

    def allocate(self, size: int) -> int:
        """Device memory; EngineMemoryError if there is not enough."""

    def free(self, pointer: int) -> None:
        """Give device memory back, which nothing uses any more."""

    def allocate_pinned(self, size: int) -> Bytes:
        """Host memory that copies need no detour for; EngineMemoryError if there is none."""

    def free_pinned(self, memory: Bytes) -> None:
        """Give it back."""

    def create_stream(self) -> Stream:
        """A queue of work on the GPU."""

    def destroy_stream(self, stream: Stream) -> None:
        """Drop a queue that is empty."""

    def create_event(self) -> Event:
        """A mark that a stream can pass."""

    def destroy_event(self, event: Event) -> None:
        """Drop a mark."""

    def record(self, event: Event, stream: Stream) -> None:
        """Put the mark behind everything that is in the stream now."""

    def passed(self, event: Event) -> bool:
        """Whether the stream has passed the mark."""

    def wait(self, stream: Stream, event: Event) -> None:
        """Let the stream's later work begin only once the mark is passed; returns at once."""

    def synchronize(self, event: Event) -> None:
        """Wait until the mark is passed."""

    def upload(self, target: int, source: Bytes, stream: Stream) -> None:
        """Copy pinned host memory to the device."""

    def download(self, target: Bytes, source: int, stream: Stream) -> None:
        """Copy device memory to pinned host memory."""

    def gather(self, gather: Gather, stream: Stream) -> None:
        """Copy rows on the device."""

    def count_ranks(self, tile: RankTile, stream: Stream) -> None:
        """Add a tile to the counts."""

    def begin_capture(self, stream: Stream) -> None:
        """Collect what this thread puts into the stream, instead of running it.

        DeviceError where that cannot begin. Then, `end_capture` or `abandon_capture` follows.
        """

    def end_capture(self, stream: Stream) -> CapturedGraph:
        """What was collected, ready to be launched.

        DeviceError where something that may not be captured invalidated it, or it cannot be
        launched; nothing of it is left then. The stream is as it was before, in any case.
        """

    def abandon_capture(self, stream: Stream) -> None:
        """End a capture, drop what was collected, and raise nothing."""

    def launch(self, graph: CapturedGraph, stream: Stream) -> None:
        """Run what was collected, at the same addresses."""

    def destroy_graph(self, graph: CapturedGraph) -> None:
        """Drop it."""
