"""Brings the manifest of an older bundle to the schema that `manifest` reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sgraf_deploy.bundle.manifest import DOCUMENT, EXPORT_AGAIN, SCHEMA_VERSION
from sgraf_deploy.errors import BundleError
from sgraf_deploy.schema import decode

Migration = Callable[[dict[str, Any]], dict[str, Any]]

MIGRATIONS: dict[int, Migration] = {
    1: dict,
    2: lambda old: {**old, "combined": {}},
    3: lambda old: {**old, "explain": {}},
    4: lambda old: {**old, "extractor": None},
}
"""From a version to the one after it: takes a manifest's JSON object, returns the next one's.

Version 1 has SGR, SAF or SGRAF only; 2 has any number of members, and names those as 1 did; 3 may
have graphs of all members, 4 has a graph `explain` of every member, and 5 may have what makes
regions of photographs, and says of `region_statistics` what every channel was like.
"""


def migrate(
    raw: Any, *, migrations: Mapping[int, Migration] = MIGRATIONS, version: int = SCHEMA_VERSION
) -> dict[str, Any]:
    """Bring a manifest's JSON object to the schema `version`, one migration at a time.

    Raises BundleError if it is newer than that, or too old for the migrations that exist.
    """
    migrated: dict[str, Any] = decode(dict[str, Any], raw, DOCUMENT)
    if "schema_version" not in migrated:
        raise DOCUMENT.missing("schema_version")
    found = migrated["schema_version"]
    if type(found) is not int:
        raise DOCUMENT.wrong("schema_version", "an integer", found)
    if found > version:
        newer, upgrade = "schema_version: written by a newer sgraf-deploy", "upgrade sgraf-deploy"
        raise BundleError(newer, expected=f"at most {version}", got=found, hint=upgrade)
    for step in range(found, version):
        if step not in migrations:
            raise BundleError(
                "schema_version: too old to be read", expected=version, got=step, hint=EXPORT_AGAIN
            )
        migrated = {**migrations[step](migrated), "schema_version": step + 1}
    return migrated
