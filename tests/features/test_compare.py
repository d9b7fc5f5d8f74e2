"""Features of the same photographs, compared: matched by ids and boxes, or by their order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import naming, refused

from sgraf_deploy.errors import DataError
from sgraf_deploy.features.compare import Likeness, Side, compare_features, match_boxes
from sgraf_deploy.features.reference import cosines

REGIONS, DIM, IMAGES = 6, 8, 4
NAMES = [f"photo{row}.jpg" for row in range(IMAGES)]


def features(seed: int = 0, images: int = IMAGES, regions: int = REGIONS) -> NDArray[np.float32]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((images, regions, DIM)).astype(np.float32)


def grid(images: int = IMAGES, regions: int = REGIONS) -> NDArray[np.float32]:
    """Boxes side by side, 10 × 10 pixels each."""
    left = 10.0 * np.arange(regions)
    one = np.stack([left, 0 * left, left + 10, 0 * left + 10], axis=1)
    return np.tile(one, (images, 1, 1)).astype(np.float32)


def side(
    folder: Path,
    regions: NDArray[Any],
    names: list[str] | None = NAMES,
    boxes: NDArray[Any] | None = None,
    sizes: tuple[int, int] | None = None,
) -> Side:
    folder.mkdir()
    np.save(folder / "dev_ims.npy", regions)
    if names is not None:
        (folder / "dev_ids.txt").write_text("\n".join(names))
    if boxes is not None:
        np.save(folder / "dev_boxes.npy", boxes)
    if sizes is not None:
        np.save(folder / "dev_sizes.npy", np.tile(np.array(sizes, np.int32), (len(regions), 1)))
    return Side.open(folder, "dev", 5)


def figures(found: Likeness) -> list[float | None]:
    return [
        *(round(value, 12) for value in (found.mean, found.lowest, found.close, found.equal)),
        found.moved,
    ]


def test_the_same_features_are_the_same(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    first = side(tmp_path / "a", features(), boxes=grid())
    second = side(tmp_path / "b", features(), boxes=grid())
    found = compare_features(first, second, lambda done, total: told.append((done, total)))
    assert figures(found) == [1, 1, 1, 1, 0]
    assert (found.images, found.regions) == (IMAGES, IMAGES * REGIONS)
    assert (found.images_by, found.regions_by) == ("ids", "boxes")
    assert told == [(row + 1, IMAGES) for row in range(IMAGES)]


def test_the_one_region_that_differs_is_found(tmp_path: Path) -> None:
    changed = features()
    changed[2, 3] = -changed[2, 3]
    found = compare_features(side(tmp_path / "a", features()), side(tmp_path / "b", changed))
    assert found.lowest == pytest.approx(-1)
    assert found.lowest_at == ("photo2.jpg", 3)
    assert found.close == pytest.approx(1 - 1 / (IMAGES * REGIONS))
    assert found.equal == pytest.approx(1 - 1 / (IMAGES * REGIONS))
    assert found.mean == pytest.approx(1 - 2 / (IMAGES * REGIONS))
    assert (found.regions_by, found.moved) == ("order", None)


def test_photographs_are_matched_by_id_and_others_are_counted(tmp_path: Path) -> None:
    order = [3, 0, 2]
    second = np.concatenate([features()[order], features(1, 2)])
    names = [*(NAMES[row] for row in order), "x.jpg", "y.jpg"]
    found = compare_features(side(tmp_path / "a", features()), side(tmp_path / "b", second, names))
    assert figures(found)[:4] == [1, 1, 1, 1]
    assert (found.images, found.only_first, found.only_second) == (3, 1, 2)


def test_without_ids_rows_are_matched(tmp_path: Path) -> None:
    first = side(tmp_path / "a", features(), None)
    found = compare_features(first, side(tmp_path / "b", features()))
    assert (found.images_by, found.close) == ("rows", 1)
    with refused(DataError, expected=naming("dev_ids.txt"), got=naming(4, 3)):
        compare_features(first, side(tmp_path / "c", features(0, 3), NAMES[:3]))
    with refused(DataError, expected=naming("photo0.jpg"), got=naming("0")):
        other = side(tmp_path / "d", features(), [str(row) for row in range(IMAGES)])
        compare_features(side(tmp_path / "e", features()), other)


def test_regions_in_another_order_are_found_by_their_boxes(tmp_path: Path) -> None:
    order = [5, 3, 1, 0, 2, 4]
    first = side(tmp_path / "a", features(), boxes=grid())
    shuffled = side(tmp_path / "b", features()[:, order], boxes=grid()[:, order])
    assert figures(compare_features(first, shuffled))[2:] == [1, 1, 0]
    without = side(tmp_path / "c", features()[:, order])
    assert compare_features(first, without).close < 0.5


def test_boxes_that_moved_are_counted(tmp_path: Path) -> None:
    boxes = grid()
    boxes[:, 1, 2] -= 2.0  # 80 of 100 pixels remain
    boxes[:, 2, 2] -= 0.5
    first = side(tmp_path / "a", features(), boxes=grid())
    found = compare_features(first, side(tmp_path / "b", features(), boxes=boxes))
    assert found.moved == pytest.approx(1 / REGIONS)
    assert found.close == 1


def test_boxes_of_a_smaller_copy_are_scaled(tmp_path: Path) -> None:
    first = side(tmp_path / "a", features(), boxes=grid(), sizes=(60, 10))
    second = side(tmp_path / "b", features(), boxes=grid() / 2, sizes=(30, 5))
    assert figures(compare_features(first, second))[2:] == [1, 1, 0]
    unscaled = side(tmp_path / "c", features(), boxes=grid() / 2)
    assert compare_features(first, unscaled).moved == 1


def test_another_number_of_regions_needs_boxes(tmp_path: Path) -> None:
    first = side(tmp_path / "a", features(), boxes=grid())
    fewer = side(tmp_path / "b", features()[:, :4], boxes=grid()[:, :4])
    found = compare_features(first, fewer)
    assert (found.regions, found.close, found.moved) == (IMAGES * 4, 1, 0)
    with refused(DataError, "c", expected=naming(6, 8), got=(4, 8)):
        compare_features(first, side(tmp_path / "c", features()[:, :4]))
    with refused(DataError, "d", got=(6, 4)):
        compare_features(first, side(tmp_path / "d", features()[:, :, :4], boxes=grid()))


def test_elements_are_compared_in_the_coarser_dtype(tmp_path: Path) -> None:
    first = side(tmp_path / "a", features())
    found = compare_features(first, side(tmp_path / "b", features().astype(np.float16)))
    assert found.equal == 1
    assert 0.999 < found.lowest < 1


def test_wrong_boxes_are_refused(tmp_path: Path) -> None:
    with refused(DataError, "dev_boxes.npy"):
        side(tmp_path / "a", features(), boxes=grid(3))


def test_rows_of_zeros_are_alike_only_among_themselves() -> None:
    x = np.array([[0.0, 0.0], [0.0, 0.0], [1e-3, 0.0]])
    y = np.array([[0.0, 0.0], [1.0, 0.0], [5e3, 0.0]])
    assert cosines(x, y).tolist() == [1, 0, 1]


def test_pairs_are_those_that_overlap_most() -> None:
    first = np.array([[0.0, 0, 10, 10], [0, 0, 9, 10]])
    second = np.array([[0.0, 0, 8, 10], [0, 0, 10, 10], [50, 50, 60, 60]])
    (rows, columns), overlap = match_boxes(first, second)
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    assert overlap.tolist() == pytest.approx([1, 80 / 90])
    empty = np.zeros((2, 4))
    assert match_boxes(empty, empty + 1)[1].tolist() == [0, 0]
