"""Photographs through an extractor, several at a time, with their sizes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.ort import processors
from sgraf_deploy.errors import DataError
from sgraf_deploy.features.base import Features, RegionExtractor
from sgraf_deploy.features.decode import Source, decode_photo

MOST_JOBS = 8
"""A decoded photograph may take 150 MB, and each job has one."""


@dataclass(frozen=True, eq=False)
class Extracted:
    """The features of photographs, and their `sizes` (photos, 2) int64: width and height."""

    features: Features
    sizes: NDArray[np.int64]


def extract_photos(
    extractor: RegionExtractor,
    photos: Sequence[Source],
    first: int = 0,
    done: Callable[[], object] = lambda: None,
) -> Extracted:
    """Decode photographs and extract their regions, in order; `done` is called after each.

    `first` is the number of the first one in messages about photographs without a name. No more
    than `MOST_JOBS` are decoded at a time. Raises DataError for one that cannot be read.
    """

    def one(place: int) -> tuple[Features, tuple[int, int]]:
        photo = photos[place]
        picture = decode_photo(photo, extractor.spec.decoding, name=name_of(photo, first + place))
        found = extractor.extract([picture])
        done()
        height, width = picture.shape[:2]
        return found, (width, height)

    if len(photos) < 2:
        results = [one(place) for place in range(len(photos))]
    else:
        jobs = min(MOST_JOBS, processors(), len(photos))
        with ThreadPoolExecutor(jobs, thread_name_prefix="photographs") as threads:
            futures = [threads.submit(one, place) for place in range(len(photos))]
            try:
                results = [future.result() for future in futures]
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
    features = [found for found, _ in results] or [extractor.extract([])]
    has_confidence = all(each.confidence is not None for each in features)
    return Extracted(
        Features(
            np.concatenate([each.regions for each in features]),
            np.concatenate([each.boxes for each in features]),
            np.concatenate([each.confidence for each in features if each.confidence is not None])
            if has_confidence
            else None,
        ),
        np.array([size for _, size in results], np.int64).reshape(-1, 2),
    )


def check_photos(photos: object) -> Sequence[Source]:
    """Return photographs as they came; DataError unless they are paths, bytes or uint8 arrays."""
    if isinstance(photos, np.ndarray) and photos.ndim == 4:
        photos = [*photos]
    if isinstance(photos, str | bytes) or not isinstance(photos, Sequence):
        raise DataError(
            "photos",
            expected="a list of paths, of files' bytes or of uint8 arrays (height, width, 3)",
            got=type(photos).__name__,
            hint="give [photo] for a single one",
        )
    for row, photo in enumerate(photos):
        if not isinstance(photo, str | bytes | os.PathLike | np.ndarray):
            raise DataError(
                f"photo {row} (counted from 0)",
                expected="a path, a file's bytes or a uint8 array (height, width, 3)",
                got=type(photo).__name__,
            )
    return photos


def name_of(photo: Source, row: int) -> str:
    """What messages call a photograph: its path, or its number."""
    if isinstance(photo, str | os.PathLike):
        return os.fspath(photo)
    return f"photo {row} (counted from 0)"
