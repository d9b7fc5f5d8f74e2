"""What is told about data that are used all the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Code = Literal[
    "vocabulary-name",
    "members-of-other-data",
    "unknown-words",
    "unknown-captions",
    "caption-form",
    "zero-images",
    "zero-regions",
    "foreign-regions",
    "converted-regions",
    "names-left-out",
    "at-chance",
]


@dataclass(frozen=True)
class Finding:
    """Something that should be looked at: a warning, or a note where it is likely as it must be."""

    code: Code
    message: str
    is_warning: bool = True
