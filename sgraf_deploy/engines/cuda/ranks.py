"""Counts ranks on the GPU: tiles of logits stay there, and only the counts are fetched."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.buffers import Array
from sgraf_deploy.engines.cuda.api import Cuda, RankTile
from sgraf_deploy.engines.cuda.lanes import Lane
from sgraf_deploy.engines.cuda.memory import DeviceArray
from sgraf_deploy.engines.ranks import RankCounter, Thresholds, not_finite
from sgraf_deploy.engines.tallies import ModelTally, Touched


class Device(Protocol):
    """What the counter uses of `GpuArrays`."""

    cuda: Cuda

    def lane(self) -> Lane:
        """The calling thread's lane."""

    def put(self, array: Array) -> DeviceArray:
        """Copy a host array to the device."""

    def fetch(self, buffer: DeviceArray) -> Array:
        """Wait for a buffer and copy it to the host."""


class DeviceRankCounter(RankCounter):
    """See `engines.ranks.RankCounter`.

    Every lane has its own counts, so that none waits for another.
    """

    def __init__(self, engine: Device, thresholds: Thresholds) -> None:
        super().__init__(thresholds)
        self._engine, self._models = engine, list(thresholds.images)
        self._per_image = thresholds.captions_per_image
        sides = (thresholds.images, thresholds.captions)
        self._sizes = tuple(len(side[self._models[0]]) for side in sides)
        self._thresholds = [
            engine.put(np.stack([side[name] for name in self._models])) for side in sides
        ]
        self._counts: dict[Lane, list[DeviceArray]] = {}
        self._lock = threading.Lock()

    def add(
        self, first_image: int, columns: NDArray[np.int32], logits: Mapping[str, DeviceArray]
    ) -> None:
        """Put the comparison of a tile into the lane's stream."""
        engine, tiles = self._engine, list(logits.values())
        lane = engine.lane()
        with lane:
            counts = self._of(lane)
            places = lane.put(columns)
            pointers = lane.put(np.array([each.pointer for each in tiles], np.uint64))
            images, captions = tiles[0].shape
            tile = RankTile(
                logits=pointers.pointer,
                members=len(tiles),
                columns=places.pointer,
                image_thresholds=self._thresholds[0].pointer,
                caption_thresholds=self._thresholds[1].pointer,
                image_counts=counts[0].pointer,
                caption_counts=counts[1].pointer,
                wrong=counts[2].pointer,
                first_image=first_image,
                images=images,
                captions=captions,
                all_images=self._sizes[0],
                all_captions=self._sizes[1],
                captions_per_image=self._per_image,
            )
            call = partial(engine.cuda.count_ranks, tile, lane.stream)
            lane.enqueue(call, reads=(*tiles, pointers, places, *self._thresholds), writes=counts)

    def tallies(self, touched: Touched) -> dict[str, ModelTally]:
        """Wait for the counts of all lanes; DataError if a logit was not finite."""
        found = [[self._engine.fetch(each) for each in lane] for lane in self._counts.values()]
        for _, _, wrong in found:
            if wrong.any():
                raise not_finite(int(wrong[0]) - 1, int(wrong[1]))
        images, captions = (
            np.stack([lane[side] for lane in found]).sum(axis=0, dtype=np.int64) for side in (0, 1)
        )  # (models, 2, images) and (models, 2, captions)
        return {
            name: self._given.exact_tally(name, touched, image[0], caption[0], image[1], caption[1])
            for name, image, caption in zip(self._models, images, captions, strict=True)
        }

    def _of(self, lane: Lane) -> list[DeviceArray]:
        """A lane's counts by image and by caption, and its logit that is not finite."""
        with self._lock:
            found = self._counts.get(lane)
            if found is None:
                models = len(self._models)
                shapes = *((models, 2, size) for size in self._sizes), (2,)
                found = [lane.put(np.zeros(shape, np.int32)) for shape in shapes]
                self._counts[lane] = found
        return found
