"""The extractor of `export --extractor`: checked against checkpoints and data, stored in a bundle.

Its models are stored with all tensors inside, under names of their own; the recipe names those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sgraf_deploy.bundle.bundle import hash_file
from sgraf_deploy.bundle.graph_check import check_graph
from sgraf_deploy.bundle.manifest import EXTRACTOR_FOLDER, ExtractorFiles
from sgraf_deploy.errors import BundleError, InputError
from sgraf_deploy.export.options import ExportOptions
from sgraf_deploy.features.models import MODEL_HINT
from sgraf_deploy.features.recipe import FILE, PROJECTION, Recipe, read_recipe, write_recipe
from sgraf_deploy.features.spec import Parts, open_parts, parts_of, read_parts
from sgraf_deploy.features.trained import (
    Trained,
    check_fits,
    check_same,
    folder_recipe,
    read_trained,
)
from sgraf_deploy.files.writer import write_file
from sgraf_deploy.model.checkpoint import Checkpoint


def trained_features(checkpoints: Mapping[str, Checkpoint]) -> dict[str, Trained]:
    """What each checkpoint, by member, remembers of the features that it was trained on.

    Raises CheckpointError for what our training cannot have written.
    """
    return {
        member: read_trained(one.options, (one.config.regions, one.config.img_dim))
        for member, one in checkpoints.items()
    }


def read_extractor(
    spec: str,
    options: ExportOptions,
    checkpoints: Mapping[str, Checkpoint],
    trained: Mapping[str, Trained],
) -> Parts:
    """Read, open and check the extractor of a SPEC; its recipe has the reference picture's regions.

    Raises InputError unless it makes regions that the checkpoints take, and, but for
    `allow_foreign_features`, for another recipe than that of the training or of the gate's data.
    """
    parts = read_parts(spec)
    opened = open_parts(parts)
    recipe = opened.spec
    opened.close()
    config = next(iter(checkpoints.values())).config
    dimensions = (config.regions, config.img_dim)
    check_fits(recipe, dimensions, "regions of --extractor")
    if not options.allow_foreign_features:
        for member, one in trained.items():
            if one.recipe is not None:
                check_same(recipe, one.recipe, f"features that {member} was trained on")
        data = options.gate_data
        made = None if data is None else folder_recipe(data, dimensions)
        if made is not None:
            check_same(recipe, made, f"features of --gate-data {data}")
    return replace(parts, recipe=recipe)


def write_extractor(folder: Path, parts: Parts) -> ExtractorFiles:
    """Write `extractor/` into a bundle's folder, and check the stored copy by the picture.

    Raises InputError for a model with operators of another library, whose code no hash covers, and
    GateError where the copy makes other regions of the reference picture.
    """
    place = folder / EXTRACTOR_FOLDER
    place.mkdir()
    paths = {name: place / f"{name}.onnx" for name in parts.models}
    for name, model in parts.models.items():
        write_file(paths[name], model.content, what="extractor", error=BundleError)
        try:
            check_graph(paths[name])
        except BundleError as error:
            what = f"{name} of --extractor, {model.name}"
            raise InputError(
                what, expected=error.expected, got=error.got, hint=MODEL_HINT
            ) from error
    if parts.projection is not None:
        paths[PROJECTION] = place / f"{PROJECTION}.npz"
        write_file(paths[PROJECTION], parts.projection, what="extractor", error=BundleError)
    write_recipe(place, _renamed(parts, paths))
    recipe = read_recipe(place / FILE)
    open_parts(parts_of(recipe, paths)).close()
    return ExtractorFiles(
        identity=recipe.sha256,
        recipe=hash_file(place / FILE, relative_to=folder),
        files={name: hash_file(path, relative_to=folder) for name, path in paths.items()},
    )


def _renamed(parts: Parts, paths: Mapping[str, Path]) -> Recipe:
    """The recipe with the names of the files in the bundle."""
    recipe = parts.recipe
    models = {name: replace(model, file=paths[name].name) for name, model in recipe.models.items()}
    projection = recipe.projection
    if projection is not None:
        projection = replace(projection, file=paths[PROJECTION].name)
    return replace(recipe, models=models, projection=projection)
