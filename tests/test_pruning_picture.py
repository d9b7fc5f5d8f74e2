"""The picture of the pairs that are left out."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from tools.pages.pruning import CELL, PICTURE, draw, squares


def test_a_run_of_squares_is_one_rectangle() -> None:
    cells = np.array([[0, 1, 1, 2], [0, 0, 0, 0], [1, 0, 1, 1]])
    widths = [float(one.split('width="')[1].split('"')[0]) for one in squares(cells)]
    assert widths == [2 * CELL, CELL, CELL, 2 * CELL]


def test_the_picture_says_how_many_pairs_are_scored() -> None:
    cells = np.zeros((4, 20), np.int64)
    cells[0, :4] = 2
    cells[1, :4] = 1
    root = ElementTree.fromstring(draw(cells))
    texts = [element.text or "" for element in root.iter() if element.tag.endswith("text")]
    assert any("10%" in each for each in texts)


def test_the_committed_picture_is_one() -> None:
    root = ElementTree.fromstring(PICTURE.read_text(encoding="utf-8"))
    assert root.tag.endswith("svg")
    assert sum(1 for element in root.iter() if element.tag.endswith("rect")) > 100
