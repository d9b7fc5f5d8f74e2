"""The file of `serve --ray`, and which clusters are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.refusals import refused

from sgraf_deploy.distributed.cluster import check_cluster
from sgraf_deploy.distributed.config import OnlineConfig, read_config
from sgraf_deploy.errors import InputError


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "config.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_says_what_runs(tmp_path: Path) -> None:
    short = written(tmp_path, "bundle: b.sgraf\ngalleries: [one.gallery]\n")
    assert read_config(short) == OnlineConfig("b.sgraf", ("one.gallery",))

    long = """
        bundle: b.sgraf
        galleries:
          - one
          - two
        replicas: 3
        fronts: 4
        cpus: 8
        gpus: 1
        address: 10.0.0.1:6379
        every_node: true
        down_s: 2
        resource: shard
    """
    expected = OnlineConfig(
        "b.sgraf", ("one", "two"), 3, 4, 8, 1, "10.0.0.1:6379", True, 2, "shard"
    )
    assert list(expected.resources(1)) == ["shard-1"]
    assert read_config(written(tmp_path, long)) == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "config.yaml"),
        ("[bundle]", "config.yaml"),
        ("bundle: [", "config.yaml"),
        (b"\xff\xfe\x00", "config.yaml"),
        ("bundle: b", "galleries"),
        ("galleries: [g]", "bundle"),
        ("bundle: b\ngalleries: []", "galleries"),
        ("bundle: b\ngalleries: g", "galleries"),
        ("bundle: b\ngalleries: [1]", "galleries"),
        ("bundle: b\ngalleries: [g]\nresource: 1", "resource"),
        ("bundle: ''\ngalleries: [g]", "bundle"),
        ("bundle: b\ngalleries: [g]\nreplica: 2", "'replica'"),
        ("bundle: b\ngalleries: [g]\nreplicas: two", "replicas"),
        ("bundle: b\ngalleries: [g]\nreplicas: true", "replicas"),
        ("bundle: b\ngalleries: [g]\nreplicas: 0", "replicas"),
        ("bundle: b\ngalleries: [g]\ngpus: -1", "gpus"),
        ("bundle: b\ngalleries: [g]\ndown_s: 0", "down_s"),
        ("bundle: b\ngalleries: [g]\nevery_node: 1", "every_node"),
        ("bundle: !!python/object/apply:os.getcwd []\ngalleries: [g]", "config.yaml"),
        (b"#" * 2**21, "config.yaml"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str | bytes, name: str) -> None:
    path = written(tmp_path, text)
    with refused(InputError, path, name):
        read_config(path)
    with refused(InputError, tmp_path / "none"):
        read_config(tmp_path / "none")


def test_the_file_that_the_guide_shows_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")
    _, _, after = page.partition("```text\nbundle:")
    shown = f"bundle:{after.partition('```')[0]}"

    assert read_config(written(tmp_path, shown)).cpus == 4


@pytest.mark.parametrize("few", ["replicas", "fronts"])
def test_fewer_than_two_need_leave(few: str) -> None:
    more: dict[str, Any] = {few: 1}
    config = OnlineConfig("b", ("g",), **more)
    with refused(InputError, few, hint="--allow-downtime"):
        config.check_replicas(allow_downtime=False)
    config.check_replicas(allow_downtime=True)
    OnlineConfig("b", ("g",)).check_replicas(allow_downtime=False)


def test_a_cluster_that_others_reach_needs_tokens() -> None:
    check_cluster(["127.0.0.1", "127.0.0.1"], "none")
    check_cluster(["10.0.0.1", "127.0.0.1"], "token", guarded=True)
    with refused(InputError, "127.0.0.1", got="none"):
        check_cluster(["127.0.0.1"], "none", guarded=True)
    for addresses in (["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["fd00::1"]):
        with refused(InputError, addresses[-1], got="none", hint="RAY_AUTH_MODE"):
            check_cluster(addresses, "none")
