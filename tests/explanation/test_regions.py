"""Where regions lie: boxes beside a split, cells of a grid, or numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import ANY, refused

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.explanation.regions import boxes_of, grid, numbered, region_layout


def stored(folder: Path, boxes: NDArray[Any]) -> Path:
    np.save(folder / "dev_boxes.npy", boxes)
    return folder / "dev_boxes.npy"


def test_regions_without_places_are_numbers() -> None:
    found = numbered(3)

    assert found.names == ("#0", "#1", "#2")
    assert (found.boxes, found.size) == (None, None)


def test_a_grid_runs_row_by_row() -> None:
    found = grid("2x3", 6, (90, 60))

    assert found.names == ("r1c1", "r1c2", "r1c3", "r2c1", "r2c2", "r2c3")
    assert found.boxes is not None
    assert found.boxes[1].tolist() == [30, 0, 60, 30]
    assert found.boxes[5].tolist() == [60, 30, 90, 60]
    assert (found.size, found.cells) == ((90, 60), True)
    alone = grid("2×3", 6)
    assert alone.size is not None
    assert alone.size[0] * 2 == alone.size[1] * 3


@pytest.mark.parametrize("text", ["6", "2x2", "3x3", "x", "0x6", "2x3x1", "-2x-3", "99999x1", ""])
def test_a_grid_of_another_size_is_refused(text: str) -> None:
    with refused(InputError, expected=ANY, got=ANY) as found:
        grid(text, 6)
    assert "--grid" in str(found.error)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32])
def test_boxes_are_those_of_the_row(tmp_path: Path, kind: Any) -> None:
    boxes = np.arange(24).reshape(2, 3, 4).astype(kind)

    found = boxes_of(stored(tmp_path, boxes), 1, (2, 3), (30, 40))

    assert found.boxes is not None
    assert found.boxes.tolist() == boxes[1].tolist()
    assert (found.size, found.cells) == ((30, 40), False)
    assert boxes_of(tmp_path / "dev_boxes.npy", 1, (2, 3)).size == (22, 23)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 3, 5), np.float32),
        np.zeros((1, 3, 4), np.float32),
        np.zeros((2, 3, 4), bool),
        np.zeros((2, 3, 4), complex),
        np.full((2, 3, 4), np.nan, np.float32),
        np.full((2, 3, 4), 50, np.float32),
        np.tile(np.array([9, 9, 1, 1], np.float32), (2, 3, 1)),
        np.tile(np.array([-9, 0, 1, 1], np.float32), (2, 3, 1)),
    ],
    ids=["axes", "images", "bool", "complex", "nan", "outside", "turned", "negative"],
)
def test_boxes_that_do_not_fit_are_refused(tmp_path: Path, wrong: NDArray[Any]) -> None:
    with pytest.raises(DataError):
        boxes_of(stored(tmp_path, wrong), 0, (2, 3), (30, 40))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_boxes_that_are_not_finite_are_refused_without_a_picture_too(
    tmp_path: Path, value: float
) -> None:
    boxes = np.arange(24, dtype=np.float64).reshape(2, 3, 4)
    boxes[1, 2, 3] = value
    path = stored(tmp_path, boxes)
    assert boxes_of(path, 0, (2, 3)).boxes is not None
    with refused(DataError, path, "image 1", "region 2", expected=ANY, got=boxes[1, 2].tolist()):
        boxes_of(path, 1, (2, 3))


def header(text: str) -> bytes:
    """A .npy file of version 1.0 with this header and no data."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"nothing", b"\x93NUMPY\x01\x00", b"PK\x03\x04nothing", b"\x80\x04N."),
        header("((("),
        header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**40}, 3, 4)}}"),
        header("{'descr': '<f3', 'fortran_order': False, 'shape': (2, 3, 4)}"),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3, 4)}"),
    ],
    ids=["empty", "text", "cut", "zip", "pickle", "syntax", "huge", "dtype", "no-data"],
)
def test_a_file_that_holds_no_boxes_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dev_boxes.npy"
    path.write_bytes(content)
    with pytest.raises(DataError):
        boxes_of(path, 0, (2, 3))


def test_pickled_boxes_are_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(DataError):
        boxes_of(stored(tmp_path, np.array([{}, None], dtype=object)), 0, (2, 3))


def test_a_grid_goes_before_boxes_and_a_picture_needs_one_of_them(tmp_path: Path) -> None:
    path = tmp_path / "dev_boxes.npy"
    assert region_layout(path, 0, (2, 4), None, None).names == numbered(4).names
    with refused(InputError, expected=ANY, got=ANY, hint=ANY):
        region_layout(path, 0, (2, 4), None, (30, 40))
    stored(tmp_path, np.zeros((2, 4, 4), np.float32))
    assert not region_layout(path, 0, (2, 4), None, (30, 40)).cells
    assert region_layout(path, 0, (2, 4), "2x2", (30, 40)).cells
