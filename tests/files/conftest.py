"""A folder that is published, with and without one before it."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.staged_writer import NAME, fill


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / NAME


@pytest.fixture
def old(target: Path) -> Path:
    """The target, where a bundle is already."""
    target.mkdir()
    fill(target, "old")
    return target
