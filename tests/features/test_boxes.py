"""Extractor `boxes` on pictures whose boxes and regions can be told by looking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.box_models import write_backbone, write_detector
from support.refusals import naming, refused

from sgraf_deploy.errors import DataError, GateError, InputError
from sgraf_deploy.features.base import Picture, RegionExtractor
from sgraf_deploy.features.boxes import BoxExtractor
from sgraf_deploy.features.choice import grid
from sgraf_deploy.features.recipe import BACKBONE, DETECTOR, Recipe
from sgraf_deploy.features.spec import Parts, open_extractor, open_parts, read_parts

UNIT = ",preset=unit,detector.preset=unit,regions=9"


def black(width: int = 160, height: int = 80) -> Picture:
    return np.zeros((height, width, 3), np.uint8)


def with_red(box: tuple[int, int, int, int], level: int = 255, **size: int) -> Picture:
    left, top, right, bottom = box
    picture = black(**size)
    picture[top:bottom, left:right, 0] = level
    return picture


@pytest.fixture
def opened(tmp_path: Path) -> Callable[..., RegionExtractor]:
    """Open the small models; keywords go to the detector, `options` behind the SPEC."""

    def open_it(options: str = "", **detector: Any) -> RegionExtractor:
        found = write_detector(tmp_path / "detector.onnx", **detector)
        backbone = write_backbone(tmp_path / "backbone.onnx")
        return open_extractor(f"boxes:{found}+{backbone}{UNIT}{options}")

    return open_it


def test_the_box_and_the_region_are_where_the_red_is(
    opened: Callable[..., RegionExtractor],
) -> None:
    extractor = opened()
    picture = with_red((80, 20, 120, 40))
    found = extractor.extract([picture, black()])
    assert (extractor.regions, extractor.img_dim) == (9, 3)
    assert found.regions.shape == (2, 9, 3)
    assert found.boxes.shape == (2, 9, 4)
    assert found.confidence is not None
    assert found.boxes[0, 0].tolist() == [80, 20, 120, 40]
    np.testing.assert_allclose(found.confidence[0, 0], 1, atol=0.2)  # the filter blurs the edges
    red, *others = found.regions[0, 0].tolist()
    assert red > 0.6
    assert others == [0, 0]


def test_regions_come_by_confidence_then_cells_row_by_row(
    opened: Callable[..., RegionExtractor],
) -> None:
    picture = with_red((0, 60, 40, 80), level=250)
    picture[0:20, 120:160, 0] = 120
    picture[40:60, 40:80, 0] = 190
    found = opened(",detector.filter=box").extract([picture])
    assert found.confidence is not None
    boxes, confidence = found.boxes[0], found.confidence[0]
    named = [[0, 60, 40, 80], [40, 40, 80, 60], [120, 0, 160, 20]]
    assert boxes[:3].tolist() == named
    assert (confidence > 0).tolist() == [True] * 3 + [False] * 6
    assert confidence.tolist() == sorted(confidence.tolist(), reverse=True)
    cells = grid(np.array([0, 0, 160, 80], np.float32), 3).tolist()
    filled = boxes[3:].tolist()
    assert filled == sorted(filled, key=cells.index)


def test_a_photograph_without_boxes_gets_a_grid(opened: Callable[..., RegionExtractor]) -> None:
    """All of them different: repeated regions and zeros cost a third of the recall."""
    picture = black()
    picture[..., 1] = np.linspace(0, 255, 160)
    picture[..., 2] = np.linspace(0, 255, 80)[:, None]
    found = opened().extract([picture])
    assert found.confidence is not None
    assert found.confidence.tolist() == [[0] * 9]
    assert found.boxes[0].tolist() == grid(np.array([0, 0, 160, 80], np.float32), 3).tolist()
    assert len({tuple(row) for row in found.regions[0].round(3).tolist()}) == 9


@pytest.mark.parametrize(
    "said",
    [
        {"order": "xyxy", "unit": "fraction"},
        {"order": "yxyx", "unit": "pixels"},
        {"order": "yxyx", "unit": "fraction", "form": "classes"},
        {"order": "cxcywh", "unit": "fraction"},
        {"form": "classes"},
        {"form": "one"},
    ],
    ids=str,
)
def test_a_detector_may_say_it_in_any_form(
    opened: Callable[..., RegionExtractor], said: dict[str, str]
) -> None:
    picture = with_red((80, 20, 130, 45), level=200)
    usual = opened().extract([picture])
    options = f",detector.boxes={said.get('order', 'xyxy')},detector.unit="
    other = opened(options + said.get("unit", "pixels"), **said).extract([picture])
    assert other.boxes.tolist() == usual.boxes.tolist()
    assert other.regions.tobytes() == usual.regions.tobytes()
    assert other.confidence is not None
    assert usual.confidence is not None
    assert other.confidence.tobytes() == usual.confidence.tobytes()


def test_boxes_end_where_the_backbone_sees_nothing(opened: Callable[..., RegionExtractor]) -> None:
    """Of 200 × 80 pixels a square in the middle is seen, x from 60 to 140; all boxes are in it."""
    picture = with_red((50, 20, 100, 40), width=200)
    picture[60:80, 0:50, 0] = 255  # Outside: no region, whatever the confidence.
    found = opened(",fit=crop").extract([picture])
    assert found.boxes[0, 0].tolist() == [60, 20, 100, 40]
    assert found.boxes[..., [0, 2]].min() == 60
    assert found.boxes[..., [0, 2]].max() == 140
    assert np.abs(found.regions[0, 0]).max() > 0.5


@pytest.mark.parametrize("fit", ["pad", "crop", "squash"])
def test_the_detectors_fit_is_undone(opened: Callable[..., RegionExtractor], fit: str) -> None:
    """A box that the detector knows in its input is where the red is in the photograph."""
    place = {"pad": (40, 40, 80, 80), "crop": (60, 20, 80, 40), "squash": (40, 20, 80, 40)}[fit]
    found = opened(f",detector.fit={fit}").extract([with_red(place)])
    assert found.boxes[0, 0].tolist() == list(place)


def test_a_picture_gives_the_same_bytes_in_any_company(
    opened: Callable[..., RegionExtractor],
) -> None:
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (50 + 9 * i, 70, 3)).astype(np.uint8) for i in range(4)]
    extractor = opened()
    together = extractor.extract(pictures)
    for place, picture in enumerate(pictures):
        alone = extractor.extract([picture])
        assert alone.regions.tobytes() == together.regions[place].tobytes()
        assert alone.boxes.tobytes() == together.boxes[place].tobytes()


def test_no_pictures_are_no_regions(opened: Callable[..., RegionExtractor]) -> None:
    found = opened().extract([])
    assert found.confidence is not None
    shapes = (found.regions.shape, found.boxes.shape, found.confidence.shape)
    assert shapes == ((0, 9, 3), (0, 9, 4), (0, 9))


def test_a_photograph_of_one_pixel_has_regions(opened: Callable[..., RegionExtractor]) -> None:
    found = opened().extract([np.full((1, 1, 3), 255, np.uint8)])
    np.testing.assert_allclose(found.regions, 1, rtol=1e-5)
    assert found.boxes.max() == 1


def test_the_recipe_says_how_boxes_are_read(opened: Callable[..., RegionExtractor]) -> None:
    usual = opened().spec
    other = opened(",detector.overlap=0.5").spec
    assert usual.detections is not None
    assert other.detections is not None
    assert (usual.detections.overlap, other.detections.overlap) == (0.7, 0.5)
    assert usual.sha256 != other.sha256
    assert set(usual.models) == {BACKBONE, DETECTOR}


@pytest.mark.parametrize("option", ["overlap=2", "overlap=x", "boxes=xywh", "unit=cm"])
def test_options_that_mean_nothing_are_refused(
    opened: Callable[..., RegionExtractor], option: str
) -> None:
    with refused(InputError, f"detector.{option.partition('=')[0]}"):
        opened(f",detector.{option}")


def test_scores_that_are_no_confidence_are_refused_at_opening(
    opened: Callable[..., RegionExtractor],
) -> None:
    """Logits, say: the reference picture has some red, so it is seen before any photograph."""
    with refused(InputError, "detector.onnx", expected=naming("0", "1")):
        opened(gain=1000)


def test_a_recipe_without_detections_opens_no_boxes(
    opened: Callable[..., RegionExtractor],
) -> None:
    one = opened().spec
    parts: Any = {
        field: {BACKBONE: getattr(one, field)[BACKBONE]}
        for field in ("models", "resizing", "pixels")
    }
    recipe = replace(one, kind="grid", detections=None, **parts)
    with refused(DataError, "detections"):
        BoxExtractor(recipe, {}, None)


def changed(recipe: Recipe, field: str, model: str, **changes: Any) -> Recipe:
    """A recipe with one mistake in how pictures go into one of the models."""
    whole: Mapping[str, Any] = getattr(recipe, field)
    parts: Any = {field: {**whole, model: replace(whole[model], **changes)}}
    return replace(recipe, **parts)


MISTAKES: dict[str, Callable[[Recipe], Recipe]] = {
    "detector BGR": lambda one: changed(one, "pixels", DETECTOR, order="BGR"),
    "detector fit": lambda one: changed(one, "resizing", DETECTOR, fit="crop"),
    "backbone BGR": lambda one: changed(one, "pixels", BACKBONE, order="BGR"),
    "backbone fit": lambda one: changed(one, "resizing", BACKBONE, fit="crop"),
    "order of corners": lambda one: replace(
        one, detections=one.detections and replace(one.detections, order="cxcywh")
    ),
    "unit": lambda one: replace(
        one, detections=one.detections and replace(one.detections, unit="fraction")
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_reference_picture_finds_a_mistake(
    opened: Callable[..., RegionExtractor], tmp_path: Path, mistake: str
) -> None:
    recipe = opened().spec
    paths = f"boxes:{tmp_path / 'detector.onnx'}+{tmp_path / 'backbone.onnx'}{UNIT}"
    models = read_parts(paths).models
    assert open_parts(Parts(recipe, models, None)).spec == recipe
    with refused(GateError):
        open_parts(Parts(MISTAKES[mistake](recipe), models, None))
