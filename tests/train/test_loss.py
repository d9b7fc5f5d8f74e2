"""The hinge loss by hand, and its collapse."""

from __future__ import annotations

import pytest
import torch
from support.closeness import assert_close

from sgraf_deploy.train.loss import CollapseWatch, collapsed_loss, hinge_loss

SIMILARITIES = torch.tensor([[0.9, 0.8, 0.1], [0.3, 0.5, 0.45], [0.2, 0.6, 0.7]])
# Margin 0.2. Rows (captions against an image): .1 | .0 .15 | .0 .1; columns (images against a
# caption): .0 .0 | .5 .3 | .0 .0 (0.45 is 0.25 below 0.7).


def test_all_negatives_are_summed() -> None:
    loss = hinge_loss(SIMILARITIES, 0.2, hardest=False)
    assert_close(loss, 0.1 + 0.15 + 0.1 + 0.5 + 0.3, depth=12)


def test_the_hardest_negative_of_each_query_counts() -> None:
    loss = hinge_loss(SIMILARITIES, 0.2, hardest=True)
    assert_close(loss, 0.1 + 0.15 + 0.1 + 0.5, depth=12)


@pytest.mark.parametrize(("hardest", "negatives"), [(True, 1), (False, 6)])
def test_equal_similarities_give_the_collapsed_loss(hardest: bool, negatives: int) -> None:
    loss = hinge_loss(torch.full((7, 7), 0.43), 0.3, hardest=hardest)
    assert_close(loss, negatives * collapsed_loss(7, 0.3), depth=2 * 7 * negatives)
    assert collapsed_loss(7, 0.3) == pytest.approx(2 * 7 * 0.3)


def test_a_positive_is_no_negative() -> None:
    assert float(hinge_loss(torch.eye(4), 0.2, hardest=True)) == 0.0
    assert float(hinge_loss(torch.eye(4), 0.2, hardest=False)) == 0.0


def test_a_collapse_must_last() -> None:
    watch = CollapseWatch(patience=3)
    told = [watch.collapsed(loss, 10, 0.2) for loss in (4.0, 4.03, 3.9, 4.0, 3.98, 4.0)]
    assert told == [False, False, False, False, False, True]
