"""How long work tells what it does: the plain types of its callbacks."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with the units that are done and how many there are in all."""


Stage = Callable[[str], Progress | None]
"""Told the name of each long stage as it begins; returns what to report its progress to."""
