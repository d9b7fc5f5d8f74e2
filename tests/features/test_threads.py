"""Photographs shared among threads: which error is raised, and who stops."""

from __future__ import annotations

from threading import Event

from support.refusals import refused

from sgraf_deploy.errors import DataError
from sgraf_deploy.features.photographs import in_threads


def test_what_is_made_is_in_the_order_of_the_items() -> None:
    for jobs in (0, 1, 3):
        assert in_threads(lambda item: item * item, range(7), jobs) == [
            item * item for item in range(7)
        ]


def test_the_error_of_the_first_item_is_raised_whoever_fails_first() -> None:
    stopped, begun = Event(), []

    def one(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise DataError("the second")
        assert stopped.wait(60)
        raise DataError("the first" if item == 0 else "a later one")

    with refused(DataError, "first"):
        in_threads(one, range(9), 2, stopped.set)
    assert len(begun) <= 3, "one more may have begun before the error was seen"
