"""What is refused of the Hub: each by one error, and nothing of it becomes a bundle."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from support.hub import ADDRESS, SECRET, Hub
from support.refusals import naming, refused

import sgraf_deploy
from sgraf_deploy.bundle import hub as module
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.manifest import DOCUMENT, MANIFEST
from sgraf_deploy.errors import BundleError, UnavailableError

SCORER = "sgr/fp32/scorer.onnx"


@pytest.fixture(autouse=True)
def _no_bundle_is_left(hub: Hub) -> Any:
    yield
    assert hub.bundles() == []


def files(hub: Hub) -> dict[str, bytes]:
    """The files of the commit that main is."""
    return hub.files[hub.refs["main"]]


def change_manifest(hub: Hub, old: str, new: str) -> None:
    content = files(hub)[MANIFEST].decode()
    assert old in content
    files(hub)[MANIFEST] = content.replace(old, new).encode()


def test_a_file_that_is_absent(hub: Hub) -> None:
    del files(hub)[SCORER]
    with refused(BundleError, ADDRESS, expected=naming(SCORER), hint=naming()):
        Bundle.open(ADDRESS)


def test_a_file_that_was_changed(hub: Hub) -> None:
    content = files(hub)[SCORER]
    files(hub)[SCORER] = content[:-1] + bytes([content[-1] ^ 1])
    with refused(BundleError, SCORER, expected=naming("sha256"), hint="hf cache rm"):
        Bundle.open(ADDRESS)


@pytest.mark.parametrize("more", [-1, 1])
def test_a_file_of_another_size_is_not_fetched(hub: Hub, more: int) -> None:
    size = len(files(hub)[SCORER])
    files(hub)[SCORER] = bytes(size + more)
    with refused(BundleError, SCORER, expected=f"{size} bytes", got=f"{size + more} bytes"):
        Bundle.open(ADDRESS)
    assert SCORER not in hub.fetched


def test_a_manifest_that_is_too_long_is_not_fetched(hub: Hub) -> None:
    hub.sizes[MANIFEST] = DOCUMENT.most_bytes + 1
    with refused(BundleError, MANIFEST, expected=naming(DOCUMENT.most_bytes)):
        Bundle.open(ADDRESS)
    assert hub.fetched == []


def test_more_bytes_than_a_bundle_may_have(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with refused(BundleError, MANIFEST, expected=naming(100), hint="hf download"):
        Bundle.open(ADDRESS)
    assert hub.fetched == [MANIFEST]


@pytest.mark.parametrize(
    "name", ["../../stolen", "/etc/passwd", "engines/sgr.plan", "C:/x", "a\\\\b", MANIFEST]
)
def test_a_name_that_leads_elsewhere(hub: Hub, name: str, tmp_path: Path) -> None:
    before = set(tmp_path.iterdir())
    change_manifest(hub, SCORER, name)
    with refused(BundleError, MANIFEST, "scorer.file"):
        Bundle.open(ADDRESS)
    assert hub.fetched == [MANIFEST]
    assert set(tmp_path.iterdir()) - before <= {hub.home}


def test_a_file_in_the_place_of_a_folder(hub: Hub) -> None:
    content = json.loads(files(hub)[MANIFEST])
    graphs = content["members"]["sgr"]["graphs"]["fp32"]
    graphs["scorer"]["file"] = "sgr/fp32"
    files(hub)["sgr/fp32"] = files(hub)[SCORER]
    files(hub)[MANIFEST] = json.dumps(content).encode()
    with refused(BundleError):
        Bundle.open(ADDRESS)


def test_what_is_no_bundle(hub: Hub) -> None:
    del files(hub)[MANIFEST]
    with refused(BundleError, ADDRESS, expected=naming(MANIFEST), hint=naming("export")):
        Bundle.open(ADDRESS)


def test_a_manifest_that_is_none(hub: Hub) -> None:
    files(hub)[MANIFEST] = b"{}"
    with refused(BundleError, ADDRESS, "schema_version"):
        Bundle.open(ADDRESS)


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [
        (401, "RepoNotFound", "HF_TOKEN"),
        (404, "RepoNotFound", "HF_TOKEN"),
        (401, "GatedRepo", "someone/f8k.sgraf"),
        (403, "GatedRepo", "someone/f8k.sgraf"),
        (401, "", "HF_TOKEN"),
        (403, "", "HF_TOKEN"),
        (404, "RevisionNotFound", "@REVISION"),
        (429, "", naming()),
        (500, "", naming()),
    ],
)
def test_what_the_hub_denies(
    hub: Hub, status: int, code: str, hint: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    hub.refusal = (status, code)
    with refused(BundleError, ADDRESS, got=f"HTTP {status}", hint=hint) as caught:
        Bundle.open(ADDRESS)
    assert SECRET not in str(caught.error)
    assert hub.endpoint not in str(caught.error)


def test_a_revision_that_is_absent(hub: Hub) -> None:
    for revision in ("none", "0" * 40):
        with refused(BundleError, f"{ADDRESS}@{revision}", hint="@REVISION"):
            Bundle.open(f"{ADDRESS}@{revision}")


def test_offline_what_was_never_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for address in (ADDRESS, f"{ADDRESS}@{hub.refs['main']}"):
        with refused(BundleError, ADDRESS, got=naming("HF_HUB_OFFLINE"), hint="HF_HUB_OFFLINE"):
            Bundle.open(address)
    assert hub.requests == []


def test_without_a_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    nowhere = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    with refused(BundleError, ADDRESS, got=naming("ConnectError"), hint="HF_ENDPOINT"):
        Bundle.open(ADDRESS)


def test_a_connection_that_breaks_every_time(hub: Hub) -> None:
    hub.cut[SCORER] = [3] + [0] * 20
    with refused(BundleError, ADDRESS, hint="HF_ENDPOINT"):
        Bundle.open(ADDRESS)
    hub.cut.clear()
    path = Bundle.open(ADDRESS).path
    assert hub.bundles() == [path]
    (path / MANIFEST).unlink()
    for name in sorted(path.rglob("*"), reverse=True):
        name.rmdir() if name.is_dir() else name.unlink()
    path.rmdir()


@pytest.mark.parametrize(
    "address",
    [
        "hf://",
        "hf://alone",
        "hf://a/b/c",
        "hf://datasets/a/b@main",
        "hf://a/..",
        "hf://a--b/c",
        "hf://a/b@",
        "hf://a/b@../../c",
        "hf://a/b@-x",
        "hf://a/b c",
        "hf://a/b\n",
        "hf://user:pass@a/b",
    ],
)
def test_what_is_no_address(hub: Hub, address: str) -> None:
    with refused(BundleError, expected=naming("hf://OWNER/NAME@REVISION"), hint=naming()):
        Bundle.open(address)
    assert hub.requests == []


def test_without_the_package(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with refused(UnavailableError, ADDRESS, hint="pip install 'sgraf-deploy[hub]'"):
        sgraf_deploy.load(ADDRESS)
