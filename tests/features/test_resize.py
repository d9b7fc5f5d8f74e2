"""Resizing: the picture, where it lies, and the numbers of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.photographs import quarters

from sgraf_deploy.features.recipe import Pixels, Resizing
from sgraf_deploy.features.resize import model_input, resize

RANDOM = np.random.default_rng(7).integers(0, 256, (30, 50, 3), dtype=np.uint8)


@pytest.mark.parametrize("name", ["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"])
def test_a_squashed_picture_is_pillows(name: Any) -> None:
    found, frame = resize(RANDOM, Resizing(20, 16, "squash", name, 0))
    expected = Image.fromarray(RANDOM).resize((20, 16), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(found, np.asarray(expected))
    assert frame.to_picture(np.array([[0, 0, 20, 16]])).tolist() == [[0, 0, 50, 30]]


def test_a_view_of_an_array_is_resized_as_a_copy_is() -> None:
    resizing = Resizing(20, 16, "squash", "bicubic", 0)
    view = RANDOM[::-1, ::-1]
    np.testing.assert_array_equal(resize(view, resizing)[0], resize(view.copy(), resizing)[0])


@pytest.mark.parametrize(
    ("size", "box"),
    [((10, 10), (10, 0, 40, 30)), ((20, 4), (0, 10, 50, 20)), ((5, 3), (0, 0, 50, 30))],
)
def test_a_cropped_picture_is_the_middle(
    size: tuple[int, int], box: tuple[int, int, int, int]
) -> None:
    found, frame = resize(RANDOM, Resizing(*size, "crop", "box", 0))
    x1, y1, x2, y2 = box
    expected = Image.fromarray(RANDOM[y1:y2, x1:x2]).resize(size, Image.Resampling.BOX)
    np.testing.assert_array_equal(found, np.asarray(expected))
    assert frame.to_picture(np.array([0, 0, *size])).tolist() == list(box)


@pytest.mark.parametrize(
    ("size", "used"), [((25, 25), (25, 15)), ((80, 30), (50, 30)), ((1, 9), (1, 1))]
)
def test_a_padded_picture_is_above_and_left(size: tuple[int, int], used: tuple[int, int]) -> None:
    found, frame = resize(RANDOM, Resizing(*size, "pad", "bicubic", 114))
    columns, rows = used
    expected = Image.fromarray(RANDOM).resize(used, Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(found[:rows, :columns], np.asarray(expected))
    assert (found[rows:] == 114).all()
    assert (found[:, columns:] == 114).all()
    assert frame.to_picture(np.array([0, 0, *used])).tolist() == [0, 0, 50, 30]
    assert frame.to_picture(np.array([0, 0, *size])).tolist() == [0, 0, 50, 30]


@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_boxes_come_back_from_the_input(fit: Any) -> None:
    _, frame = resize(RANDOM, Resizing(24, 17, fit, "box", 0))
    boxes = np.array([[12.5, 3, 30, 20], [20, 10, 21, 11]])
    np.testing.assert_allclose(frame.to_picture(frame.to_input(boxes)), boxes, rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 4000), (4000, 1)])
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_pictures_of_one_pixel_are_resized(fit: Any, height: int, width: int) -> None:
    picture = np.full((height, width, 3), 77, np.uint8)
    found, _ = resize(picture, Resizing(8, 6, fit, "bicubic", 77))
    assert (found == 77).all()


def test_levels_become_numbers_by_channel() -> None:
    picture = quarters(2, 2)
    pixels = Pixels("RGB", "NCHW", (1.0, 2.0, 3.0), (10.0, 20.0, 40.0))
    found = model_input(picture, pixels)
    assert (found.dtype, found.shape) == (np.dtype(np.float32), (1, 3, 2, 2))
    np.testing.assert_allclose(found[0, :, 0, 0], [24.9, 0.4, 0.425], rtol=1e-6)
    last = model_input(picture, Pixels("RGB", "NHWC", pixels.mean, pixels.scale))
    np.testing.assert_array_equal(last.transpose(0, 3, 1, 2), found)
    reversed_ = model_input(picture, Pixels("BGR", "NCHW", (3.0, 2.0, 1.0), (40.0, 20.0, 10.0)))
    np.testing.assert_array_equal(reversed_[:, ::-1], found)
    assert all(one.flags.c_contiguous for one in (found, last, reversed_))
