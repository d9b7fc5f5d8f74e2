"""Extractor `boxes` with a real detector and a real backbone, on photographs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.centernet import INPUT, OUTPUT, SIZE, convert_centernet, labels
from support.refusals import refused

from sgraf_deploy.errors import GateError
from sgraf_deploy.features.base import Picture, RegionExtractor
from sgraf_deploy.features.choice import overlaps
from sgraf_deploy.features.decode import decode_photo
from sgraf_deploy.features.recipe import DETECTOR, Recipe
from sgraf_deploy.features.spec import Parts, open_extractor, open_parts, read_parts

pytestmark = pytest.mark.outside

FOUND = {
    # photograph of scikit-image's: what its most confident box is, and where one sees it
    "astronaut": ("person", (0, 0, 400, 512)),
    "coffee": ("cup", (172, 18, 410, 283)),
    "motorcycle_left": ("motorcycle", (110, 50, 690, 460)),
}
LEAST = 0.4


@pytest.fixture(scope="session")
def package(node_modules: Path) -> Path:
    return node_modules / "@vladmandic" / "human"


@pytest.fixture(scope="session")
def detector(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_centernet(package, tmp_path_factory.mktemp("centernet") / "centernet.onnx")


@pytest.fixture(scope="session")
def spec(detector: Path, lite2_file: Path) -> str:
    usual = "detector.preset=none,detector.filter=bilinear,mean=127,scale=128"
    return f"boxes:{detector}+{lite2_file},{usual}"


@pytest.fixture(scope="session")
def extractor(spec: str) -> RegionExtractor:
    return open_extractor(spec)


def photograph(name: str) -> Path:
    import skimage

    return Path(skimage.__file__).parent / "data" / f"{name}.png"


def cosines(a: Any, b: Any) -> Any:
    return (a * b).sum(axis=-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize("name", FOUND)
def test_the_detector_names_what_is_there(package: Path, detector: Path, name: str) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(detector), providers=["CPUExecutionProvider"])
    picture = Image.open(photograph(name)).convert("RGB")
    resized = picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    (found,) = session.run([OUTPUT], {INPUT: np.asarray(resized, np.float32)[None]})
    score, label = found[0, 0, 4:]
    assert len(labels(package)) == 80
    assert labels(package)[int(label)] == FOUND[name][0]
    assert score >= LEAST


@pytest.mark.parametrize("name", FOUND)
def test_the_first_region_is_what_is_there(extractor: RegionExtractor, name: str) -> None:
    picture = decode_photo(photograph(name))
    found = extractor.extract([picture])
    assert found.regions.shape == (1, 36, 1280)
    assert found.confidence is not None
    confidence, boxes = found.confidence[0], found.boxes[0]
    assert confidence[0] >= LEAST
    assert (np.diff(confidence) <= 0).all()
    assert overlaps(boxes[:1], np.array([FOUND[name][1]], np.float32)) > 0.8
    height, width, _ = picture.shape
    assert boxes.min() >= 0
    assert (boxes <= [width, height, width, height]).all()
    assert (overlaps(boxes, boxes) - np.eye(36)).max() <= 0.7
    assert (np.linalg.norm(found.regions[0], axis=1) > 0).all()


def rotated(picture: Picture, path: Path, **options: Any) -> Path:
    """A file that holds the picture turned by 90°, and says so, as cameras write them."""
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90° to look at it
    Image.fromarray(np.rot90(picture)).save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize("name", FOUND)
def test_a_rotated_copy_has_the_same_regions_and_upright_boxes(
    extractor: RegionExtractor, tmp_path: Path, name: str
) -> None:
    picture = decode_photo(photograph(name))
    path = rotated(picture, tmp_path / "turned.png")
    with Image.open(path) as stored:
        assert stored.size == picture.shape[:2]
    expected, found = (extractor.extract([one]) for one in (picture, decode_photo(path)))
    assert (cosines(found.regions, expected.regions) >= 0.99).all()
    assert found.regions.tobytes() == expected.regions.tobytes()
    assert found.boxes.tobytes() == expected.boxes.tobytes()


@pytest.mark.parametrize("name", FOUND)
def test_a_rotated_jpeg_has_the_same_regions_where_it_has_the_same_boxes(
    extractor: RegionExtractor, tmp_path: Path, name: str
) -> None:
    """Its noise swaps boxes of about the same confidence, and the last ones are others."""
    picture = decode_photo(photograph(name))
    path = rotated(picture, tmp_path / "turned.jpg", quality=95, subsampling=0)
    expected, found = (extractor.extract([one]) for one in (picture, decode_photo(path)))
    overlap = overlaps(found.boxes[0], expected.boxes[0])
    nearest, same = overlap.argmax(axis=1), overlap.max(axis=1) > 0.9
    assert overlap[0, 0] > 0.95
    assert same.sum() >= 27
    alike = cosines(found.regions[0], expected.regions[0, nearest])
    assert (alike[same] >= 0.99).all()


MISTAKES: dict[str, dict[str, Any]] = {
    "BGR": {"order": "BGR"},
    "0…1": {"scale": (255.0,) * 3},
    "−1…1": {"mean": (127.5,) * 3, "scale": (127.5,) * 3},
}


@pytest.fixture
def reopen(spec: str, extractor: RegionExtractor) -> Callable[[Recipe], RegionExtractor]:
    models = read_parts(spec).models
    return lambda recipe: open_parts(Parts(recipe, models, None))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_reference_picture_finds_what_the_detector_gets(
    extractor: RegionExtractor, reopen: Callable[[Recipe], RegionExtractor], mistake: str
) -> None:
    recipe = extractor.spec
    assert reopen(recipe).spec == recipe
    pixels = replace(recipe.pixels[DETECTOR], **MISTAKES[mistake])
    with refused(GateError):
        reopen(replace(recipe, pixels={**recipe.pixels, DETECTOR: pixels}))


@pytest.mark.parametrize("resampling", ["nearest", "bicubic"])
def test_and_how_it_is_resized(
    extractor: RegionExtractor, reopen: Callable[[Recipe], RegionExtractor], resampling: Any
) -> None:
    recipe = extractor.spec
    resizing = replace(recipe.resizing[DETECTOR], filter=resampling)
    with refused(GateError):
        reopen(replace(recipe, resizing={**recipe.resizing, DETECTOR: resizing}))
