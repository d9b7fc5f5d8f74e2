"""The types of the callbacks through which long work reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

Progress = Callable[[int, int], None]
"""Called with the number of units that are done and the total number of units."""


Stage = Callable[[str], Progress | None]
"""Called with the name of each long stage when it begins; returns its progress callback."""


class Bars(Protocol):
    """A `Stage` that may also be told the unit of what is counted, to say how many there are a
    second."""

    def __call__(self, label: str, unit: str | None = None) -> Progress:
        """The progress callback of a stage that begins."""
