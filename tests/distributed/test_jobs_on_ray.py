"""Jobs on a cluster of Ray: the result is that of one process, whatever is lost on the way."""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from distributed.conftest import NODE_CPUS, node_options
from support.cli_world import done, refused_line, run
from support.jobs import (
    check_equal,
    drive_with,
    files_of,
    of_one_process,
    request,
    run_killed,
    write_tied,
)
from support.jobs import (
    shared as on_ray,
)

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.demo import assets
from sgraf_deploy.distributed.offline import best_candidates, count_ranks
from sgraf_deploy.distributed.parts import Job, Request, SplitSource
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.errors import InputError

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def small(exported: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """All ranks of a small split with ties."""
    return request(exported.path, write_tied(tmp_path_factory.mktemp("jobs") / "precomp"))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Request:
    """All ranks of the demo's test split, 500 x 2,500."""
    target = tmp_path_factory.mktemp("demo") / "sgraf-demo"
    assets.lay_out(target)
    files = [target / name for name in assets.CHECKPOINTS]
    bundle = target / assets.BUNDLE
    done("export", *files, "--vocab", target / assets.VOCABULARY, "-o", bundle)
    source = SplitSource(target / assets.DATA, "test", 5)
    return Request(str(bundle), source, replace(request(bundle, target).settings, tile=None))


@pytest.fixture(scope="module")
def alone(demo: Request) -> dict[str, Any]:
    return of_one_process(demo)


@pytest.mark.parametrize("actors", [1, 2, 4])
def test_ranks_of_the_demo(
    cluster: Any, demo: Request, alone: dict[str, Any], tmp_path: Path, actors: int
) -> None:
    folder = tmp_path / "job"
    with on_ray(demo, folder, actors, cluster.address) as runner:
        assert runner.workers == actors
        ran = drive_with(runner, folder)
    assert len(ran.workers("part")) == actors
    check_equal(count_ranks(Job(folder)), alone)


def test_ranks_on_real_data(cluster: Any, trained: Bundle, shared: Path, tmp_path: Path) -> None:
    """The first 100 images and 500 captions of Flickr8k's dev split."""
    source = SplitSource(shared / "data" / "f8k_precomp", "dev", 5, limit_images=100)
    wanted = replace(request(trained.path, source.folder), source=source)
    wanted = replace(wanted, settings=replace(wanted.settings, tile=None))
    with on_ray(wanted, tmp_path / "job", 2, cluster.address) as runner:
        ran = drive_with(runner, tmp_path / "job")
    assert len(ran.workers("part")) == 2
    check_equal(count_ranks(Job(tmp_path / "job")), of_one_process(wanted))


def test_an_actor_that_is_killed_half_way(cluster: Any, small: Request, tmp_path: Path) -> None:
    folder, killed = tmp_path / "job", set[int]()
    with on_ray(small, folder, 2, cluster.address) as runner:

        def kill(name: str) -> None:
            if name.startswith("part-") and not killed:
                killed.add(_processes(runner)[0])
                for process in killed:
                    os.kill(process, signal.SIGKILL)

        drive_with(runner, folder, kill)
        assert killed.isdisjoint(_processes(runner))
    assert killed
    check_equal(count_ranks(Job(folder)), of_one_process(small))


def test_a_node_that_is_removed_half_way(cluster: Any, small: Request, tmp_path: Path) -> None:
    """There are three actors and four nodes that have room for one each; two are removable."""
    folder = tmp_path / "job"
    settings = replace(small.settings, options=EngineOptions(NODE_CPUS - 1))
    own = {node.node_id: node for node in (cluster.add_node(**node_options()) for _ in range(2))}
    removed: list[str] = []
    try:
        with on_ray(replace(small, settings=settings), folder, 3, cluster.address) as runner:

            def remove(name: str) -> None:
                if name.startswith("part-") and not removed:
                    lost = next(row for row, node in enumerate(_nodes(runner)) if node in own)
                    removed.append(_nodes(runner)[lost])
                    process = _processes(runner)[lost]
                    cluster.remove_node(own.pop(removed[0]), allow_graceful=False)
                    with suppress(ProcessLookupError):  # It outlives its node for a moment.
                        os.kill(process, signal.SIGKILL)

            drive_with(runner, folder, remove)
            assert removed[0] not in _nodes(runner)
    finally:
        for node in own.values():
            cluster.remove_node(node)
    check_equal(count_ranks(Job(folder)), of_one_process(small))


@pytest.mark.parametrize("step", ["captions-00000", "part-00002"])
def test_a_driver_that_is_killed(cluster: Any, small: Request, tmp_path: Path, step: str) -> None:
    folder = tmp_path / "job"
    status = run_killed(small, folder, step, cluster.address)
    assert status == -signal.SIGKILL
    before = files_of(folder)
    assert f"{step}.npz" in before
    with on_ray(small, folder, 2, cluster.address) as runner:
        ran = drive_with(runner, folder)
    after = files_of(folder)
    assert {name: after[name] for name in before} == before
    assert len(before) <= ran.found < len(after)
    assert ran.found + ran.done == len(after)
    check_equal(count_ranks(Job(folder)), of_one_process(small))


def test_members_are_left_out_of_the_demos_pairs(
    cluster: Any, demo: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    split = ("--data", demo.source.folder, "--split", "test", "--limit-images", 60)
    models = ("--models", "sgraf", "--engine", "native", "--json")
    done("eval", demo.bundle, *split, *models, "one.json")
    ray = ("--ray", cluster.address, "--actors", 2, "--job")
    done("eval", demo.bundle, *split, *models, "two.json", *ray, "pruned")
    done("eval", demo.bundle, *split, *models, "three.json", *ray, "whole", "--no-prune")
    one, two, three = (
        json.loads(Path(f"{name}.json").read_text()) for name in ("one", "two", "three")
    )
    assert three["reports"] == two["reports"] == one["reports"]
    assert two["run"] == {**one["run"], "workers": 2}
    assert two["run"]["scored_share"]["sgr"] < 0.9
    assert three["run"]["scored_share"] == {"sgr": 1.0, "saf": 1.0}


def test_the_command_line(
    cluster: Any, demo: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    split = ("--data", demo.source.folder, "--split", "test", "--limit-images", 60)
    ray = ("--ray", cluster.address, "--actors", 2)
    done("eval", demo.bundle, *split, "--json", "one.json")
    done("eval", demo.bundle, *split, "--json", "two.json", *ray, "--job", "ranks")
    one, two = (json.loads(Path(name).read_text()) for name in ("one.json", "two.json"))
    assert two["reports"] == one["reports"]
    assert two["run"] == {**one["run"], "workers": 2}
    assert {**two["memory_bytes"], "tiles": 0} == {**one["memory_bytes"], "tiles": 0}
    more = ("--top-k", 3, "--direction", "text_to_image", "-o")
    done("score", demo.bundle, *split, *more, "one.csv")
    done("score", demo.bundle, *split, *more, "two.csv", *ray, "--job", "best")
    assert Path("two.csv").read_text() == Path("one.csv").read_text()
    assert len(best_candidates(Job(Path("best"))).result()["text_to_image"].indices) == 300


def test_an_error_in_an_actor_is_the_commands(
    cluster: Any, demo: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    split = ("--data", demo.source.folder, "--split", "test", "--limit-images", 9)
    ray = ("--ray", cluster.address, "--job", "job", "--actors")
    result = run("eval", demo.bundle, *split, *ray, 1, "--max-caption-words", 5)
    assert result.exit_code == 2
    assert result.error is not None
    assert result.error.what.startswith("caption")
    refused_line(run("eval", demo.bundle, *split, *ray, 99), InputError, expected="1 … 10", got=99)
    gpu = ("--ray", cluster.address, "--job", "job", "--device", "cuda:1")
    refused_line(run("eval", demo.bundle, *split, *gpu), InputError, "--device", got="cuda:1")


def _nodes(runner: Any) -> list[str]:
    """The nodes of a runner's actors."""
    return [_state(actor)["Address"]["NodeID"] for actor in runner._actors]


def _processes(runner: Any) -> list[int]:
    """The processes of a runner's actors."""
    return [_state(actor)["Pid"] for actor in runner._actors]


def _state(actor: Any) -> dict[str, Any]:
    from ray._private.state import actors

    return dict(actors(actor._actor_id.hex()))
