"""Lists that gain nothing are left whole at once, and one of so many is tried again."""

from __future__ import annotations

from sgraf_deploy.runtime.trials import AGAIN, Trials


def due(trials: Trials, share: float, times: int) -> list[bool]:
    return [trials.is_due(share) for _ in range(times)]


def test_everything_is_tried_at_first() -> None:
    assert all(due(Trials(), 0.5, 100))


def test_after_one_that_gained_nothing_one_of_so_many_is_tried() -> None:
    trials = Trials()
    trials.add(0.1, gained=False)
    assert due(trials, 0.1, AGAIN) == [False] * (AGAIN - 1) + [True]
    trials.add(0.1, gained=False)
    assert due(trials, 0.3, AGAIN) == [False] * (AGAIN - 1) + [True]


def test_lists_of_which_less_is_wanted_are_tried_on() -> None:
    trials = Trials()
    trials.add(0.1, gained=False)
    assert all(due(trials, 0.05, 10))
    trials.add(0.05, gained=True)
    assert not trials.is_due(0.1), "a gain of a shorter list says nothing of longer ones"
    trials.add(0.05, gained=False)
    assert not trials.is_due(0.05)


def test_a_gain_has_all_of_them_tried_again() -> None:
    trials = Trials()
    trials.add(0.1, gained=False)
    due(trials, 0.1, AGAIN - 1)
    assert trials.is_due(0.1)
    trials.add(0.1, gained=True)
    assert all(due(trials, 0.1, 100))
