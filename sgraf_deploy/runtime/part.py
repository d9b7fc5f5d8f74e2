"""What every partial result names: what computed it, which tiling it belongs to, and its tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import Precision
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.context import Context
from sgraf_deploy.schema import shown


@dataclass(frozen=True)
class Execution:
    """What computes logits; those of another one may differ in their last bits, or by more."""

    bundle: str
    """The bundle's sha256."""
    engine: str
    precision: Precision
    """The precision of the bundle's graphs that run."""
    executed: str
    """The arithmetic that the engine really executes: `fp32`, `fp16-rounded`, …"""
    device: str
    """The kind of device, `cpu` or `cuda`."""

    @classmethod
    def of(cls, context: Context) -> Execution:
        """What a scorer's context computes with."""
        engine, origin = context.engine, context.origin
        device = engine.device.partition(":")[0]
        return cls(origin.bundle, engine.name, origin.precision, engine.executed, device)


@dataclass(frozen=True)
class Whole(Execution):
    """What parts are parts of: only those of an equal one belong together."""

    tiling: str
    """The tiling's digest."""
    tiles: int
    """The number of all tiles."""
    images: int
    captions: int


@dataclass(frozen=True, eq=False, repr=False)
class Part:
    """The result of some tiles; `tiles` (tiles,) int64 are their numbers, rising.

    `scored` says how many of their pairs each member has scored. That is how the result was come
    by, and no part of it: two parts of equal digests may differ there.
    """

    verb: ClassVar[str] = "scored"
    whole: Whole
    tiles: NDArray[np.int64]
    scored: dict[str, int]

    @property
    def missing(self) -> NDArray[np.int64]:
        """The numbers of the tiles that are not in this part, rising."""
        return np.setdiff1d(np.arange(self.whole.tiles), self.tiles)

    def __repr__(self) -> str:
        whole = self.whole
        tiles = f"{len(self.tiles):,} of {whole.tiles:,} tiles"
        return f"{type(self).__name__}({tiles}, {whole.engine}, {whole.executed})"

    def _check_complete(self) -> None:
        """Raise InputError if tiles are missing."""
        if len(self.tiles) != self.whole.tiles:
            counted = len(self.tiles)
            first = int(np.argmax(np.append(self.tiles, -1) != np.arange(counted + 1)))
            raise InputError(
                f"tiles that were {self.verb}",
                expected=f"all {self.whole.tiles}",
                got=f"{counted}: {self.whole.tiles - counted} are missing, first tile {first}",
                hint="merge the parts of all tiles",
            )


def check_same(what: str, ours: Execution, theirs: Execution, hint: str) -> None:
    """Raise InputError, which names the field, where what computed two things differs."""
    for field in fields(ours):
        expected, got = getattr(ours, field.name), getattr(theirs, field.name, None)
        if expected != got:
            raise InputError(
                f"{what}: {field.name}", expected=expected, got=shown(got).strip('"'), hint=hint
            )


def join_tiles(parts: Sequence[Part]) -> NDArray[np.int64]:
    """The numbers of all parts' tiles, rising.

    Raises InputError for no parts, for parts of different wholes and for a tile in two of them.
    """
    if not parts:
        raise InputError("parts to merge", expected="at least one", got="none")
    first = parts[0]
    for part in parts:
        given: object = part
        if type(given) is not type(first):
            expected, got = type(first).__name__, type(given).__name__
            raise InputError("parts to merge", expected=expected, got=got)
        hint = "merge parts that one bundle, engine and tiling made"
        check_same("parts to merge", first.whole, part.whole, hint)
    tiles, times = np.unique(np.concatenate([part.tiles for part in parts]), return_counts=True)
    if times.max() > 1:
        what = f"tile {tiles[times.argmax()]} of the parts to merge"
        hint = "give every part once, and share out every tile once"
        raise InputError(what, expected="in one part", got=f"in {times.max()}", hint=hint)
    return tiles


def add_scored(parts: Sequence[Part]) -> dict[str, int]:
    """The pairs that each member has scored of all parts' tiles.

    Raises InputError for parts that name different members.
    """
    scored = dict(parts[0].scored)
    for part in parts[1:]:
        expected, got = (", ".join(sorted(each)) for each in (scored, part.scored))
        if expected != got:
            raise InputError("parts to merge: members that scored", expected=expected, got=got)
        for member, pairs in part.scored.items():
            scored[member] += pairs
    return scored
