"""The kept work of `folder`: a plan of what is extracted, and what is done of it, in parts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy import schema
from sgraf_deploy.data.files import read_lines
from sgraf_deploy.data.split_files import BOXES, IMAGES, NAMES, SIZES
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.features.base import Features, RegionExtractor
from sgraf_deploy.features.paths import Photo
from sgraf_deploy.features.photographs import Skipped, no_photograph
from sgraf_deploy.features.recipe import Recipe, differences
from sgraf_deploy.files.work import discard_work
from sgraf_deploy.files.writer import staged_file, write_file

Stored = Literal["float16", "float32"]

PART = 32
"""Photographs in a part: what each job loses when the process is killed."""

PLAN = "plan.json"
SKIPPED = "_skipped.txt"
"""How the name of the file of photographs without regions goes on after the split's name."""

_ARRAYS = {"sizes": SIZES, "boxes": BOXES, "regions": IMAGES}
"""The arrays of a part -> the ends of the names of their files; the features come last."""
_AGAIN = "repeat it without --resume and with --force, which extracts all anew"
_DOCUMENT = schema.Document("plan of kept work", InputError, _AGAIN, 2**31)


UNREACHABLE = (-1, 0)
"""The bytes and the time of a file that is not there, such as what a broken link leads to."""


@dataclass(frozen=True)
class PlannedPhoto:
    """A photograph as its file was: a file that has changed since has other values."""

    id: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class Plan:
    """All that decides the bytes of the files that are written: kept work is gone on with only
    where its plan is the same. `recipe` holds the regions of the reference picture, too, as they
    were when the work was begun."""

    schema_version: Literal[1]
    recipe: Recipe
    dtype: Stored
    max_pixels: int
    photos: tuple[PlannedPhoto, ...]

    @classmethod
    def of(cls, photos: Sequence[Photo], recipe: Recipe, dtype: Stored, max_pixels: int) -> Self:
        """The plan for photographs, some of which may be `UNREACHABLE`."""
        return cls(1, recipe, dtype, max_pixels, tuple(map(_planned, photos)))

    def check_same(self, kept: Plan, folder: Path) -> None:
        """Raise InputError, which names what differs, unless the kept plan is this one."""
        for what, mine, other in (
            *self._differing_recipes(kept),
            ("--dtype", self.dtype, kept.dtype),
            ("--max-pixels", self.max_pixels, kept.max_pixels),
            *self._differing_photos(kept),
        ):
            if mine != other:
                begun = f"what was begun in {folder} has another {what}"
                raise InputError(begun, expected=other, got=mine, hint=_AGAIN)

    def _differing_recipes(self, kept: Plan) -> Iterator[tuple[str, object, object]]:
        found = differences(kept.recipe, self.recipe)
        if found:
            yield "recipe", "; ".join(found), "the same"

    def _differing_photos(self, kept: Plan) -> Iterator[tuple[str, object, object]]:
        """The first difference between the lists of photographs, if any."""
        for number, (mine, other) in enumerate(zip(self.photos, kept.photos, strict=False)):
            if mine.id != other.id:
                yield f"photograph {number}, counted from 0", mine.id, other.id
            elif mine != other:
                yield f"content of {mine.id}", _state(mine), _state(other)
        yield "number of photographs", len(self.photos), len(kept.photos)

    def write(self, work: Path) -> None:
        """Write the plan, as the first file of the kept work."""
        write_file(work / PLAN, json.dumps(schema.encode(self), ensure_ascii=False), what="plan")

    @classmethod
    def read(cls, work: Path) -> Plan | None:
        """The plan of kept work, None where there is none; InputError, which names a wrong file."""
        path = work / PLAN
        try:
            value = schema.parse(_DOCUMENT.read(path), _DOCUMENT)
            schema.check_version(value, "schema_version", (1,), _DOCUMENT)
            return schema.decode(cls, value, _DOCUMENT)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise InputError(f"{path} cannot be read", got=error.strerror) from error
        except InputError as error:
            raise error.at(path) from error


def _planned(photo: Photo) -> PlannedPhoto:
    try:
        found = photo.path.stat()
    except OSError:  # Decoding it says so, for the photograph alone.
        return PlannedPhoto(photo.id, *UNREACHABLE)
    return PlannedPhoto(photo.id, found.st_size, found.st_mtime_ns)


def _state(photo: PlannedPhoto) -> str:
    return f"{photo.bytes} bytes, changed at {photo.mtime_ns} ns"


@dataclass(frozen=True, eq=False)
class Part:
    """The regions of some photographs that follow one another; `rows` are their places in the plan.

    regions (images, regions, img_dim) as they are stored, boxes (images, regions, 4) float32, sizes
    (images, 2) int32: width and height.
    """

    rows: NDArray[np.int64]
    regions: NDArray[Any]
    boxes: NDArray[np.float32]
    sizes: NDArray[np.int32]
    skipped: tuple[Skipped, ...]

    @classmethod
    def of(
        cls,
        extractor: RegionExtractor,
        dtype: Stored,
        rows: Sequence[int],
        found: Sequence[Features],
        sizes: Sequence[tuple[int, int]],
        skipped: Sequence[Skipped],
    ) -> Self:
        """A part of what was found in photographs, of which there may be none."""
        shape = extractor.regions, extractor.img_dim
        regions = np.empty((len(found), *shape), dtype)
        boxes = np.empty((len(found), shape[0], 4), np.float32)
        for row, features in enumerate(found):
            regions[row], boxes[row] = features.regions[0], features.boxes[0]
        sides = np.array(sizes, np.int32).reshape(-1, 2)
        return cls(np.array(rows, np.int64), regions, boxes, sides, tuple(skipped))

    def write(self, work: Path, number: int) -> None:
        """Write the part, whole or not at all."""
        reasons = json.dumps([(one.id, one.reason) for one in self.skipped])
        arrays = {name: getattr(self, name) for name in ("rows", *_ARRAYS)}
        with staged_file(_file(work, number), what="part") as file:
            np.savez(file, allow_pickle=False, skipped=np.array(reasons), **arrays)


def _file(work: Path, number: int) -> Path:
    return work / f"part-{number:06d}.npz"


def done_parts(work: Path, parts: int) -> list[bool]:
    """Which of the parts are written."""
    return [_file(work, number).exists() for number in range(parts)]


class Parts:
    """Written parts, in order, each read when it is needed."""

    def __init__(self, work: Path, count: int) -> None:
        """Take the work's folder, and the number of its parts."""
        self._work, self._count = work, count

    def arrays(self, name: str) -> Iterator[NDArray[Any]]:
        """One array of every part."""
        for number in range(self._count):
            yield self._load(number, name)

    def skipped(self) -> list[Skipped]:
        """The photographs without regions."""
        texts = (self._load(number, "skipped") for number in range(self._count))
        return [Skipped(*pair) for text in texts for pair in json.loads(text.item())]

    def _load(self, number: int, name: str) -> NDArray[Any]:
        path = _file(self._work, number)
        try:
            with np.load(path, allow_pickle=False) as archive:
                found: NDArray[Any] = archive[name]
                return found
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} cannot be read", got=error, hint=_AGAIN) from error


def gather(parts: Parts, work: Path, split: str, ids: Sequence[str]) -> list[str]:
    """Write the files of a split from its parts into the work's folder; returns their names.

    The features' file comes last. `ids` are those of the plan. Raises DataError where no photograph
    has regions, and discards the work: there is nothing to go on with.
    """
    kept = [ids[row] for rows in parts.arrays("rows") for row in rows]
    skipped = parts.skipped()
    if not kept:
        discard_work(work)
        raise no_photograph(skipped)
    names = [f"{split}{NAMES}"]
    write_file(work / names[0], "".join(f"{id_}\n" for id_ in kept), what="ids")
    if skipped:
        names.append(f"{split}{SKIPPED}")
        lines = (f"{one.id}\t{one.reason}\n" for one in skipped)
        write_file(work / names[-1], "".join(lines), what="skipped photographs")
    for name, end in _ARRAYS.items():
        names.append(f"{split}{end}")
        _concatenate(work / names[-1], parts.arrays(name), len(kept))
    return names


def _concatenate(path: Path, arrays: Iterator[NDArray[Any]], rows: int) -> None:
    """Write arrays one after another as one `.npy` file of so many rows."""
    with staged_file(path, what="features") as file:
        for number, array in enumerate(arrays):
            if number == 0:
                header = np.lib.format.header_data_from_array_1_0(array)
                shape = (rows, *array.shape[1:])
                np.lib.format.write_array_header_1_0(file, {**header, "shape": shape})
            file.write(array.tobytes())


def read_skipped(folder: Path, split: str) -> tuple[Skipped, ...]:
    """What `{split}_skipped.txt` holds, nothing where there is no such file."""
    path = folder / f"{split}{SKIPPED}"
    if not path.exists():
        return ()
    pairs = (line.partition("\t") for line in read_lines(path, "skipped photographs"))
    return tuple(Skipped(id_, reason) for id_, _, reason in pairs)
