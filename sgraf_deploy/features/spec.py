"""Open an extractor from its SPEC: models, and how photographs go into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sgraf_deploy.features.base import RegionExtractor
from sgraf_deploy.features.recipe import Recipe
from sgraf_deploy.features.session import Model


@dataclass(frozen=True, eq=False)
class Parts:
    """All of an extractor: its recipe, its models by name, and the projection file's content."""

    recipe: Recipe
    models: Mapping[str, Model]
    projection: bytes | None


def read_parts(spec: str) -> Parts:
    """Read what a SPEC names; the recipe has no reference where the SPEC says no recipe."""
    raise NotImplementedError(spec)


def open_parts(parts: Parts, *, threads: int = 1, device: str = "cpu") -> RegionExtractor:
    """Open an extractor, and check it by the reference picture, or take its regions for one."""
    raise NotImplementedError(parts, threads, device)


def open_extractor(spec: str, *, threads: int = 1, device: str = "cpu") -> RegionExtractor:
    """Open the extractor of a SPEC."""
    return open_parts(read_parts(spec), threads=threads, device=device)
