"""The cluster of these tests itself: who can reach it, and what it writes where."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.ray_processes import listening_of, processes_of

pytestmark = pytest.mark.ray


def test_the_cluster_works_and_listens_on_loopback_alone(cluster: Any, ray_folder: Path) -> None:
    import ray

    def twice(number: int) -> int:
        return 2 * number

    remote = ray.remote(twice)
    assert ray.get([remote.remote(number) for number in range(4)]) == [0, 2, 4, 6]
    found = processes_of(ray_folder)
    assert sum("gcs_server" in command for command in found.values()) == 1
    assert sum("raylet/raylet" in command for command in found.values()) == 3
    assert {host for host, _ in listening_of(ray_folder)} == {"127.0.0.1"}


def test_nothing_is_reported_and_tokens_are_asked_for(cluster: Any) -> None:
    import ray

    def told() -> tuple[bool, bool]:
        from ray._common.usage.usage_lib import usage_stats_enabled
        from ray._raylet import AuthenticationMode, get_authentication_mode

        return usage_stats_enabled(), get_authentication_mode() == AuthenticationMode.TOKEN

    assert ray.get(ray.remote(told).remote()) == (False, True)


LOCAL = """
import os
from pathlib import Path
from support.ray_processes import left_of, listening_of
from sgraf_deploy.distributed.cluster import connected

with connected():
    import ray
    folder = Path(os.environ["RAY_TMPDIR"])
    assert Path(os.environ["RAY_AUTH_TOKEN_PATH"]).parent == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    print({host for host, _ in listening_of(folder)}, len(ray.nodes()))
    with connected():  # one that is there is used, and kept
        pass
    assert ray.is_initialized()
assert not ray.is_initialized()
assert left_of(folder) == {}
assert not folder.exists()
assert "RAY_AUTH_MODE" not in os.environ
"""


def test_a_cluster_of_this_machine_alone_is_on_loopback_and_leaves_nothing(
    ray_environment: None, tmp_path: Path
) -> None:
    names = {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_TMPDIR", "RAY_USAGE_STATS_ENABLED"}
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment["HOME"] = str(tmp_path)
    found = subprocess.run(
        [sys.executable, "-c", LOCAL],
        env=environment,
        capture_output=True,
        check=False,
        text=True,
        timeout=240,
    )

    assert found.returncode == 0, found.stderr
    assert found.stdout.splitlines()[-1] == "{'127.0.0.1'} 1"
    assert list(tmp_path.iterdir()) == []


def test_no_cluster_and_a_wrong_token_are_told(ray_environment: None, cluster: Any) -> None:
    code = "from sgraf_deploy.distributed.cluster import connected\nwith connected({!r}): pass"
    for address, more in (
        ("127.0.0.1:9", {}),
        (cluster.address, {"RAY_AUTH_TOKEN": "another" * 6, "RAY_AUTH_TOKEN_PATH": ""}),
    ):
        found = subprocess.run(
            [sys.executable, "-c", code.format(address)],
            env=os.environ | more,
            capture_output=True,
            check=False,
            text=True,
            timeout=240,
        )
        assert "UnavailableError" in found.stderr.splitlines()[-1], found.stderr
