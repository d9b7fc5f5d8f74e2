"""`export --force` replaces a bundle that holds nothing else, and nothing but a bundle."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.refusals import naming, refused
from support.small_bundle import fill, manifest
from support.staged_writer import Step, names, never

from sgraf_deploy.bundle.bundle import Bundle, staged_bundle
from sgraf_deploy.errors import BundleError, SgrafDeployError

ENGINES = (
    "engines/sgr-fp16-scorer.json",
    f"engines/sgr-fp16-scorer-{'0a' * 8}.plan",
    "engines/sgr-2-fp32-image_encoder.json",
    "engines/timing.cache",
    f"engines/.timing.cache.tmp-{'0' * 16}",
    "engines/onnxruntime/TensorrtExecutionProvider_cache_sm90.timing",
)
FOREIGN = (
    "notes.txt",
    "sgr/fp32/notes.txt",
    ".hidden",
    "deep/er/thesis.tex",
    "engines/notes.txt",
    "engines/sgr-fp16-scorer-of-june.plan",
    "engines/mine/sgr-fp16-scorer.json",
    f"engines/{'0' * 16}.plan",
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "small.sgraf"
    folder.mkdir()
    fill(folder, manifest(content="old"))
    return folder


def put(folder: Path, name: str) -> None:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")


def content(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def replace(folder: Path, *, exchange: bool = True, step: Step | None = None) -> None:
    way = None if exchange else never
    with staged_bundle(folder, force=True, step=step, exchange=way) as staged:
        fill(staged, manifest(content="new"))


def error_of(folder: Path, *got: object) -> SgrafDeployError:
    """The error; nothing was changed, and the block of the writer did not run."""
    before = content(folder.parent)
    wrong = refused(BundleError, folder, got=naming(*got), hint=[])
    with wrong, staged_bundle(folder, force=True):
        pytest.fail("the block must not run")
    assert content(folder.parent) == before
    return wrong.error


@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "renames"])
def test_a_bundle_with_its_engines_is_replaced(old: Path, exchange: bool) -> None:
    for name in ENGINES:
        put(old, name)
    replace(old, exchange=exchange)
    assert Bundle.open(old).manifest.tools["content"] == "new"
    assert names(old.parent) == [old.name]


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_file_keeps_a_bundle(old: Path, name: str) -> None:
    put(old, name)
    error_of(old, 1, name)


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_foreign_link_keeps_a_bundle(old: Path, kind: str) -> None:
    (old.parent / "mine").mkdir()
    (old / "link").symlink_to(old.parent / ("mine" if kind == "folder" else "mine/absent"))
    error_of(old, 1, "link")


def test_many_foreign_files_are_counted_and_the_first_named(old: Path) -> None:
    for number in range(1200):
        (old / f"{number:04}.txt").touch()
    assert len(error_of(old, "1,200", "0000.txt").reason) < 1000


def test_a_file_that_appears_meanwhile_keeps_the_bundle(old: Path) -> None:
    def step(name: str) -> None:
        if name == "synced":
            put(old, "notes.txt")

    with refused(BundleError, old, got=naming("notes.txt")):
        replace(old, step=step)
    assert Bundle.open(old).manifest.tools["content"] == "old"
    assert (old / "notes.txt").read_text() == "mine"
    assert names(old.parent) == [old.name]


def _foreign_manifest(folder: Path) -> None:
    (folder / "manifest.json").write_text(json.dumps({"name": "my web app", "version": 3}))


def _newer(folder: Path) -> None:
    raw = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(raw | {"schema_version": 99}))


def _torn(folder: Path) -> None:
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def _is_a_folder(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    (folder / "manifest.json").mkdir()


@pytest.mark.parametrize("force", [True, False], ids=["force", "without"])
@pytest.mark.parametrize(
    ("change", "got"),
    [
        (_foreign_manifest, naming("manifest.json", "schema_version")),
        (_newer, naming("manifest.json", "schema_version", 99)),
        (_torn, naming("manifest.json", "JSON")),
        (lambda folder: (folder / "manifest.json").unlink(), naming("manifest.json")),
        (_is_a_folder, os.strerror(errno.EISDIR)),
    ],
    ids=["foreign", "newer", "torn", "none", "folder"],
)
def test_what_is_no_bundle_is_not_replaced(
    old: Path, change: Callable[[Path], None], got: object, force: bool
) -> None:
    change(old)
    before = content(old)
    wrong = refused(BundleError, old, got=got, hint=[])
    with wrong, staged_bundle(old, force=force):
        pytest.fail("the block must not run")
    assert "--force" not in str(wrong.error)
    assert content(old) == before


def test_a_bundle_of_version_1_is_replaced(tmp_path: Path) -> None:
    fixture = Path(__file__).parents[1] / "fixtures" / "v1.sgraf"
    folder = shutil.copytree(fixture, tmp_path / "v1.sgraf")
    replace(folder)
    assert Bundle.open(folder).manifest.tools["content"] == "new"
