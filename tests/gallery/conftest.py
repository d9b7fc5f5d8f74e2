"""Empty galleries of the small bundle's images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.scorers import Faked

from sgraf_deploy.gallery import Gallery
from sgraf_deploy.runtime import Scorer

Make = Callable[..., Gallery]


@pytest.fixture
def fake(faked: Callable[..., Faked]) -> Scorer:
    """A scorer on the fake engine."""
    return faked().scorer


@pytest.fixture
def make(tmp_path: Path, fake: Scorer) -> Make:
    """Make an empty gallery in the test's folder: its name, kind and options of `create`."""

    def create(name: str = "some.gallery", kind: Any = "images", **options: Any) -> Gallery:
        return Gallery.create(tmp_path / name, fake, kind, **options)

    return create
