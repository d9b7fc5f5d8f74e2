"""Small bundles, and scorers on every engine that runs them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.fake_engine import FakeEngine
from support.host_kernel import compile_for_host
from support.onnx_bundles import write_bundle
from support.scorers import Faked, make_regions

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.config import Precision
from sgraf_deploy.data.bound import MAX_WORDS
from sgraf_deploy.engines.native import library
from sgraf_deploy.engines.native.instructions import VARIABLE
from sgraf_deploy.runtime import Scorer, TileShape, load
from sgraf_deploy.runtime.tiles import TileLimits


def usable_sets() -> tuple[str, ...]:
    """The instruction sets that engine native can use here."""
    return library.instruction_sets().usable if library.LIBRARY.exists() else ()


@pytest.fixture(params=usable_sets())
def instruction_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each instruction set of this machine, which engine native is made to use."""
    monkeypatch.setenv(VARIABLE, request.param)
    assert library.instruction_sets().used == request.param
    return str(request.param)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An SGRAF bundle in both precisions with a vocabulary."""
    return write_bundle(tmp_path_factory.mktemp("bundles") / "small.sgraf")


@pytest.fixture(scope="session")
def sgr_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """An SGR bundle in fp32 that works on token ids."""
    folder = tmp_path_factory.mktemp("bundles") / "sgr.sgraf"
    return write_bundle(folder, "SGR", precisions=["fp32"], vocabulary=False)


@pytest.fixture
def faked(bundle: Bundle) -> Callable[..., Faked]:
    """Make a scorer on a fake engine: precision, memory, tile, limits, bundle, bound on words."""

    def make(
        *,
        precision: Precision = "fp32",
        memory: int | None = None,
        tile: TileShape | None = None,
        limits: TileLimits | None = None,
        of: Bundle | None = None,
        max_words: int | None = MAX_WORDS,
    ) -> Faked:
        engine = FakeEngine(of or bundle, precision, memory=memory)
        scorer = Scorer(
            of or bundle,
            engine,
            precision=precision,
            limits=limits or TileLimits(),
            tile=tile,
            max_words=max_words,
        )
        return Faked(scorer, engine)

    return make


@pytest.fixture(params=["fake", "ort"])
def scorer(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[Scorer]:
    """An SGRAF scorer on each engine, in fp32."""
    if request.param == "fake":
        yield Scorer(bundle, FakeEngine(bundle), precision="fp32", limits=TileLimits())
        return
    with load(bundle, engine="ort") as opened:
        yield opened


@pytest.fixture
def regions() -> NDArray[np.float32]:
    """Features of nine images."""
    return make_regions(9)


@pytest.fixture(scope="session")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """See `host_kernel.compile_for_host`."""
    return compile_for_host(tmp_path_factory.mktemp("kernel"))
