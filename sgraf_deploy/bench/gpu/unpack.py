"""What `bench gpu prepare` put into a folder, brought back: parts joined, hashes compared.

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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bench.gpu.job import run_job
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import InputError
from sgraf_deploy.files.folders import Rules, staged_folder
from sgraf_deploy.schema import Document, check_version, decode, parse

INDEX = "prepared.json"
SCHEMA = 1

MODEL, REGIONS, CAPTIONS, PACKAGES = "model.sgraf", "regions.npy", "captions.npz", "packages"
SPARE = "spare"
"""A folder for each module that is taken along for machines without it."""

"""What an unpacked folder holds; packages only where some were given."""

DOCUMENT = Document("prepared", InputError, "prepare it again", 2**20)

_CHUNK = 2**20


@dataclass(frozen=True)
class Part:
    """A piece of the archive, small enough to be carried alone."""

    file: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class Prepared:
    """The index of a prepared folder: the parts in order, and what is in them."""

    schema: int
    parts: tuple[Part, ...]
    content: dict[str, Any]


@dataclass(frozen=True, eq=False)
class RealData:
    """A bundle and the split that it is compared on.

    regions (images, regions, img_dim), mapped; token ids (words,) int32 of every caption, those of
    an image one after the other.
    """

    bundle: Bundle
    regions: NDArray[Any]
    token_ids: list[NDArray[np.int32]]
    captions_per_image: int


def read_index(folder: Path) -> tuple[Prepared, str]:
    """A prepared folder's index, and what tells it from any other; InputError for none."""
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
    """Join the parts and unpack them into a new folder, which is there whole or not at all.

    Raises InputError for parts that are missing or are not those of the index.
    """
    index, _ = read_index(folder)
    _check(folder, index.parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    rules = Rules("data", InputError, lambda _: None)
    with staged_folder(target, rules) as staged:
        joined = io.BufferedReader(_Joined(folder, index.parts))
        try:
            with tarfile.open(fileobj=joined, mode="r|xz") as archive:
                archive.extractall(staged, filter="data")
        except tarfile.TarError as error:
            raise InputError(f"prepared folder {folder} cannot be unpacked", got=error) from error


def _check(folder: Path, parts: tuple[Part, ...]) -> None:
    """InputError unless every part is there and is what the index says."""
    absent = [part.file for part in parts if not (folder / part.file).is_file()]
    if absent:
        raise InputError(
            f"prepared folder {folder}",
            expected=f"{len(parts)} parts",
            got=f"none of the name {' and '.join(absent)}",
            hint="bring every part along, into the same folder",
        )
    for part in parts:
        path = folder / part.file
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != part.sha256:
            hint = "bring it along once more"
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
    """What was unpacked. Raises InputError, or BundleError, for what is not there or damaged."""
    bundle = Bundle.open(folder / MODEL)
    try:
        regions = np.load(folder / REGIONS, mmap_mode="r")
        with np.load(folder / CAPTIONS) as found:
            ids, lengths, per_image = found["ids"], found["lengths"], found["captions_per_image"]
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
