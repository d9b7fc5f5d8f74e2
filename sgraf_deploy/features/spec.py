"""Open an extractor from its SPEC: models, and how photographs go into them.

    SPEC     = KIND:MODELS[,NAME=VALUE…] | extractor.json | BUNDLE
    KIND     = grid | boxes
    MODELS   = MODEL.onnx | DETECTOR.onnx+MODEL.onnx

`options` reads the options; an `extractor.json` finds its files beside itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.hub import is_address
from sgraf_deploy.bundle.manifest import MANIFEST
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.features.base import RegionExtractor
from sgraf_deploy.features.boxes import BoxExtractor
from sgraf_deploy.features.bundled import bundle_recipe
from sgraf_deploy.features.decode import RULES
from sgraf_deploy.features.grid import GridExtractor
from sgraf_deploy.features.models import Model, read_model
from sgraf_deploy.features.options import (
    Options,
    detections_of,
    model_file,
    model_pixels,
    model_resizing,
    parse_options,
)
from sgraf_deploy.features.projection import (
    Linear,
    content_sha256,
    read_content,
    read_projection,
)
from sgraf_deploy.features.recipe import (
    BACKBONE,
    DETECTOR,
    MOST_OUTPUTS,
    PROJECTION,
    SCHEMA_VERSION,
    Kind,
    Projection,
    Recipe,
    read_recipe,
)
from sgraf_deploy.features.reference import check_reference, expected_reference
from sgraf_deploy.features.session import Session

GRAMMAR = "grid:MODEL.onnx[,NAME=VALUE…], boxes:DETECTOR.onnx+MODEL.onnx[,…], a JSON or a bundle"
Opens = Callable[[Recipe, Mapping[str, Session], Linear | None], RegionExtractor]
EXTRACTORS: Mapping[Kind, Opens] = {"grid": GridExtractor, "boxes": BoxExtractor}
"""What opens each kind, from its recipe, its models by name, and its projection."""

REGIONS = 36
"""Of `boxes`, unless a SPEC says otherwise: as many as the published checkpoints have."""


@dataclass(frozen=True, eq=False)
class Parts:
    """All of an extractor: its recipe, its models by name, and the projection file's content."""

    recipe: Recipe
    models: Mapping[str, Model]
    projection: bytes | None


def open_extractor(spec: str, *, threads: int = 1, device: str = "cpu") -> RegionExtractor:
    """Open the extractor of a SPEC; raises as `read_parts` and `open_parts` do.

    Example:
        >>> extractor = open_extractor("grid:backbone.onnx,preset=imagenet")
        >>> features = extractor.extract([decode_photo("photo.jpg")])
        >>> features.regions.shape, features.boxes.shape
        ((1, 49, 1280), (1, 49, 4))
    """
    return open_parts(read_parts(spec), threads=threads, device=device)


def read_parts(spec: str) -> Parts:
    """Read what a SPEC names; the recipe has no reference where the SPEC gives none.

    Raises InputError for a SPEC or a model that cannot be used, and DataError for a recipe or a
    projection; BundleError for a bundle without an extractor.
    """
    kind, colon, rest = spec.partition(":")
    for known in EXTRACTORS:
        if colon and kind == known:
            return _from_options(known, rest)
    path = Path(spec)
    if path.suffix == ".json":
        recipe = read_recipe(path)
        files = {name: path.parent / one.file for name, one in recipe.files.items()}
        _check_beside(path, recipe.kind, files)
        return parts_of(recipe, files)
    if is_address(spec) or (path / MANIFEST).is_file():
        return parts_of(*bundle_recipe(Bundle.open(spec)))
    raise InputError("extractor", expected=GRAMMAR, got=spec)


def _check_beside(recipe: Path, kind: Kind, files: Mapping[str, Path]) -> None:
    """Raise InputError unless the files of a recipe lie beside it."""
    missing = [file.name for file in files.values() if not file.exists()]
    if missing:
        models = "+".join(f"{name.upper()}.onnx" for name in files if name != PROJECTION)
        more = ",projection=FILE.npz" * (PROJECTION in files)
        raise InputError(
            f"recipe {recipe}",
            expected=f"{' and '.join(missing)} beside it",
            got="none there",
            hint=f"copy it there, or say where it is: {kind}:{models},recipe={recipe}{more}",
        )


def bundle_extractor(bundle: Bundle, *, threads: int = 1, device: str = "cpu") -> RegionExtractor:
    """Open the extractor of a bundle; raises BundleError as `bundle_recipe`, and as `open_parts`.

    Example:
        >>> extractor = bundle_extractor(Bundle.open("f8k.sgraf"))
        >>> extractor.regions, extractor.img_dim
        (36, 256)
    """
    return open_parts(parts_of(*bundle_recipe(bundle)), threads=threads, device=device)


def parts_of(recipe: Recipe, files: Mapping[str, Path]) -> Parts:
    """Read the files of a recipe, by the names that `Recipe.files` gives them.

    Raises DataError for a file that has not the recipe's hash, and as `read_model` does.
    """
    models = {name: read_model(files[name]) for name in recipe.models}
    for name, model in models.items():
        _check_hash(model.sha256, recipe.models[name].sha256, files[name])
    content = None
    if recipe.projection is not None:
        content = read_content(files[PROJECTION])
        _check_hash(content_sha256(content), recipe.projection.sha256, files[PROJECTION])
    return Parts(recipe, models, content)


def open_parts(parts: Parts, *, threads: int = 1, device: str = "cpu") -> RegionExtractor:
    """Open an extractor, and check it by the reference picture, or take its regions for one.

    `threads` is the number that runs each model. Raises InputError for a model that cannot be run
    or gives no regions, GateError where the reference picture's regions are others, and
    UnavailableError without ONNX Runtime or Pillow.
    """
    if device != "cpu":
        raise InputError("device of an extractor", expected="cpu", got=device)
    sessions = {name: Session(model, threads) for name, model in parts.models.items()}
    linear = None if parts.projection is None else read_projection(parts.projection, PROJECTION)
    recipe, opens = parts.recipe, EXTRACTORS[parts.recipe.kind]
    if recipe.reference is None:
        made = expected_reference(opens(recipe, sessions, linear))
        regions, img_dim = made.shape
        if recipe.regions not in (0, regions):
            raise InputError("extractor: regions", expected=recipe.regions, got=regions)
        recipe = replace(recipe, regions=regions, img_dim=img_dim, reference=made)
        return opens(recipe, sessions, linear)
    extractor = opens(recipe, sessions, linear)
    check_reference(extractor, recipe.reference)
    return extractor


def _from_options(kind: Kind, rest: str) -> Parts:
    """The parts of `MODELS[,NAME=VALUE…]`."""
    named, *others = rest.split(",")
    options = parse_options(others, kind)
    models = {name: read_model(path) for name, path in _model_paths(kind, named).items()}
    projection = options.text("projection")
    content = None if projection is None else read_content(Path(projection))
    given = options.text("recipe")
    if given is not None:
        return _from_recipe(read_recipe(Path(given)), kind, models, content, options)
    by_model = {BACKBONE: options, DETECTOR: options.of_detector()}
    inputs = {
        name: model.photo_input(by_model[name].text("input")) for name, model in models.items()
    }
    pixels = {name: model_pixels(inputs[name], by_model[name]) for name in models}
    boxes = kind == "boxes"
    files = {
        name: model_file(model, by_model[name], MOST_OUTPUTS[name])
        for name, model in models.items()
    }
    recipe = Recipe(
        schema_version=SCHEMA_VERSION,
        kind=kind,
        decoding=RULES,
        models=files,
        resizing={
            name: model_resizing(inputs[name], pixels[name], by_model[name]) for name in models
        },
        pixels=pixels,
        skip=options.count("skip", 0),
        detections=detections_of(by_model[DETECTOR]) if boxes else None,
        projection=_projection(projection, content),
        regions=options.count("regions", REGIONS if boxes else 0),
        img_dim=0,
        reference=None,
    )
    return Parts(recipe, models, content)


def _model_paths(kind: Kind, named: str) -> dict[str, Path]:
    """The paths of the models, of which one may have a plus sign in its name."""
    if kind == "grid":
        return {BACKBONE: Path(named)}
    plus = [place for place, letter in enumerate(named) if letter == "+"]
    found = [(Path(named[:place]), Path(named[place + 1 :])) for place in plus]
    real = [pair for pair in found if all(one.is_file() for one in pair)] or found
    if len(real) != 1:
        raise InputError("extractor boxes", expected="DETECTOR.onnx+MODEL.onnx", got=named)
    return {BACKBONE: real[0][1], DETECTOR: real[0][0]}


def _from_recipe(
    recipe: Recipe, kind: Kind, models: Mapping[str, Model], content: bytes | None, options: Options
) -> Parts:
    """The parts of a recipe, whose files are named beside it."""
    others = sorted({*options.given} - {"recipe", "projection"})
    if others:
        expected = "no option but projection beside recipe"
        raise InputError("extractor", expected=expected, got=", ".join(others))
    if recipe.kind != kind:
        raise InputError("extractor: kind", expected=recipe.kind, got=kind)
    for name, model in models.items():
        _check_hash(model.sha256, recipe.models[name].sha256, name)
    wanted = None if recipe.projection is None else recipe.projection.sha256
    got = None if content is None else content_sha256(content)
    if wanted != got:
        hint = "name the recipe's file: projection=FILE.npz" if wanted else "leave projection out"
        what = "extractor: sha256 of the projection"
        raise DataError(what, expected=wanted or "none", got=got or "none", hint=hint)
    return Parts(recipe, models, content)


def _projection(path: str | None, content: bytes | None) -> Projection | None:
    if path is None or content is None:
        return None
    return Projection(Path(path).name, content_sha256(content), len(content))


def _check_hash(got: str, expected: str, name: object) -> None:
    if got != expected:
        hint = "use the file that the recipe was made with"
        raise DataError(f"sha256 of {name}", expected=expected, got=got, hint=hint)
