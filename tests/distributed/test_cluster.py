"""The cluster of these tests itself: who can reach it, and what it writes where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.ray_processes import processes_of

pytestmark = pytest.mark.ray


def test_the_cluster_works_and_listens_on_loopback_alone(cluster: Any, ray_folder: Path) -> None:
    import psutil
    import ray

    @ray.remote
    def twice(number: int) -> int:
        return 2 * number

    assert ray.get([twice.remote(number) for number in range(4)]) == [0, 2, 4, 6]
    found = processes_of(ray_folder)
    assert sum("gcs_server" in command for command in found.values()) == 1
    assert sum("raylet/raylet" in command for command in found.values()) == 3
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in found
        for connection in psutil.Process(process).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
