"""What several test files of extractors begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cells import write_photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of five photographs."""
    write_photos(tmp_path / "photos", 5)
    return tmp_path / "photos"
