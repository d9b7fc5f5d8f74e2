"""Manifests as JSON, changed at a path, and the error that a changed one is refused with."""

from __future__ import annotations

from typing import Any

from support.refusals import refused

from sgraf_deploy.bundle.manifest import Manifest
from sgraf_deploy.errors import BundleError, SgrafDeployError

Json = Any
Path = tuple[str | int, ...]


def steps_of(path: str) -> Path:
    """The names and the places in lists of a path such as `inputs.0.axes`."""
    return tuple(int(part) if part.isdigit() else part for part in path.split("."))


def parent_of(value: Json, path: Path) -> Json:
    """What holds the last step of a path."""
    for part in path[:-1]:
        value = value[part]
    return value


def put(value: Json, path: Path, wrong: Json) -> None:
    """Put something else, or something more, at a path."""
    parent_of(value, path)[path[-1]] = wrong


def error_of(value: Json, **fields: object) -> SgrafDeployError:
    """The error of a manifest that is refused."""
    with refused(BundleError, **fields) as found:
        Manifest.from_json(value)
    return found.error
