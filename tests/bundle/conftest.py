"""A Hub that has a small bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hub import Hub, served, used
from support.small_bundle import fill, manifest


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """One with a bundle, and beside it what nobody asked for; `tmp_path / "published"` is it."""
    with served(tmp_path / "home") as found, used(found, monkeypatch):
        folder = tmp_path / "published"
        folder.mkdir()
        fill(folder, manifest(content="first"))
        more = {"engines/sgr.plan": b"code", "weights.pkl": b"code", "README.md": b"# It"}
        found.commit(folder, more=more)
        yield found
