"""The recipe's file: read strictly, written whole, compared by what decides the output."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.refusals import place, refused

from sgraf_deploy.errors import DataError
from sgraf_deploy.features.recipe import (
    BACKBONE,
    DETECTOR,
    DOCUMENT,
    FILE,
    Decoding,
    ModelFile,
    Pixels,
    Projection,
    Recipe,
    Reference,
    Resizing,
    differences,
    read_recipe,
    write_recipe,
)
from sgraf_deploy.schema import encode

RECIPE = Recipe(
    schema_version=1,
    kind="grid",
    decoding=Decoding(1),
    models={BACKBONE: ModelFile("small.onnx", "a" * 64, 900, "image", ("map",))},
    resizing={BACKBONE: Resizing(16, 24, "squash", "bicubic", 0)},
    pixels={BACKBONE: Pixels("RGB", "NCHW", (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))},
    skip=0,
    detections=None,
    projection=Projection("pca.npz", "b" * 64, 70),
    regions=2,
    img_dim=3,
    reference=Reference(1, (2, 3), "AAAAAAAAAAAAAAAA"),
)

Change = Callable[[Any], Any]


def test_a_recipe_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_recipe(tmp_path, RECIPE)
    assert read_recipe(tmp_path / FILE) == RECIPE
    assert read_recipe(tmp_path / FILE).sha256 == RECIPE.sha256


def test_a_recipe_that_was_never_made_whole_is_refused(tmp_path: Path) -> None:
    write_recipe(tmp_path, replace(RECIPE, img_dim=0, reference=None))
    with refused(DataError, tmp_path / FILE, "reference"):
        read_recipe(tmp_path / FILE)


@pytest.mark.parametrize(
    ("names", "value", "where"),
    [
        (["schema_version"], 2, "schema_version"),
        (["kind"], "frcnn", "kind"),
        (["kind"], "boxes", "models"),
        (["more"], 1, "more"),
        (["decoding", "rules"], 2, "decoding.rules"),
        (["decoding", "draft"], True, "decoding.draft"),
        (["models"], {}, "models"),
        (["models", DETECTOR], encode(RECIPE.models[BACKBONE]), "models"),
        (["models", BACKBONE, "file"], "../small.onnx", "models.backbone.file"),
        (["models", BACKBONE, "file"], "", "models.backbone.file"),
        (["models", BACKBONE, "file"], "a\\b.onnx", "models.backbone.file"),
        (["models", BACKBONE, "file"], "..", "models.backbone.file"),
        (["models", BACKBONE, "sha256"], "a" * 63, "models.backbone.sha256"),
        (["models", BACKBONE, "sha256"], "A" * 64, "models.backbone.sha256"),
        (["models", BACKBONE, "bytes"], 0, "models.backbone.bytes"),
        (["models", BACKBONE, "outputs"], [], "models.backbone.outputs"),
        (["models", BACKBONE, "outputs"], ["map", "map"], "models.backbone.outputs"),
        (["projection", "file"], "/pca.npz", "projection.file"),
        (["resizing", BACKBONE, "width"], 0, "resizing.backbone.width"),
        (["resizing", BACKBONE, "height"], 100_000, "resizing.backbone.height"),
        (["resizing", BACKBONE, "fill"], 256, "resizing.backbone.fill"),
        (["resizing", BACKBONE, "filter"], "cubic", "resizing.backbone.filter"),
        (["resizing", BACKBONE, "fit"], "stretch", "resizing.backbone.fit"),
        (["resizing"], {}, "resizing"),
        (["pixels", BACKBONE, "scale"], [1, 0, 1], "pixels.backbone.scale"),
        (["pixels", BACKBONE, "mean"], [1, 0], "pixels.backbone.mean"),
        (["pixels", BACKBONE, "order"], "GBR", "pixels.backbone.order"),
        (["pixels"], {"other": encode(RECIPE.pixels[BACKBONE])}, "pixels"),
        (["skip"], -1, "skip"),
        (["detections"], {"order": "xyxy", "unit": "pixels", "overlap": 0.7}, "detections"),
        (["regions"], 4, "reference.shape"),
        (["img_dim"], 0, "reference.shape"),
    ],
)
def test_a_wrong_field_is_named(
    names: list[str], value: object, where: str, tmp_path: Path
) -> None:
    document = json.loads(json.dumps(encode(RECIPE)))
    inner = document
    for name in names[:-1]:
        inner = inner[name]
    inner[names[-1]] = value
    (tmp_path / FILE).write_text(json.dumps(document), "utf-8")
    with refused(DataError, tmp_path / FILE, hint="sgraf-deploy features") as found:
        read_recipe(tmp_path / FILE)
    assert isinstance(found.error.__cause__, DataError)
    assert place(found.error.__cause__) == where


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    with refused(DataError, tmp_path / FILE):
        read_recipe(tmp_path / FILE)
    for content in (b"", b"[]", b"{}", b"\xff", b"[" * 100):
        (tmp_path / FILE).write_bytes(content)
        with refused(DataError, tmp_path / FILE):
            read_recipe(tmp_path / FILE)
    with (tmp_path / FILE).open("wb") as file:
        file.truncate(DOCUMENT.most_bytes + 1)
    with refused(DataError, tmp_path / FILE):
        read_recipe(tmp_path / FILE)


@pytest.mark.parametrize(
    "other",
    [
        replace(RECIPE, reference=Reference(1, (2, 3), "AAAAAAAAAAAAAAAB")),
        replace(RECIPE, models={BACKBONE: replace(RECIPE.models[BACKBONE], file="other.onnx")}),
        replace(RECIPE, projection=Projection("other.npz", "b" * 64, 70)),
    ],
    ids=["reference", "model's name", "projection's name"],
)
def test_what_decides_nothing_is_no_difference(other: Recipe) -> None:
    assert other != RECIPE
    assert other.sha256 == RECIPE.sha256
    assert differences(RECIPE, other) == []


@pytest.mark.parametrize(
    ("other", "paths"),
    [
        (replace(RECIPE, skip=1), ["skip"]),
        (
            replace(RECIPE, models={BACKBONE: replace(RECIPE.models[BACKBONE], sha256="c" * 64)}),
            ["models.backbone.sha256"],
        ),
        (
            replace(RECIPE, pixels={BACKBONE: Pixels("BGR", "NCHW", (1, 2, 4), (4, 5, 6))}),
            ["pixels.backbone.order", "pixels.backbone.mean"],
        ),
        (
            replace(RECIPE, projection=None),
            ["projection.sha256", "projection.bytes"],
        ),
    ],
)
def test_differences_are_named_by_their_paths(other: Recipe, paths: list[str]) -> None:
    assert other.sha256 != RECIPE.sha256
    assert [line.partition(":")[0] for line in differences(RECIPE, other)] == paths
