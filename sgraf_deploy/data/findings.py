"""Findings: warnings and notes about data that is used nevertheless."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Code = Literal[
    "vocabulary-name",
    "special-words",
    "members-of-other-data",
    "unknown-words",
    "unknown-captions",
    "caption-form",
    "zero-images",
    "zero-regions",
    "foreign-regions",
    "foreign-channels",
    "converted-regions",
    "names-left-out",
    "at-chance",
]


@dataclass(frozen=True)
class Finding:
    """Something that a user should look at: a warning, or a note if it is probably intended."""

    code: Code
    message: str
    is_warning: bool = True


Tell = Callable[[Finding], None]
"""Told each finding about the data before the long stages begin."""
