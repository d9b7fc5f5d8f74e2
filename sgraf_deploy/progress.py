"""The types of the callbacks through which long work reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the number of units that are done and the total number of units."""


Stage = Callable[[str], Progress | None]
"""Called with the name of each long stage when it begins; returns its progress callback."""
