"""`sgraf-deploy serve --ray`: what it refuses before any cluster is asked, and what it asks."""

from __future__ import annotations

from contextlib import nullcontext
from importlib import util
from pathlib import Path
from typing import Any

import pytest
from support.cli_world import done, run
from support.refusals import check_error, naming

from sgraf_deploy.distributed import cluster, online
from sgraf_deploy.engines.base import EngineOptions
from sgraf_deploy.errors import InputError, UnavailableError

GOOD = "bundle: b.sgraf\ngalleries: [one.gallery]\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(GOOD)
    return path


def refuse_clusters(*_: Any, **__: Any) -> Any:
    raise AssertionError("a cluster was asked")


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if Ray were installed, whose clusters nobody may ask."""
    monkeypatch.setattr(cluster, "check_installed", lambda: None)
    monkeypatch.setattr(cluster, "connected", refuse_clusters)


def test_without_ray_it_says_what_installs_it(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "ray" else find_spec(name))
    result = run("serve", "--ray", config)

    assert result.exit_code == 2
    assert isinstance(result.error, UnavailableError)
    check_error(result.error, "--ray", got=naming("ray"))
    assert result.error.hint == "pip install 'sgraf-deploy[ray]'"


@pytest.mark.parametrize(
    ("more", "options", "names"),
    [
        ("", ["b.sgraf"], ["BUNDLE"]),
        ("", ["--gallery", "one"], ["--gallery"]),
        ("", ["--host", "0.0.0.0"], ["--host", "0.0.0.0"]),
        ("", ["--port", 0], ["--port"]),
        ("", ["--threads", 2], ["--threads"]),
        ("", ["--drain-delay-s", 1], ["--drain-delay-s"]),
        ("", ["--max-documents", 2000, "--max-queue-pairs", 1000], ["max_queue_pairs"]),
        ("", ["--keys", "none"], ["none"]),
        ("replicas: 1", [], ["replicas"]),
        ("fronts: 1", [], ["fronts"]),
        ("unknown: 1", [], ["'unknown'"]),
    ],
)
def test_what_does_not_go_together_is_refused(
    ray: None, config: Path, more: str, options: list[Any], names: list[str]
) -> None:
    config.write_text(GOOD + more)
    result = run("serve", "--ray", config, *options)

    assert result.exit_code == 2
    assert isinstance(result.error, InputError)
    check_error(result.error, *names)


def test_replicas_load_a_bundle_as_is_asked_for(
    ray: None, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployed: list[online.Online] = []

    def deploy(wanted: online.Online) -> str:
        deployed.append(wanted)
        return "http://127.0.0.1:8000"

    monkeypatch.setattr(cluster, "connected", lambda *_, **__: nullcontext())
    monkeypatch.setattr(online, "deploy", deploy)
    done("serve", "--ray", config, "--engine", "native", "--engine-dir", "plans")
    done("serve", "--ray", config, "--no-prune", "--max-caption-words", 0)

    usual, other = (wanted.spec for wanted in deployed)
    assert (usual.bundle, usual.engine, usual.prune) == ("b.sgraf", "native", True)
    assert usual.options == EngineOptions(threads=1, engine_dir=Path("plans"))
    assert (other.engine, other.prune, other.max_words) == ("auto", False, None)


@pytest.mark.parametrize("option", ["--stop", "--allow-downtime"])
def test_options_of_ray_need_it(option: str) -> None:
    result = run("serve", "b.sgraf", "--gallery", "one", option)

    assert result.exit_code == 2
    assert isinstance(result.error, InputError)
    check_error(result.error, option, expected=naming("--ray"))


@pytest.mark.parametrize("given", [[], ["b.sgraf"], ["--gallery", "one"]])
def test_a_bundle_and_a_gallery_are_needed_without_it(given: list[str]) -> None:
    result = run("serve", *given)

    assert result.exit_code == 2
    assert ("--gallery" if "b.sgraf" in given else "BUNDLE") in result.stderr
