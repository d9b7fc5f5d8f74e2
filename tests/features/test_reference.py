"""The reference picture finds the mistakes that norms and sparsity do not show, on a real model."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.built_once import BuiltOnce
from support.efficientnet import backbone_file
from support.refusals import naming, refused

from sgraf_deploy.errors import GateError
from sgraf_deploy.features.recipe import BACKBONE, Recipe
from sgraf_deploy.features.reference import (
    LEAST_COSINE,
    cosines,
    reference_picture,
)
from sgraf_deploy.features.spec import Parts, open_parts, parts_of, read_parts

LITE2 = "mean=127,scale=128"


@pytest.fixture(scope="module")
def parts(lite2_file: Path) -> Parts:
    """The right extractor, whose recipe holds what is expected."""
    made = read_parts(f"grid:{lite2_file},{LITE2}")
    return replace(made, recipe=open_parts(made).spec)


def test_the_picture_is_the_same_everywhere() -> None:
    """A change of it needs another version, and makes every recipe's reference void."""
    picture = reference_picture()
    assert (picture.shape, picture.dtype) == ((384, 480, 3), np.dtype(np.uint8))
    assert sha256(picture.tobytes()).hexdigest() == (
        "240c699478ce6e04bd256126234a6fbc2187b309223b5e328bc0675640c6dba5"
    )


def with_changes(recipe: Recipe, pixels: Any, resizing: Any) -> Recipe:
    return replace(
        recipe,
        pixels={BACKBONE: replace(recipe.pixels[BACKBONE], **pixels)},
        resizing={BACKBONE: replace(recipe.resizing[BACKBONE], **resizing)},
    )


def alike(value: float) -> tuple[float, float, float]:
    return value, value, value


MISTAKES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "colours in the other order": ({"order": "BGR"}, {}),
    "levels 0 … 255": ({"mean": alike(0), "scale": alike(1)}, {}),
    "levels / 255": ({"mean": alike(0), "scale": alike(255)}, {}),
    "levels / 255 − 0.5": ({"mean": alike(127.5), "scale": alike(255)}, {}),
    "nearest": ({}, {"filter": "nearest"}),
    "bilinear": ({}, {"filter": "bilinear"}),
    "lanczos": ({}, {"filter": "lanczos"}),
    "cropped": ({}, {"fit": "crop"}),
    "padded": ({}, {"fit": "pad"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_refused(mistake: str, parts: Parts) -> None:
    recipe = with_changes(parts.recipe, *MISTAKES[mistake])
    with refused(GateError, expected=naming(LEAST_COSINE)):
        open_parts(replace(parts, recipe=recipe))


def test_what_is_right_is_not_refused(parts: Parts) -> None:
    assert open_parts(parts).spec == parts.recipe


def test_another_number_of_threads_is_not_refused(parts: Parts) -> None:
    """Sums in another order are far from the bound."""
    first, second = (open_parts(parts, threads=count) for count in (1, 2))
    found, again = (one.extract([reference_picture()]).regions[0] for one in (first, second))
    assert cosines(found, again).mean() > 0.999999


def test_a_model_padded_as_for_another_size_is_refused(parts: Parts, built_once: BuiltOnce) -> None:
    """The same weights, and a recipe that says nothing of it but the model's hash."""
    file = backbone_file(built_once, padding_for=192)
    model = read_parts(f"grid:{file},{LITE2}").models[BACKBONE]
    named = replace(parts.recipe.models[BACKBONE], sha256=model.sha256, bytes=len(model.content))
    recipe = replace(parts.recipe, models={BACKBONE: named})
    with refused(GateError, expected=naming(LEAST_COSINE)):
        open_parts(parts_of(recipe, {BACKBONE: file}))


def test_cosines_are_of_rows() -> None:
    rows = np.array([[1.0, 0], [0, 2], [0, 0]])
    assert cosines(rows, rows * 3).tolist() == [1, 1, 1]
    assert cosines(rows, np.array([[0, 1.0], [0, 1], [0, 0]])).tolist() == [0, 1, 1]
    assert cosines(rows, np.array([[1.0, 0], [0, 1], [0, 1]])).tolist() == [1, 1, 0]
    assert cosines(rows, -rows).tolist() == [-1, -1, 1]
