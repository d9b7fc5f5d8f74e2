"""What a folder of features and a checkpoint say of how regions were made, to compare later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgraf_deploy.data.foreign_channels import read_statistics
from sgraf_deploy.data.layout import Dimensions
from sgraf_deploy.errors import CheckpointError, DataError, InputError
from sgraf_deploy.features.recipe import FILE, Recipe, differences, read_recipe
from sgraf_deploy.schema import Document, decode, encode

STATISTICS, RECIPE = "region_statistics", "extractor"
"""The options of a checkpoint that our own training writes."""

_NUMBERS = ("mean", "std", "mean_norm", "min", "max")
_CHANNELS = ("channel_mean", "channel_std")
_DOCUMENT = Document("opt", CheckpointError, "train it again", most_bytes=0)
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Trained:
    """What a training remembers of its features: their statistics, and the recipe that made them.

    Each is None where it is not known.
    """

    statistics: dict[str, Any] | None
    recipe: Recipe | None

    def to_opt(self) -> dict[str, Any]:
        """The options that a checkpoint keeps, of plain values."""
        found = {STATISTICS: self.statistics, RECIPE: encode(self.recipe) if self.recipe else None}
        return {name: value for name, value in found.items() if value is not None}


def read_trained(options: Mapping[str, Any], dimensions: Dimensions) -> Trained:
    """What the options of a checkpoint say, whose model takes (regions, img_dim).

    Raises CheckpointError, which names the field, for what our training cannot have written.
    """
    return Trained(
        _statistics(options.get(STATISTICS), dimensions[1]), _recipe(options, dimensions)
    )


def folder_recipe(folder: Path, dimensions: Dimensions) -> Recipe | None:
    """The recipe of a folder's features, None if it has no `extractor.json`.

    Raises DataError for a file that cannot be read, or whose regions are not the folder's.
    """
    path = folder / FILE
    if not path.exists():
        return None
    recipe = read_recipe(path)
    check_fits(recipe, dimensions, f"recipe {path}", DataError)
    return recipe


def check_fits(
    recipe: Recipe, dimensions: Dimensions, what: str, error: type[InputError] = InputError
) -> None:
    """Raise `error` unless a recipe makes so many regions of that img_dim."""
    if (recipe.regions, recipe.img_dim) != tuple(dimensions):
        regions, img_dim = dimensions
        raise error(
            what,
            expected=f"{regions} regions × {img_dim}",
            got=f"{recipe.regions} × {recipe.img_dim}",
        )


def check_same(recipe: Recipe, other: Recipe, what: str) -> None:
    """Raise InputError, which names what differs, unless two recipes make the same regions."""
    found = differences(recipe, other)
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise InputError(
            what,
            expected="the recipe of the extractor in use",
            got="; ".join(found[:_SHOWN]) + more,
            hint="regions of another making rank worse, near chance even: give the extractor that "
            "made them, or, to take the risk, --allow-foreign-features",
        )


def _statistics(value: Any, img_dim: int) -> dict[str, Any] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise _DOCUMENT.wrong(f"opt.{STATISTICS}", "an object", value)
    channels = read_statistics(value, img_dim, f"opt.{STATISTICS}", CheckpointError)
    if channels is None:
        raise _DOCUMENT.missing(f"opt.{STATISTICS}.channel_mean")
    for name in _NUMBERS:
        number: Any = value.get(name)
        if type(number) not in (int, float) or not math.isfinite(number):
            raise _DOCUMENT.wrong(f"opt.{STATISTICS}.{name}", "a number", number)
    return {name: value[name] for name in ("images", *_NUMBERS, *_CHANNELS)}


def _recipe(options: Mapping[str, Any], dimensions: Dimensions) -> Recipe | None:
    value = options.get(RECIPE)
    if value is None:
        return None
    try:
        recipe = decode(Recipe, value, _DOCUMENT)
    except InputError as error:
        raise error.at(f"opt.{RECIPE}") from error
    check_fits(recipe, dimensions, f"opt.{RECIPE}", CheckpointError)
    return recipe
