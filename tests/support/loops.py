"""One test of many alike, which goes through them all and tells by name which of them failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from support.mutations import Tried


def all_of(*choices: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Makes a test of a check: of every combination of its arguments, each from its choices."""
    combinations = [*product(*choices)]

    def make(check: Callable[..., None]) -> Callable[[], None]:
        def test() -> None:
            with Tried() as trying:
                for arguments in combinations:
                    with trying(" ".join(map(str, arguments))):
                        check(*arguments)

        test.__name__, test.__doc__, test.__module__ = (
            check.__name__,
            check.__doc__,
            check.__module__,
        )
        return test

    return make
