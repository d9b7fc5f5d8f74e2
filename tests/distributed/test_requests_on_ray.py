"""The tests of requests for scoring, against the service on Ray with two shards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from serve import test_requests
from support.ray_service import RayServer, free_port, online_of, sharded_galleries

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.distributed.online import deploy, stop
from sgraf_deploy.distributed.replica import Found
from sgraf_deploy.runtime import load

pytestmark = pytest.mark.ray

NOT_OF_REQUESTS = {"test_a_client_shortens_its_deadline"}
"""What looks into a server of the test's own process."""

globals().update(
    {
        name: test
        for name, test in vars(test_requests).items()
        if name.startswith("test_") and name not in NOT_OF_REQUESTS
    }
)


@pytest.fixture(scope="module")
def server(
    cluster: Any, bundle: Bundle, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RayServer]:
    folder = tmp_path_factory.mktemp("on_ray")
    with load(bundle, engine="ort") as scorer:
        galleries = sharded_galleries(scorer, folder / "galleries", 2)
        online = online_of(bundle.path, galleries, port=free_port())
        manifest = bundle.manifest
        found = Found(bundle.sha256, manifest.regions, manifest.img_dim)
        try:
            yield RayServer(scorer, online, found, deploy(online))
        finally:
            stop()


def test_there_are_all_of_them() -> None:
    tests = {name for name in vars(test_requests) if name.startswith("test_")}
    assert tests > NOT_OF_REQUESTS
    assert len(tests - NOT_OF_REQUESTS) >= 22
