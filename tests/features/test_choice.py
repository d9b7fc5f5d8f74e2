"""Which boxes become regions: order, duplicates, and what fills up."""

from __future__ import annotations

import numpy as np
import pytest

from sgraf_deploy.features.choice import Floats, choose, grid, overlaps

AREA = np.array([0, 0, 60, 40], np.float32)


def boxes(*rows: tuple[float, float, float, float]) -> Floats:
    return np.array(rows, np.float32).reshape(-1, 4)


def scores(*values: float) -> Floats:
    return np.array(values, np.float32)


APART = boxes((0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10), (0, 20, 10, 30))


def test_the_most_confident_come_first_and_the_earlier_of_equals() -> None:
    found, confidence = choose(APART, scores(0.2, 0.5, 0.9, 0.5), AREA, 3, 0.7)
    assert found.tolist() == APART[[2, 1, 3]].tolist()
    assert confidence.tolist() == scores(0.9, 0.5, 0.5).tolist()


def test_duplicates_are_left_out_at_the_overlap_that_is_said() -> None:
    near = boxes((0, 0, 10, 10), (0, 0, 10, 8), (20, 0, 30, 10), (40, 0, 50, 10))
    confident = scores(0.9, 0.8, 0.7, 0.6)
    assert choose(near, confident, AREA, 3, 0.7)[0].tolist() == near[[0, 2, 3]].tolist()
    assert choose(near, confident, AREA, 3, 0.8)[0].tolist() == near[[0, 1, 2]].tolist()


def test_a_duplicate_of_a_duplicate_may_stay() -> None:
    """Suppression is greedy: only what was chosen suppresses."""
    steps = boxes((0, 0, 10, 10), (2, 0, 12, 10), (4, 0, 14, 10))
    found, _ = choose(steps, scores(0.9, 0.8, 0.7), AREA, 2, 0.6)
    assert found.tolist() == steps[[0, 2]].tolist()


@pytest.mark.parametrize("count", range(5))
def test_cells_fill_up_where_boxes_are_too_few(count: int) -> None:
    given = APART[:count]
    found, confidence = choose(given, scores(*[0.5] * count), AREA, 9, 0.7)
    cells = grid(AREA, 3).tolist()
    assert (found.shape, confidence.shape) == ((9, 4), (9,))
    assert found[:count].tolist() == given.tolist()
    assert confidence.tolist() == [0.5] * count + [0.0] * (9 - count)
    filled = found[count:].tolist()
    assert all(cell in cells for cell in filled)
    assert filled == sorted(filled, key=cells.index)
    assert len({tuple(box) for box in found.tolist()}) == 9


def test_no_cell_repeats_a_box() -> None:
    """A detector that finds the grid's own cells: the others are added, not these again."""
    cells = grid(AREA, 3)
    given = cells[[8, 0, 4, 2]] + boxes((0.5, 0, 0, 0))
    found, _ = choose(given, scores(0.9, 0.8, 0.7, 0.6), AREA, 9, 0.7)
    assert found[4:].tolist() == cells[[1, 3, 5, 6, 7]].tolist()
    between = overlaps(found, found) - np.eye(9)
    assert between.max() < 0.5


def test_cells_lie_where_boxes_do_not() -> None:
    left = boxes((0, 0, 30, 40))
    found, _ = choose(left, scores(0.9), AREA, 3, 0.7)
    assert found[1:, 0].tolist() == [30, 30]


def test_cells_divide_up_the_area() -> None:
    area = np.array([10, 5, 70, 45], np.float32)
    found = grid(area, 4)
    sizes = found[:, 2:] - found[:, :2]
    assert sizes.tolist() == [[15, 10]] * 16
    assert found[[0, 3, 12, 15]].tolist() == [
        [10, 5, 25, 15],
        [55, 5, 70, 15],
        [10, 35, 25, 45],
        [55, 35, 70, 45],
    ]


def test_overlaps_are_intersections_over_unions() -> None:
    found = overlaps(boxes((0, 0, 2, 2)), boxes((0, 0, 2, 2), (1, 0, 3, 2), (5, 5, 6, 6)))
    np.testing.assert_allclose(found, [[1, 1 / 3, 0]], rtol=1e-6)
