"""Images' rows that stay on a scorer's device, so that those asked for again are not read again."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from sgraf_deploy.engines.buffers import Buffer
from sgraf_deploy.errors import InputError
from sgraf_deploy.gallery.opened import Opened
from sgraf_deploy.gallery.rows import Arrays, check_scorer, origin_of, taken_dtype
from sgraf_deploy.runtime.encoded import EncodedImages, ImageBuffers
from sgraf_deploy.runtime.origin import Origin
from sgraf_deploy.runtime.scorer import Scorer

ResidentBytes = int | Literal["all"]

_SPARE = 8
"""With `all`, there is room for an eighth more images than there are."""


class Resident:
    """The rows of the images that were asked for last, by scorer, in a fixed number of bytes."""

    def __init__(self, limit: ResidentBytes) -> None:
        """Take the bytes for each scorer; nothing is read yet."""
        if limit != "all" and limit < 1:
            raise InputError("resident", expected="a positive number of bytes, or all", got=limit)
        self._limit = limit
        self._lock = threading.Lock()
        self._pools: weakref.WeakKeyDictionary[Scorer, _Pool] = weakref.WeakKeyDictionary()
        self.hits = self.misses = 0

    def images(
        self, scorer: Scorer, opened: Opened, txn: Any, keys: Sequence[bytes]
    ) -> EncodedImages:
        """The images of some ids, copied on the device; those that are not there yet are read."""
        check_scorer(scorer, opened.path, opened.header, "images")
        numbers = opened.numbers(txn, keys)
        wanted = dict(zip(numbers, keys, strict=True))
        with self._lock:
            pool = self._pool(scorer, opened, txn, len(wanted))
            missing = [number for number in wanted if number not in pool.slots]
            self.hits += len(wanted) - len(missing)
            self.misses += len(missing)
            if missing:
                keys = [wanted[number] for number in missing]
                arrays, _, _ = opened.gather(txn, keys, missing)
                try:
                    pool.take(missing, arrays, wanted)
                except BaseException:
                    del self._pools[scorer]  # some slots have neither their former rows nor others
                    raise
            return pool.images(numbers)

    def _pool(self, scorer: Scorer, opened: Opened, txn: Any, wanted: int) -> _Pool:
        """The scorer's pool of this file; a new one where the file was replaced or outgrew it."""
        pool, count = self._pools.get(scorer), opened.count(txn)
        if pool is not None and pool.opened is opened and pool.fits(self._limit, count, wanted):
            return pool
        self._pools.pop(scorer, None)
        del pool  # its memory is free before new memory is taken
        origin = origin_of(scorer, opened.header)
        dtypes = {
            member: {name: taken_dtype(origin, opened.header, member, name) for name in specs}
            for member, specs in opened.header.rows.items()
        }
        size = sum(
            int(np.prod(opened.header.rows[member][name].shape)) * dtype.itemsize
            for member, named in dtypes.items()
            for name, dtype in named.items()
        )
        capacity = count + count // _SPARE if self._limit == "all" else self._limit // size
        if capacity < wanted:
            raise InputError(
                "resident",
                expected=f"at least {wanted * size} bytes for the {wanted} images of a call",
                got=self._limit,
            )
        made = self._pools[scorer] = _Pool.make(origin, opened, dtypes, max(1, capacity))
        return made


@dataclass(eq=False)
class _Pool:
    """Buffers with a slot for each image, and which record is in which slot, oldest use first."""

    origin: Origin
    opened: Opened
    capacity: int
    dtypes: dict[str, dict[str, np.dtype[Any]]]
    buffers: dict[str, dict[str, Buffer]] = field(repr=False)
    slots: OrderedDict[int, int] = field(default_factory=OrderedDict)

    @classmethod
    def make(
        cls,
        origin: Origin,
        opened: Opened,
        dtypes: dict[str, dict[str, np.dtype[Any]]],
        capacity: int,
    ) -> _Pool:
        """Take the memory on the device; raises EngineMemoryError."""
        buffers = {
            member: {
                name: origin.engine.empty(
                    (capacity, *opened.header.rows[member][name].shape), dtype
                )
                for name, dtype in named.items()
            }
            for member, named in dtypes.items()
        }
        return cls(origin, opened, capacity, dtypes, buffers)

    def fits(self, limit: ResidentBytes, count: int, wanted: int) -> bool:
        """Whether it has room for a call's images, and with `all` for every image there is."""
        return self.capacity >= (count if limit == "all" else wanted)

    def take(self, numbers: Sequence[int], arrays: Arrays, keep: dict[int, bytes]) -> None:
        """Put the rows of records into free slots, or in place of those that were used least."""
        for number in keep:
            if number in self.slots:
                self.slots.move_to_end(number)
        free = list(range(len(self.slots), self.capacity))[: len(numbers)]
        while len(free) < len(numbers):
            free.append(self.slots.popitem(last=False)[1])
        places = np.array(free, np.int64)
        runs = np.flatnonzero(np.diff(places, prepend=-2, append=-2) != 1).tolist()
        for member, named in arrays.items():
            for name, array in named.items():
                buffer = self.buffers[member][name]
                for first, last in pairwise(runs):
                    start = int(places[first])
                    view = self.origin.engine.gather(buffer, slice(start, start + last - first))
                    rows = array[first:last].astype(self.dtypes[member][name], copy=False)
                    self.origin.engine.fill(view, rows)
        self.slots.update(zip(numbers, free, strict=True))

    def images(self, numbers: Sequence[int]) -> EncodedImages:
        """Copies of records' rows on the device, in this order."""
        for number in numbers:
            self.slots.move_to_end(number)
        rows = np.array([self.slots[number] for number in numbers], np.int32)
        gather = self.origin.engine.gather
        members = {
            member: ImageBuffers(**{name: gather(buffer, rows) for name, buffer in named.items()})
            for member, named in self.buffers.items()
        }
        return EncodedImages(self.origin, members, len(numbers))
