"""Extracts the regions of photographs in parts, with several jobs at a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from sgraf_deploy.config import MAX_PIXELS
from sgraf_deploy.errors import DataError
from sgraf_deploy.features.base import Features, Picture, RegionExtractor
from sgraf_deploy.features.decode import decode
from sgraf_deploy.features.parts import PART, Part, Stored, done_parts
from sgraf_deploy.features.paths import Photo
from sgraf_deploy.features.photographs import Skipped, extract_picture, in_threads
from sgraf_deploy.progress import Progress

STAGES = ("decode", "extract", "write")

_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class FeatureOptions:
    """How features are stored, and what happens with photographs that cannot be read.

    `jobs` photographs are worked on at a time. `on_error` `stop` raises the error of the first
    photograph that cannot be read, `skip` leaves it out. `resume` goes on with kept work, `force`
    replaces a split.
    """

    dtype: Stored = "float32"
    jobs: int = 1
    on_error: Literal["skip", "stop"] = "skip"
    max_pixels: int = MAX_PIXELS
    resume: bool = False
    force: bool = False


DEFAULTS = FeatureOptions()


@dataclass
class Extraction:
    """The work on some photographs, which several threads share.

    `present` photographs were done before. `seconds` is the time of all jobs in each of `STAGES`.
    """

    photos: Sequence[Photo]
    extractor: RegionExtractor
    options: FeatureOptions
    work: Path
    progress: Progress
    step: Callable[[str], None]
    clock: Callable[[], float] = time.perf_counter
    present: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    _done: int = 0
    _total: int = 0
    _stopped: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def parts(self) -> int:
        """The number of parts."""
        return -(-len(self.photos) // PART)

    def run(self) -> None:
        """Do the parts that are not there; after an error none begins any more."""
        there = done_parts(self.work, self.parts)
        missing = [number for number, done in enumerate(there) if not done]
        self._total = sum(map(len, map(self._photos, missing)))
        self.present = len(self.photos) - self._total
        self.progress(0, self._total)
        in_threads(self._run_part, missing, self.options.jobs, self._stop)

    def _stop(self) -> None:
        self._stopped = True

    def _photos(self, number: int) -> Sequence[Photo]:
        return self.photos[number * PART : (number + 1) * PART]

    def _run_part(self, number: int) -> None:
        """Extract a part and write it; nothing where another job has failed."""
        rows, skipped, sizes, found = [], [], [], []
        for place, photo in enumerate(self._photos(number)):
            if self._stopped:
                return
            try:
                picture = self._decode(photo)
            except DataError as error:
                if self.options.on_error == "stop":
                    raise error.at(photo.path) from error
                skipped.append(Skipped.of(photo.id, error))
            else:
                rows.append(number * PART + place)
                found.append(self._extract(photo, picture))
                height, width = picture.shape[:2]
                sizes.append((width, height))
            self._report()
        begin = self.clock()
        part = Part.of(self.extractor, self.options.dtype, rows, found, sizes, skipped)
        part.write(self.work, number)
        self._add("write", begin)
        self.step("part")

    def _decode(self, photo: Photo) -> Picture:
        begin, decoding = self.clock(), self.extractor.spec.decoding
        picture = decode(photo.path, decoding, self.options.max_pixels)
        self._add("decode", begin)
        return picture

    def _extract(self, photo: Photo, picture: Picture) -> Features:
        begin = self.clock()
        features = extract_picture(self.extractor, picture, photo.path)
        self._add("extract", begin)
        _check_values(features, photo, self.options.dtype)
        return features

    def _add(self, stage: str, since: float) -> None:
        """Add the time since then to a stage."""
        now = self.clock()
        with self._lock:
            self.seconds[stage] += now - since

    def _report(self) -> None:
        with self._lock:
            self._done += 1
            self.progress(self._done, self._total)


def _check_values(features: Features, photo: Photo, dtype: Stored) -> None:
    """Raise DataError for regions that are not finite, or that float16 cannot hold."""
    largest = float(np.abs(features.regions).max())
    if not np.isfinite(largest):
        hint = "check the model: run it on this photograph alone"
        raise DataError(f"regions of {photo.id}", expected="finite numbers", hint=hint)
    if dtype == "float16" and largest > _LARGEST:
        raise DataError(
            f"regions of {photo.id}",
            expected=f"at most {_LARGEST:.0f}, the largest number of float16",
            got=f"{largest:.6g}",
            hint="use --dtype float32",
        )
