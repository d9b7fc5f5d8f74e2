"""One Ray cluster for all tests that need one: a head and two nodes, on loopback alone."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from serve.conftest import server
from support.ray_processes import left_of

__all__ = ["server"]  # a small server in this process, for what needs no cluster

ROOT = Path(__file__).parents[2]
HEAD_CPUS, NODE_CPUS = 2, 4
"""How many actors of one CPU each there is room for: a number for Ray, whatever the machine has."""


def node_options(cpus: int = NODE_CPUS) -> dict[str, Any]:
    """How a node is added to the cluster: `cluster.add_node(**node_options())`."""
    return {
        "num_cpus": cpus,
        "node_ip_address": "127.0.0.1",
        "object_store_memory": 80_000_000,
        "resources": {"gallery-0": 1, "gallery-1": 1},
    }


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps the session's files; its sockets' paths may be no longer than 107 bytes."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def ray_environment(ray_folder: Path) -> Iterator[None]:
    """What keeps a cluster on loopback, behind a token, and its files in its folder.

    Whatever a test starts inherits it; workers also import `support`.
    """
    token = ray_folder / "token"
    token.touch(mode=0o600)
    token.write_text(os.urandom(32).hex())
    given = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_TMPDIR": str(ray_folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "SGRAF_DEPLOY_STATE": str(ray_folder / "state"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="session")
def cluster(ray_folder: Path, ray_environment: None) -> Iterator[Any]:
    """A `ray.cluster_utils.Cluster` to which this process is connected; nothing of it may be left.

    `cluster.address` is what `--ray` is given. A test that removes a node adds its own first, and
    one that starts Ray Serve ends it.
    """
    with warnings.catch_warnings(action="ignore"):  # of Ray's own use of pydantic
        import ray.serve
    from ray.cluster_utils import Cluster

    head = {**node_options(HEAD_CPUS), "include_dashboard": False}
    found = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            found.add_node(**node_options())
        ray.init(address=found.address, log_to_driver=False, logging_level="warning")
        yield found
    finally:
        ray.shutdown()
        found.shutdown()
    assert left_of(ray_folder) == {}
