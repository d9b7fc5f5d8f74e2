"""A job's folder: its plan, and a file for each piece of its work that is finished.

    JOB/plan.json, JOB/tiling.json    what the job is of, and how it is cut into pieces
    JOB/images-00000.npz …            encoded images, a shard each
    JOB/captions-00000.npz …          encoded captions, a shard each, in the tiling's order
    JOB/truths-00000.npz …            the thresholds of a shard's images, where ranks are counted
    JOB/part-00000.npz …              what a range of tiles gave: `PartialRanks` or `PartialTopK`

A file is there whole or not at all, so that whoever finds it need not do that piece again. Nothing
in a plan depends on how many workers there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import Precision
from sgraf_deploy.data.captions import CaptionStats
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.data.precomp import PrecompSplit, open_precomp
from sgraf_deploy.data.split_files import IMAGES
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.disk import os_errors
from sgraf_deploy.files.locks import holder, take_lock
from sgraf_deploy.files.writer import write_json
from sgraf_deploy.runtime.part import Execution
from sgraf_deploy.runtime.scorer import Scorer, load
from sgraf_deploy.runtime.tiles import TileShape, Tiling
from sgraf_deploy.schema import Document, check_version, decode, encode, parse, shown

Kind = Literal["images", "captions", "truths", "part"]

_AGAIN = "name a new folder, or delete this one to do all of its work again"
_DOCUMENT = Document("plan", DataError, _AGAIN, most_bytes=2**28)


@dataclass(frozen=True)
class ScorerSettings:
    """What every worker loads its scorer with; see `load`."""

    engine: str = "auto"
    precision: Precision | None = None
    options: EngineOptions = field(default_factory=EngineOptions)
    max_words: int | None = None
    tile: TileShape | None = None
    prune: bool = True

    def load(self, bundle: Bundle) -> Scorer:
        """Load a bundle; raises as `runtime.load`."""
        return load(
            bundle,
            self.engine,
            self.precision,
            options=self.options,
            tile=self.tile,
            max_words=self.max_words,
            caption_cache=0,
            prune=self.prune,
        )


@dataclass(frozen=True)
class SplitSource:
    """A split of precomp data, or a part of it; see `open_precomp`."""

    folder: Path
    name: str
    captions_per_image: int
    limit_images: int | None = None
    authors_dev: bool = False

    def absolute(self) -> SplitSource:
        """The same, by a path that is valid in any folder."""
        return replace(self, folder=self.folder.absolute())

    def open(self, bundle: Bundle) -> PrecompSplit:
        """Open it for a bundle's models; raises as `open_precomp`."""
        manifest = bundle.manifest
        return open_precomp(
            self.folder,
            self.name,
            captions_per_image=self.captions_per_image,
            model=(manifest.regions, manifest.img_dim),
            limit_images=self.limit_images,
            authors_dev=self.authors_dev,
        )


@dataclass(frozen=True)
class Request:
    """What a job is to find out; it can be sent to other processes.

    `k` is how many of the best candidates each query gets; None counts ranks, and with
    `ensemble_only` those of the ensemble alone.
    """

    bundle: str
    """Its folder, or its address on the Hub."""
    source: SplitSource
    settings: ScorerSettings = ScorerSettings()
    k: int | None = None
    ensemble_only: bool = False

    def identity(self, bundle: Bundle, split: PrecompSplit) -> Identity:
        """Say what the job is of, where this bundle and this split are opened."""
        file = self.source.folder / f"{self.source.name}{IMAGES}"
        with os_errors(f"regions {file}", DataError):
            found = file.stat()
        captions = hashlib.sha256("\n".join(split.captions).encode("utf-8", "surrogatepass"))
        return Identity(
            bundle=bundle.sha256,
            regions=f"{found.st_size} bytes of {found.st_mtime_ns} ns",
            captions=captions.hexdigest(),
            images=split.images,
            captions_per_image=split.captions_per_image,
            engine=self.settings.engine,
            precision=self.settings.precision,
            max_words=self.settings.max_words,
            k=self.k,
            models="ensemble" if self.ensemble_only else "all",
        )


@dataclass(frozen=True)
class Identity:
    """What a job is of; the pieces of another are of no use to it."""

    bundle: str
    """The bundle's sha256."""
    regions: str
    """The size and the time of the regions' file: its content may be terabytes."""
    captions: str
    """The sha256 of the captions."""
    images: int
    captions_per_image: int
    engine: str
    """As it was asked for."""
    precision: Precision | None
    max_words: int | None
    k: int | None
    models: Literal["all", "ensemble"]
    """Whose ranks are counted."""


@dataclass(frozen=True)
class Plan:
    """How a job is cut into pieces, fixed before any of them is begun."""

    format: Literal[1]
    identity: Identity
    execution: Execution
    """What every worker must compute with."""
    device: str
    """That of the worker which made the plan."""
    tiling: str
    """The tiling's digest."""
    images: tuple[int, ...]
    """Where each shard of images ends."""
    batches: tuple[int, ...]
    """Where each batch of captions ends, in the tiling's order: each is encoded by itself."""
    captions: tuple[int, ...]
    """Where each shard of captions ends, in batches."""
    tiles: tuple[int, ...]
    """Where each part's tiles end."""
    words: CaptionStats
    findings: tuple[Finding, ...]
    encoded_bytes: int
    tile_bytes: int

    def pieces(self, kind: Kind) -> list[Piece]:
        """All pieces of a kind, in order; there are no truths where no ranks are counted."""
        if kind == "truths" and self.identity.k is not None:
            return []
        counted = {"images": self.images, "captions": self.captions, "truths": self.images}
        return [Piece(kind, number) for number in range(len(counted.get(kind, self.tiles)))]


@dataclass(frozen=True, order=True)
class Piece:
    """A piece of a job's work, whose result is one file."""

    kind: Kind
    number: int

    @property
    def name(self) -> str:
        """What its file and the log call it."""
        return f"{self.kind}-{self.number:05d}"


def piece_range(ends: Sequence[int], number: int) -> range:
    """The rows of one of the ranges that end there."""
    return range(ends[number - 1] if number else 0, ends[number])


@dataclass(frozen=True)
class Job:
    """A job's folder."""

    folder: Path

    def file(self, piece: Piece) -> Path:
        """Where a piece's result is, once it is finished."""
        return self.folder / f"{piece.name}.npz"

    def missing(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Those that are not finished."""
        return [piece for piece in pieces if not self.file(piece).exists()]

    @contextmanager
    def only_driver(self) -> Iterator[None]:
        """Make the folder, and hold its lock in the block.

        Raises InputError while another process does, and where the folder cannot be made.
        """
        with os_errors(f"job {self.folder}", InputError):
            self.folder.mkdir(parents=True, exist_ok=True)
            target = self._plan_file.resolve()
            lock = take_lock(target)
        if lock is None:
            hint = "wait until it has ended, or name another folder"
            what = f"job {self.folder} is being worked on{holder(target)}"
            raise InputError(what, hint=hint)
        try:
            yield
        finally:
            lock.drop()

    @property
    def is_planned(self) -> bool:
        """Whether there is a plan."""
        return self._plan_file.exists()

    def write_plan(self, plan: Plan, tiling: Tiling) -> None:
        """Write the tiling, and then the plan."""
        tiling.save(self._tiling_file)
        write_json(self._plan_file, encode(plan), what="plan")

    @cached_property
    def plan(self) -> Plan:
        """The plan; DataError for one that is missing or damaged."""
        named = f"plan {self._plan_file}"
        try:
            value = parse(_DOCUMENT.read(self._plan_file), _DOCUMENT)
            check_version(value, "format", (1,), _DOCUMENT)
            return decode(Plan, value, _DOCUMENT)
        except OSError as error:
            hint = "the job's folder must be on a file system that every worker sees"
            raise DataError(f"{named} cannot be read", got=error.strerror, hint=hint) from error
        except DataError as error:
            raise error.at(named) from error

    @cached_property
    def tiling(self) -> Tiling:
        """The tiling; DataError for one that is missing, damaged or not the plan's."""
        found = Tiling.load(self._tiling_file)
        if found.digest != self.plan.tiling:
            expected, got = self.plan.tiling, found.digest
            raise DataError(f"tiling {self._tiling_file}", expected=expected, got=got, hint=_AGAIN)
        return found

    def check(self, identity: Identity) -> None:
        """Raise InputError, which names what differs, if the plan is another job's."""
        for part in fields(Identity):
            expected, got = (getattr(each, part.name) for each in (identity, self.plan.identity))
            if expected != got:
                what = f"job {self.folder}: {part.name}"
                raise InputError(what, expected=expected, got=shown(got), hint=_AGAIN)

    @property
    def _plan_file(self) -> Path:
        return self.folder / "plan.json"

    @property
    def _tiling_file(self) -> Path:
        return self.folder / "tiling.json"
