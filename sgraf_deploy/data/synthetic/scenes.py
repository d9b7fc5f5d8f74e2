"""Synthetic scenes: objects with a shape, a colour, a size and a material, on a grid.

The relation of two objects follows from their places. Everything is drawn from
`numpy.random.PCG64` as integers, so that a seed gives the same scenes on every machine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sgraf_deploy.errors import InputError

Relation = Literal["left", "right", "above", "below"]

SHAPES = ("ball", "cube", "cone", "cylinder", "ring", "star", "pyramid", "cup")
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "orange", "purple")
SIZES = ("small", "large")
MATERIALS = ("metal", "wooden", "rubber")

COLUMNS, ROWS = 4, 3
LEAST_OBJECTS, MOST_OBJECTS = 2, 4

SPLITS = {"train": (0, 14), "dev": (14, 15), "test": (15, 16)}
"""The range of sixteenths of all possible scenes that belong to each split; they are disjoint."""

INVERSE: dict[Relation, Relation] = {
    "left": "right",
    "right": "left",
    "above": "below",
    "below": "above",
}
PHRASES: dict[Relation, str] = {
    "left": "left of",
    "right": "right of",
    "above": "above",
    "below": "below",
}


@dataclass(frozen=True, order=True)
class SceneObject:
    """One object, its attributes as indices into the tuples above; row 0 is the top one."""

    shape: int
    colour: int
    size: int
    material: int
    column: int
    row: int

    def __str__(self) -> str:
        words = (SIZES[self.size], COLOURS[self.colour], MATERIALS[self.material])
        return " ".join((*words, SHAPES[self.shape]))

    def relation(self, other: SceneObject) -> Relation:
        """The place of this object relative to the other, on the axis with the larger distance."""
        across, down = self.column - other.column, self.row - other.row
        if abs(across) >= abs(down):
            return "left" if across < 0 else "right"
        return "above" if down < 0 else "below"


@dataclass(frozen=True)
class Scene:
    """Two to four objects in different cells; no two have both shape and colour in common."""

    objects: tuple[SceneObject, ...]

    def __str__(self) -> str:
        """The scene in words: every object, and its relation to the next one."""
        first, *others = self.objects
        parts, previous = [str(first)], first
        for item in others:
            parts.append(f"{PHRASES[previous.relation(item)]} {item}")
            previous = item
        return ", ".join([" ".join(parts[:2]), *parts[2:]])

    @property
    def split(self) -> str:
        """The split that the scene belongs to; it depends on nothing but the scene."""
        digest = hashlib.sha256(repr(sorted(self.objects)).encode("ascii")).digest()
        sixteenth = digest[0] % 16
        return next(name for name, (low, high) in SPLITS.items() if low <= sixteenth < high)


def make_scenes(split: str, count: int, seed: int) -> list[Scene]:
    """Draw `count` scenes of a split, no two with the same objects or the same text.

    A larger count begins with the same scenes. Raises InputError for an unknown split or fewer than
    one scene.
    """
    if split not in SPLITS:
        raise InputError("split of scenes", expected=list(SPLITS), got=split)
    if count < 1:
        raise InputError(f"scenes of split {split}", expected="at least 1", got=count)
    rng = np.random.Generator(np.random.PCG64([seed, *split.encode("ascii")]))
    scenes: list[Scene] = []
    taken: set[object] = set()
    for scene in _draw(rng):
        # Different objects may have the same text, which names no cells, and the same objects may
        # have different texts, by their order: so both must be new.
        names = {str(scene), tuple(sorted(scene.objects))}
        if scene.split == split and taken.isdisjoint(names):
            taken |= names
            scenes.append(scene)
        if len(scenes) == count:
            break
    return scenes


def _draw(rng: np.random.Generator) -> Iterator[Scene]:
    """Draw random scenes without end."""
    while True:
        count = int(rng.integers(LEAST_OBJECTS, MOST_OBJECTS + 1))
        looks = _distinct(rng, len(SHAPES) * len(COLOURS), count)
        cells = _distinct(rng, COLUMNS * ROWS, count)
        rest = rng.integers(0, len(SIZES) * len(MATERIALS), count).tolist()
        yield Scene(
            tuple(
                _object(look, other, cell)
                for look, other, cell in zip(looks, rest, cells, strict=True)
            )
        )


def _object(look: int, other: int, cell: int) -> SceneObject:
    shape, colour = divmod(look, len(COLOURS))
    size, material = divmod(other, len(MATERIALS))
    row, column = divmod(cell, COLUMNS)
    return SceneObject(shape, colour, size, material, column, row)


def _distinct(rng: np.random.Generator, below: int, count: int) -> list[int]:
    """Draw `count` different numbers 0 … below - 1."""
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        drawn[int(rng.integers(0, below))] = None
    return list(drawn)
