"""A bundle from the Hub: what is fetched, where it is kept, and what is asked of the Hub."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from support.hub import ADDRESS, NAME, OWNER, SECRET, Hub, served, used
from support.refusals import warned
from support.small_bundle import fill, manifest
from support.small_models import SGR, random_regions

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.bundle.hub import fetch
from sgraf_deploy.bundle.manifest import MANIFEST
from sgraf_deploy.errors import BundleError


def names_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def named(bundle: Bundle) -> set[str]:
    return {MANIFEST, *(ref.file for ref in bundle.manifest.files)}


def test_a_bundle_from_the_hub_scores_as_the_local_one(
    exported: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    regions, captions = random_regions(SGR, 3), [[1, 4, 5, 2], [1, 3, 2]]
    with served(tmp_path / "home") as found, used(found, monkeypatch):
        commit = found.commit(exported.path)
        scores = []
        for bundle in (exported, ADDRESS):
            with sgraf_deploy.load(bundle, engine="ort", precision="fp32") as scorer:
                scores.append(scorer.score(regions, captions))
        assert scorer.bundle.source == f"{ADDRESS}@{commit}"
        assert scorer.bundle.sha256 == exported.sha256
    np.testing.assert_array_equal(scores[0], scores[1])


def test_only_what_the_manifest_names_is_fetched(hub: Hub) -> None:
    bundle = Bundle.open(ADDRESS)
    assert set(hub.fetched) == named(bundle)
    assert names_in(bundle.path) == named(bundle)
    assert not any(path.is_symlink() for path in bundle.path.rglob("*"))
    assert bundle.path.parts[-3:] == (f"{OWNER}--{NAME}", hub.refs["main"], NAME)
    assert hub.bundles() == [bundle.path]


def test_a_file_has_a_second_name_in_place_of_a_copy(hub: Hub) -> None:
    bundle = Bundle.open(ADDRESS)
    assert {path.stat().st_nlink for path in bundle.path.rglob("*") if path.is_file()} == {2}


def test_a_branch_is_asked_for_again_and_nothing_is_fetched_twice(hub: Hub) -> None:
    first = Bundle.open(ADDRESS)
    hub.requests.clear()
    second = Bundle.open(ADDRESS)
    assert (second.path, second.source) == (first.path, first.source)
    assert hub.fetched == []
    assert {name for _, name in hub.requests} == {MANIFEST}


def test_a_commit_that_is_here_is_opened_without_any_request(hub: Hub) -> None:
    pinned = str(Bundle.open(ADDRESS).source)
    hub.requests.clear()
    assert Bundle.open(pinned).source == pinned
    assert hub.requests == []


def test_a_branch_that_moved_is_another_bundle_and_the_commit_stays(
    hub: Hub, tmp_path: Path
) -> None:
    first = Bundle.open(ADDRESS)
    folder = tmp_path / "newer"
    folder.mkdir()
    fill(folder, manifest(content="second"))
    commit = hub.commit(folder)
    assert Bundle.open(ADDRESS).source == f"{ADDRESS}@{commit}"
    assert Bundle.open(ADDRESS).sha256 != first.sha256
    assert Bundle.open(str(first.source)).sha256 == first.sha256


@pytest.mark.parametrize("revision", ["v1.0", "refs/pr/3", "feature/new+fast"])
def test_a_revision_may_be_a_branch_a_tag_or_a_request(
    hub: Hub, tmp_path: Path, revision: str
) -> None:
    commit = hub.commit(tmp_path / "published", revision)
    assert Bundle.open(f"{ADDRESS}@{revision}").source == f"{ADDRESS}@{commit}"


def test_a_path_that_lost_a_slash_is_an_address(hub: Hub) -> None:
    assert Bundle.open(Path(ADDRESS)).source == f"{ADDRESS}@{hub.refs['main']}"


def test_offline_a_bundle_that_is_here_opens(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    first = Bundle.open(ADDRESS)
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert Bundle.open(ADDRESS).source == first.source
    shutil.rmtree(hub.assets)  # what the Hub's cache has is enough
    assert Bundle.open(ADDRESS).source == first.source
    assert Bundle.open(str(first.source)).verify_files() == ()
    assert hub.requests == []


@pytest.mark.parametrize("status", [None, 503], ids=["no answer", "HTTP 503"])
def test_without_the_hub_what_was_fetched_opens_with_a_warning(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int | None
) -> None:
    from huggingface_hub import constants

    first = Bundle.open(ADDRESS)
    if status is None:
        nowhere = "http://127.0.0.1:1/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", nowhere)
    else:
        hub.refusal = (status, "")
    assert Bundle.open(ADDRESS).source == first.source
    assert len(warned(caplog)) == 1


def test_the_users_token_is_sent_and_never_logged(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    monkeypatch.setenv("HF_TOKEN", SECRET)
    Bundle.open(ADDRESS)
    assert hub.tokens == {f"Bearer {SECRET}"}
    assert SECRET not in caplog.text


def test_an_interrupted_download_leaves_no_bundle_and_goes_on(hub: Hub) -> None:
    seen: list[int] = []

    def interrupt(done: int, total: int) -> None:
        seen.append(done)
        if 2 * done > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(ADDRESS, stage=lambda name: interrupt)
    assert hub.bundles() == []
    before = set(hub.fetched)
    hub.requests.clear()
    assert named(Bundle.open(ADDRESS)) == before | set(hub.fetched)
    assert before & set(hub.fetched) <= {hub.fetched[0]}, "at most the interrupted file again"


def test_progress_counts_bytes_up_to_all_of_them(hub: Hub) -> None:
    told: list[tuple[int, int]] = []
    stages: list[str] = []

    def stage(name: str) -> sgraf_deploy.progress.Progress:
        stages.append(name)
        return lambda done, total: told.append((done, total))

    found = fetch(ADDRESS, stage=stage)
    total = sum(ref.bytes for ref in Bundle.open(found.folder).manifest.files)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (total, total)
    assert fetch(ADDRESS, stage=stage) == found
    assert len(stages) == 1, "nothing is fetched the second time"


def test_a_connection_that_breaks_is_resumed(hub: Hub) -> None:
    name = "sgr/fp32/scorer.onnx"
    hub.cut[name] = [3, 2]
    assert Bundle.open(ADDRESS).verify_files() == ()
    assert hub.fetched.count(name) == 3


def test_two_at_once_share_one_bundle(hub: Hub) -> None:
    start, found = threading.Barrier(2), list[Bundle | BundleError]()

    def open_it() -> None:
        start.wait()
        try:
            found.append(Bundle.open(ADDRESS))
        except BundleError as error:
            found.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.path for one in found if isinstance(one, Bundle)] == [hub.bundles()[0]] * 2


def test_processes_use_the_environment(hub: Hub) -> None:
    code = f"import sgraf_deploy; print(sgraf_deploy.Bundle.open({ADDRESS!r}).source)"
    command = [sys.executable, "-c", code]
    running = [
        subprocess.Popen(command, env=hub.environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate()[0].strip() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert said == [f"{ADDRESS}@{hub.refs['main']}"] * 2
    assert len(hub.bundles()) == 1
    offline = {**hub.environment, "HF_ENDPOINT": "http://127.0.0.1:1", "HF_HUB_OFFLINE": "1"}
    again = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert again.stdout.strip() == said[0], again.stderr


@pytest.mark.parametrize("module", ["sgraf_deploy", "sgraf_deploy.runtime.scorer"])
def test_nothing_of_the_hub_is_imported_before_an_address_is_opened(module: str) -> None:
    code = f"import sys, {module}; print('huggingface_hub' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
