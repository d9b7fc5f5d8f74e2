"""Photographs for a scorer: the bundle's extractor, and regions batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.features.base import RegionExtractor
from sgraf_deploy.features.decode import Source
from sgraf_deploy.features.photographs import extract_photos
from sgraf_deploy.features.spec import bundle_extractor
from sgraf_deploy.progress import Progress


class LazyExtractor:
    """A bundle's extractor, opened when it is first asked for; threads may share it."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._lock = Lock()
        self._opened: RegionExtractor | None = None

    def get(self) -> RegionExtractor:
        """The extractor; BundleError, and others of `bundle_extractor`, where it cannot be had."""
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


def reader_of(
    extractor: RegionExtractor, photos: Sequence[Source], progress: Progress | None
) -> Callable[[slice], NDArray[Any]]:
    """What gives the regions of some of the photographs, and tells the progress over all of them.

    A batch that has to be halved is extracted again, and not counted again.
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

        return extract_photos(extractor, chosen, rows.start, done).features.regions

    return read
