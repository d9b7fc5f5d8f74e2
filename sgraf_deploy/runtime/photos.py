"""Photographs for a scorer: the bundle's extractor, and regions batch by batch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import Manifest
from sgraf_deploy.config import MAX_PIXELS
from sgraf_deploy.data.channels import ChannelSums
from sgraf_deploy.data.foreign_channels import channel_findings
from sgraf_deploy.errors import RegionsWarning
from sgraf_deploy.features.base import RegionExtractor
from sgraf_deploy.features.decode import Source
from sgraf_deploy.features.photographs import Unread, extract_photos
from sgraf_deploy.progress import Progress
from sgraf_deploy.runtime.tokens import callers_level


class LazyExtractor:
    """A bundle's extractor, opened when it is first asked for; threads may share it."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._lock = Lock()
        self._opened: RegionExtractor | None = None

    def get(self) -> RegionExtractor:
        """The extractor; BundleError, and others of `bundle_extractor`, where it cannot be had."""
        from sgraf_deploy.features.spec import bundle_extractor

        with self._lock:
            if self._opened is None:
                self._opened = bundle_extractor(self._bundle)
            return self._opened

    def close(self) -> None:
        """Release the models, if they were opened."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
            self._opened = None


class ForeignWatch:
    """Warns, once, if regions that are extracted are unlike those that the models know.

    An extractor makes what its recipe says, which may not be what the models were trained on.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._statistics = manifest.region_statistics
        self._sums = ChannelSums(manifest.img_dim)
        self._told = False

    def add(self, regions: NDArray[Any]) -> NDArray[Any]:
        """Look at regions (images, regions, img_dim), which are returned."""
        self._sums.add(regions)
        return regions

    def warn(self) -> None:
        """Give a RegionsWarning if what was added is of another kind; nothing the second time."""
        if self._told or not self._sums.images:
            return
        for finding in channel_findings(self._sums.channels, self._statistics):
            self._told = True
            warnings.warn(finding.message, RegionsWarning, stacklevel=callers_level())


def reader_of(
    extractor: RegionExtractor,
    photos: Sequence[Source],
    progress: Progress | None,
    look: Callable[[NDArray[Any]], NDArray[Any]] = lambda regions: regions,
    unread: Unread | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Callable[[slice], NDArray[Any]]:
    """What gives the regions of some of the photographs, and tells the progress over all of them.

    `look` is called with those of photographs that could be read; one that could not has zeros, if
    there is `unread`. A batch that has to be halved is extracted again, and not counted again.
    """
    lock, told = Lock(), 0

    def read(rows: slice) -> NDArray[np.float32]:
        nonlocal told
        chosen = photos[rows]
        ahead = rows.start

        def done() -> None:
            nonlocal told, ahead
            with lock:
                ahead += 1
                if ahead > told:
                    told = ahead
                    if progress is not None:
                        progress(told, len(photos))

        found = extract_photos(extractor, chosen, rows.start, done, unread, max_pixels)
        regions = look(found.features.regions)
        filled = np.zeros((len(chosen), *regions.shape[1:]), np.float32)
        filled[found.rows] = regions
        return filled

    return read
