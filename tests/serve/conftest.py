"""A server of a few images, which every test changes as it likes."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_engine import FakeEngine
from support.served import Server
from support.small_galleries import image_gallery

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.runtime.tiles import TileLimits


@pytest.fixture
def server(bundle: Bundle, tmp_path: Path) -> Server:
    scorer = Scorer(bundle, FakeEngine(bundle), precision="fp32", limits=TileLimits())
    return Server(scorer, image_gallery(scorer, tmp_path / "images"), tmp_path)
