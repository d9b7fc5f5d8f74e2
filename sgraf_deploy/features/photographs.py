"""Photographs through an extractor, several at a time, with their sizes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import MAX_PIXELS
from sgraf_deploy.engines.ort import processors
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.features.base import Features, Picture, RegionExtractor
from sgraf_deploy.features.decode import Source, decode

MOST_JOBS = 8
"""A decoded photograph may take 150 MB, and each job has one."""


Item = TypeVar("Item")
Result = TypeVar("Result")
Unread = Callable[[int, DataError], object]
"""What is called with the number of a photograph that cannot be read, and the reason."""


@dataclass(frozen=True)
class Skipped:
    """A photograph without regions, by its id, and why."""

    id: str
    reason: str

    @classmethod
    def of(cls, id_: str, reason: DataError) -> Skipped:
        """A photograph with the reason as a line of a UTF-8 file can hold it."""
        return cls(id_, str(reason).encode("utf-8", "backslashreplace").decode())


def no_photograph(skipped: Sequence[Skipped]) -> DataError:
    """The error where all photographs were left out."""
    got = f"{len(skipped):,} that cannot, such as {skipped[0].id}: {skipped[0].reason}"
    return DataError("photographs", expected="at least one that can be read", got=got)


@dataclass(frozen=True, eq=False)
class Extracted:
    """The features of photographs, and their `sizes` (photos, 2) int64: width and height.

    `rows` (photos,) int64 are their places among those that were given, of which some may have been
    left out.
    """

    features: Features
    sizes: NDArray[np.int64]
    rows: NDArray[np.int64]


def extract_photos(
    extractor: RegionExtractor,
    photos: Sequence[Source],
    first: int = 0,
    done: Callable[[], object] = lambda: None,
    unread: Unread | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Extracted:
    """Decode photographs and extract their regions, in order; `done` is called after each.

    `first` is the number of the first one in messages about photographs without a name, and for
    `unread`: a photograph that cannot be read, such as one of more than `max_pixels`, is left out
    then, and its reason does not name it. No more than `MOST_JOBS` are decoded at a time. Raises
    DataError for one that cannot be read, without `unread`, and InputError for one in which the
    extractor finds no regions; both name it.
    """

    reasons: dict[int, DataError] = {}

    def one(place: int) -> tuple[int, Features, tuple[int, int]] | None:
        photo = photos[place]
        name = name_of(photo, first + place)
        try:
            picture = decode(photo, extractor.spec.decoding, max_pixels)
        except DataError as error:
            if unread is None:
                raise error.at(name) from error
            reasons[place] = error
            done()
            return None
        found = extract_picture(extractor, picture, name)
        done()
        height, width = picture.shape[:2]
        return place, found, (width, height)

    jobs = min(MOST_JOBS, processors(), len(photos))
    tried = in_threads(one, range(len(photos)), jobs)
    for place in sorted(reasons):
        if unread is not None:
            unread(first + place, reasons[place])
    results = [result for result in tried if result is not None]
    return Extracted(
        Features.joined([found for _, found, _ in results] or [extractor.extract([])]),
        np.array([size for *_, size in results], np.int64).reshape(-1, 2),
        np.array([place for place, *_ in results], np.int64),
    )


def in_threads(
    one: Callable[[Item], Result],
    items: Sequence[Item],
    jobs: int,
    stop: Callable[[], object] = lambda: None,
) -> list[Result]:
    """What a function gives for each item, in order, by so many threads where that helps.

    After an error no item is begun any more, and `stop` asks those that were to end; then the error
    of the first item that has one is raised.
    """
    if jobs < 2:
        return [one(item) for item in items]
    with ThreadPoolExecutor(jobs, thread_name_prefix="photographs") as threads:
        futures = [threads.submit(one, item) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            stop()
    return [future.result() for future in futures]


def extract_picture(extractor: RegionExtractor, picture: Picture, name: str | Path) -> Features:
    """The features of one picture, whose name is in front of an InputError of the extractor."""
    try:
        return extractor.extract([picture])
    except InputError as error:
        raise error.at(name) from error


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
