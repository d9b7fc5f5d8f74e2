"""Ranks counted in parts: some tiles here, others elsewhere, added up to the same counts.

A tiling fixes the tiles, thresholds the comparison; both come first. Then any worker counts any
tiles, and the parts are merged in any order. Nothing here knows how work is shared out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.engines.ranks import RankCounts, settle
from sgraf_deploy.engines.tallies import ModelTally, Tally, Touched, add_models, union, unpack
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.disk import PathLike
from sgraf_deploy.runtime.part import Part, Whole, add_scored, join_tiles
from sgraf_deploy.runtime.part_file import Filed, contents_of, read_arrays, write_arrays
from sgraf_deploy.runtime.thresholds import RankThresholds

_WHAT = "partial ranks"


@dataclass(frozen=True)
class RankedWhole(Whole):
    """What partial ranks are parts of."""

    thresholds: str
    """The thresholds' digest."""


@dataclass(frozen=True)
class _Header:
    """Describes a file of partial ranks."""

    format: Literal[1]
    kind: Literal["partial ranks"]
    whole: RankedWhole
    scored: dict[str, int]
    models: tuple[str, ...]
    contents: str


@dataclass(frozen=True, eq=False, repr=False)
class PartialRanks(Part):
    """What some tiles tell of the ranks of a matrix; it holds only the rows that they touched.

    `Scorer.count_tiles` makes one. Parts of the same `whole` add up, in any order, and those of all
    tiles give the ranks, bit for bit those of `Scorer.count_ranks`. A tile that is in two parts is
    refused, and so is a part of another tiling, bundle or engine, or of other thresholds.

    Example:
        >>> thresholds = scorer.rank_thresholds(images[:2], captions, captions_per_image=1)
        >>> part = scorer.count_tiles(images[:2], captions, thresholds, [0])
        >>> part, part.missing.tolist()
        (PartialRanks(1 of 1 tiles, native, fp32), [])
        >>> part.scored
        {'sgr': 4, 'saf': 4}
        >>> part.save("part.npz")
        >>> sgraf_deploy.PartialRanks.load("part.npz").digest == part.digest
        True
        >>> part.counts(thresholds)["sgraf"].text_to_image.shape
        (2,)
        >>> part + part
        Traceback (most recent call last):
        sgraf_deploy.errors.InputError: tile 0 of the parts to merge: expected in one part, ...
    """

    verb: ClassVar[str] = "counted"
    whole: RankedWhole
    touched: Touched
    """The images, captions and ground truths of the tiles."""
    models: dict[str, ModelTally]

    def __add__(self, other: PartialRanks) -> PartialRanks:
        if not isinstance(other, PartialRanks):
            return NotImplemented
        return PartialRanks.merge([self, other])

    @staticmethod
    def merge(parts: Sequence[PartialRanks]) -> PartialRanks:
        """Add up parts, in any order.

        Raises:
            InputError: no part, a tile in two of them, or parts of different wholes; it names the
                tile or the field that differs.

        Example:
            >>> whole = sgraf_deploy.PartialRanks.merge([part])
            >>> whole.digest == part.digest
            True
        """
        tiles, first = join_tiles(parts), parts[0]
        for part in parts:
            expected, got = (", ".join(each.models) for each in (first, part))
            if expected != got:
                raise InputError("parts to merge: models", expected=expected, got=got)
        sides = ("images", "captions", "truths")
        touched = Touched(
            *(union([getattr(part.touched, side) for part in parts]) for side in sides)
        )
        models = add_models(touched, [(part.touched, part.models) for part in parts])
        return PartialRanks(first.whole, tiles, add_scored(parts), touched, models)

    def counts(self, thresholds: RankThresholds) -> dict[str, RankCounts]:
        """The ranks' counts by model, as `Scorer.count_ranks` gives them, once no tile is missing.

        Raises:
            InputError: tiles are missing, it says how many; or the thresholds are others.
        """
        self._check_complete()
        if thresholds.digest != self.whole.thresholds:
            expected, got = self.whole.thresholds, thresholds.digest
            raise InputError("thresholds of the counts", expected=expected, got=got)
        whole, touched = self.whole, self.touched
        found = len(touched.images), len(touched.captions), len(touched.truths)
        if found != (whole.images, whole.captions, whole.captions):
            expected = f"{whole.images} images and {whole.captions} captions, with their truths"
            raise DataError("partial ranks of all tiles", expected=expected, got=found)
        return settle(self.models, thresholds.values)

    @cached_property
    def digest(self) -> str:
        """What identifies what was counted: a sha256 in hexadecimal digits."""
        return contents_of(dict(self._arrays()))

    def save(self, path: PathLike, *, step: Callable[[str], None] | None = None) -> None:
        """Write the part to one file, whole or not at all; InputError where it cannot be written.

        `step` is called with the name of each step of writing: see `files.writer.FILE_STEPS`.
        """
        models = tuple(self.models)
        header = _Header(1, "partial ranks", self.whole, self.scored, models, self.digest)
        write_arrays(path, _WHAT, header, dict(self._arrays()), step)

    @classmethod
    def load(cls, path: PathLike) -> PartialRanks:
        """Read what `save` wrote; DataError for a file that is missing, damaged or another."""
        header, filed = read_arrays(path, _WHAT, _Header)
        whole = header.whole
        tiles = filed.rising("tiles", whole.tiles)
        touched = Touched(
            filed.rising("images", whole.images),
            filed.rising("captions", whole.captions),
            filed.rising("truths", whole.captions, empty=True),
        )
        models = {name: _model(filed, name, touched) for name in header.models}
        filed.end()
        if not models:
            raise filed.wrong("models", "at least one", "none")
        filed.check_scored(header.scored, len(touched.images) * len(touched.captions))
        members = sorted(header.models[:-1] or header.scored)  # Of the ensemble alone: not known.
        if sorted(header.scored) != members:
            raise filed.wrong("scored", ", ".join(members), ", ".join(header.scored))
        return cls(whole, tiles, header.scored, touched, models)

    def _arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        yield "tiles", self.tiles
        for side in ("images", "captions", "truths"):
            yield side, getattr(self.touched, side)
        for name, model in self.models.items():
            yield f"{name}.truths", model.truths
            for side, tally in (("images", model.images), ("captions", model.captions)):
                for field in ("better", "keys", "counts"):
                    yield f"{name}.{side}.{field}", getattr(tally, field)


def _model(filed: Filed, name: str, touched: Touched) -> ModelTally:
    truths = filed.take(f"{name}.truths", np.float32, (len(touched.truths),))
    if not np.isfinite(truths).all():
        raise filed.wrong(f"{name}.truths", "finite numbers", "another")
    return ModelTally(
        _tally(filed, f"{name}.images", touched.images),
        _tally(filed, f"{name}.captions", touched.captions),
        truths,
    )


def _tally(filed: Filed, name: str, queries: NDArray[np.int64]) -> Tally:
    better = filed.take(f"{name}.better", np.int64, (len(queries),))
    keys = filed.take(f"{name}.keys", np.uint64, (None,))
    counts = filed.take(f"{name}.counts", np.int64, (len(keys),))
    if (better < 0).any() or (counts < 1).any():
        raise filed.wrong(name, "counts from 0 on, of close candidates from 1 on", "less")
    if (keys[1:] <= keys[:-1]).any() or not np.isin(unpack(keys)[0], queries).all():
        raise filed.wrong(f"{name}.keys", "rising keys of the queries", "others")
    return Tally(better, keys, counts)
