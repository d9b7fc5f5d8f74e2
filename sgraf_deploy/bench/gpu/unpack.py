"""Unpacks a folder of `bench gpu prepare`: compares hashes, joins the parts, reads the data.

`python -m sgraf_deploy.bench.gpu.unpack PREPARED TARGET`
"""

from __future__ import annotations

import argparse
import hashlib
import io
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.gpu.job import run_job
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import InputError
from sgraf_deploy.files.folders import Rules, staged_folder
from sgraf_deploy.files.writer import write_file
from sgraf_deploy.schema import Document, check_version, decode, parse

INDEX = "prepared.json"
SCHEMA = 1

MODEL, REGIONS, CAPTIONS, PACKAGES = "model.sgraf", "regions.npy", "captions.npz", "packages"
"""The names in an unpacked folder; packages only if some were given."""

SPARE = "spare"
"""The folder of packages for machines that lack them, with a folder for each."""

DOCUMENT = Document("prepared", InputError, "prepare it again", 2**20)

_CHUNK = 2**20


@dataclass(frozen=True)
class Part:
    """A part of the archive."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Prepared:
    """The index of a prepared folder: the parts in order, and a description of their content."""

    schema: int
    parts: tuple[Part, ...]
    content: dict[str, Any]


@dataclass(frozen=True, eq=False)
class RealData:
    """A bundle and the split that it is compared on.

    regions (images, regions, img_dim), memory-mapped; token ids (words,) int32 of every caption,
    with those of an image one after the other.
    """

    bundle: Bundle
    regions: NDArray[Any]
    token_ids: list[NDArray[np.int32]]
    captions_per_image: int


def read_index(folder: Path) -> tuple[Prepared, str]:
    """A prepared folder's index, and a short hash that identifies it; InputError without one."""
    path = folder / INDEX
    try:
        content = DOCUMENT.read(path)
    except OSError as error:
        raise InputError(
            f"prepared folder {folder}",
            expected=f"{INDEX}, which `sgraf-deploy bench gpu prepare` writes",
            got=error.strerror or error,
        ) from error
    value = parse(content, DOCUMENT)
    check_version(value, "schema", (SCHEMA,), DOCUMENT)
    return decode(Prepared, value, DOCUMENT), hashlib.sha256(content).hexdigest()[:12]


def unpack(folder: Path, target: Path) -> None:
    """Join the parts and unpack them into a new folder, atomically.

    Raises InputError for parts that are missing or do not match the index.
    """
    index, _ = read_index(folder)
    _check(folder, index.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    rules = Rules("data", InputError, lambda _: None)
    with staged_folder(target, rules) as staged:
        joined = io.BufferedReader(_Joined(folder, index.parts))
        try:
            with tarfile.open(fileobj=joined, mode="r|xz") as archive:
                for entry in archive:
                    _extract(archive, entry, staged)
        except tarfile.TarError as error:
            raise InputError(f"prepared folder {folder} cannot be unpacked", got=error) from error


def _extract(archive: tarfile.TarFile, entry: tarfile.TarInfo, folder: Path) -> None:
    """Write one file of the archive; TarError for anything but a file inside the folder.

    `extractall` checks that in Python 3.11.4 and later alone, if it is asked to.
    """
    name = PurePosixPath(entry.name)
    content = archive.extractfile(entry) if entry.isreg() else None
    if content is None or name.is_absolute() or ".." in name.parts or "\\" in entry.name:
        raise tarfile.ExtractError(f"{entry.name} is no file inside the folder")
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content.read(), what="prepared file")


def _check(folder: Path, parts: tuple[Part, ...]) -> None:
    """Raise InputError unless every part exists and matches the index."""
    missing = [part.file for part in parts if not (folder / part.file).is_file()]
    if missing:
        raise InputError(
            f"prepared folder {folder}",
            expected=f"{len(parts)} parts",
            got=f"a folder without {' and '.join(missing)}",
            hint="copy all parts into the same folder",
        )
    for part in parts:
        path = folder / part.file
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != part.sha256:
            hint = "copy it again"
            raise InputError(f"part {path}: sha256", expected=part.sha256, got=digest, hint=hint)


class _Joined(io.RawIOBase):
    """The parts as one stream."""

    def __init__(self, folder: Path, parts: tuple[Part, ...]) -> None:
        super().__init__()
        self._chunks = _chunks(folder, parts)
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = chunk
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _chunks(folder: Path, parts: tuple[Part, ...]) -> Iterator[bytes]:
    for part in parts:
        with (folder / part.file).open("rb") as file:
            while chunk := file.read(_CHUNK):
                yield chunk


def read_data(folder: Path) -> RealData:
    """Read unpacked data; InputError or BundleError if it is missing or damaged."""
    bundle = Bundle.open(folder / MODEL)
    try:
        regions = np.load(folder / REGIONS, mmap_mode="r")
        with np.load(folder / CAPTIONS) as arrays:
            ids, lengths, per_image = arrays["ids"], arrays["lengths"], arrays["captions_per_image"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"data {folder} cannot be read", got=error, hint="prepare it again"
        ) from error
    token_ids = np.split(ids, np.cumsum(lengths)[:-1])
    return RealData(bundle, regions, token_ids, int(per_image))


if __name__ == "__main__":
    _parser = argparse.ArgumentParser(description=__doc__)
    _parser.add_argument("prepared", type=Path)
    _parser.add_argument("target", type=Path)
    sys.exit(run_job(_parser, lambda given: unpack(given.prepared, given.target)))
