"""Fixtures shared by every test."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real checkpoints and data beside the repository; skips where it is absent."""
    if not (SHARED / "DESIGN.md").is_file():
        pytest.skip(f"needs the real data in {SHARED.name}/ beside the repository, which is absent")
    return SHARED
