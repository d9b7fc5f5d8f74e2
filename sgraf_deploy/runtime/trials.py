"""Whether it is worth trying to leave members out of short lists, told by the lists before.

Where a list needs every member's every pair, asking for one member first has cost a few per cent of
the time and gained nothing; lists like it mostly need all as well. So the next ones are scored
whole at once, and then one is tried again. It follows from numbers of pairs alone, never from time,
and no result depends on it.
"""

from __future__ import annotations

from threading import Lock

AGAIN = 16
"""One of so many lists is tried where the last one that was tried gained nothing."""


class Trials:
    """What the lists so far have shown; threads may share it.

    A list is known by the share of its pairs that is wanted: a longer list of the best needs more.

    Example:
        >>> from sgraf_deploy.runtime.trials import Trials
        >>> trials = Trials()
        >>> trials.add(0.1, gained=False)
        >>> trials.is_due(0.2), trials.is_due(0.05)
        (False, True)
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._hopeless = 2.0
        """The smallest share that has gained nothing."""
        self._left = 0
        """How many such lists are left whole before one is tried."""

    def is_due(self, share: float) -> bool:
        """Whether to try a list of which this share is wanted."""
        with self._lock:
            if share < self._hopeless or not self._left:
                return True
            self._left -= 1
            return False

    def add(self, share: float, *, gained: bool) -> None:
        """Note whether a list that was tried has gained anything."""
        with self._lock:
            if not gained:
                self._hopeless, self._left = min(share, self._hopeless), AGAIN - 1
            elif share >= self._hopeless:
                self._hopeless, self._left = 2.0, 0
