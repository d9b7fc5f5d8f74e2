"""The recipe and the files of the extractor that a bundle holds, checked."""

from __future__ import annotations

from pathlib import Path

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import BundleError, DataError
from sgraf_deploy.features.recipe import FILE, Recipe, read_recipe


def bundle_recipe(bundle: Bundle) -> tuple[Recipe, dict[str, Path]]:
    """The recipe of a bundle's extractor, and its verified files by name.

    Raises BundleError for a bundle without one, and for a recipe that is not what the manifest
    says, or whose regions the bundle's models do not take.
    """
    files = bundle.extractor_files()
    place = f"extractor of bundle {bundle.path}"
    try:
        recipe = read_recipe(files.pop("recipe"))
    except DataError as error:
        raise BundleError(f"{place} cannot be used", got=error) from error
    manifest = bundle.manifest
    said = "" if manifest.extractor is None else manifest.extractor.identity
    for what, expected, got in (
        ("identity", said, recipe.sha256),
        ("regions", manifest.regions, recipe.regions),
        ("img_dim", manifest.img_dim, recipe.img_dim),
        ("files", ", ".join(sorted(files)), ", ".join(sorted(recipe.files))),
    ):
        if expected != got:
            raise BundleError(f"{place}: {what} by its {FILE}", expected=expected, got=got)
    return recipe, files
