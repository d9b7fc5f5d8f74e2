from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.refusals import ANY, holds, naming, refused
from support.small_bundle import config, fill, manifest, without_extras
from support.staged_writer import never

from sgraf_deploy.bundle import bundle
from sgraf_deploy.bundle.bundle import Bundle, hash_file, staged_bundle, write_manifest
from sgraf_deploy.bundle.manifest import FileRef
from sgraf_deploy.config import GRAPHS, signature
from sgraf_deploy.errors import BundleError
from sgraf_deploy.files import disk
from sgraf_deploy.files.disk import kind_of
from sgraf_deploy.files.writer import write_json

FILES = [
    *(f"sgr/fp32/{name}.onnx" for name in GRAPHS),
    "reference/sgr.safetensors",
    "vocab.json",
    "reference/gate.npz",
    "extractor/extractor.json",
    "extractor/backbone.onnx",
    "extractor/projection.npz",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "small.sgraf"
    path.mkdir()
    return path


@pytest.fixture
def opened(folder: Path) -> Bundle:
    fill(folder, manifest())
    return Bundle.open(folder)


@pytest.fixture
def bare(folder: Path) -> Bundle:
    fill(folder, without_extras(manifest()))
    return Bundle.open(folder)


EXPORT = "sgraf-deploy export --force"
"""The command that a hint about a damaged bundle names."""


def test_a_bundle_opens_as_it_was_written(folder: Path) -> None:
    made = fill(folder, manifest())

    found = Bundle.open(str(folder))

    assert found.manifest == made
    assert found.path == folder
    assert [ref.file for ref in found.manifest.files] == FILES
    assert found.verify_files() == ()


def test_a_bundle_stays_the_one_that_its_link_led_to(opened: Bundle, tmp_path: Path) -> None:
    link = tmp_path / "current.sgraf"
    link.symlink_to(opened.path.name)

    found = Bundle.open(link)

    assert found.path == opened.path
    assert found.vocabulary_path() == opened.path / "vocab.json"


def test_a_relative_path_is_opened_for_good(
    opened: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = Bundle.open(opened.path.name)
    monkeypatch.chdir("/")

    assert found.verify_files() == ()


@pytest.mark.parametrize(
    ("make", "names", "got"),
    [
        (lambda path: None, ["manifest.json"], None),
        (lambda path: (path / "manifest.json").mkdir(), [], os.strerror(errno.EISDIR)),
        (lambda path: (path / "manifest.json").write_text("{"), ["JSON"], naming("line 1")),
        (lambda path: (path / "manifest.json").write_text("[]"), [], "[]"),
        (lambda path: write_json(path / "manifest.json", {}), ["schema_version"], None),
        (
            lambda path: write_json(path / "manifest.json", {"schema_version": 1}),
            ["module"],
            None,
        ),
        (
            lambda path: write_json(path / "manifest.json", {"schema_version": 99}),
            ["schema_version"],
            99,
        ),
    ],
    ids=["empty", "folder", "broken", "list", "no-version", "no-fields", "newer"],
)
def test_what_is_no_bundle_is_refused(
    folder: Path, make: Callable[[Path], None], names: list[str], got: object
) -> None:
    make(folder)

    there = (folder / "manifest.json").exists()
    with refused(BundleError, folder, *names, got=got) as found:
        Bundle.open(folder)
    assert not there or holds(found.error.what, folder / "manifest.json")


def test_a_bundle_that_is_not_there_is_refused(folder: Path) -> None:
    folder.rmdir()

    with refused(BundleError, folder, hint="sgraf-deploy export") as found:
        Bundle.open(folder)
    assert "manifest.json" not in found.error.what


def test_a_checkpoint_file_is_sent_to_export(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model.pth.tar"
    checkpoint.write_bytes(b"PK")

    with refused(BundleError, checkpoint, hint=f"sgraf-deploy export {checkpoint}"):
        Bundle.open(checkpoint)


def test_a_link_to_itself_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "loop.sgraf"
    link.symlink_to(link.name)

    with refused(BundleError, link, got=os.strerror(errno.ELOOP)):
        Bundle.open(link)


def test_every_file_is_found(opened: Bundle) -> None:
    for name in GRAPHS:
        path = opened.graph_path("sgr", name, "fp32")
        assert path == opened.path / f"sgr/fp32/{name}.onnx"
        assert opened.graph("sgr", name, "fp32").signature == signature(name, config("SGR"), "fp32")
    assert opened.reference_path("sgr") == opened.path / "reference/sgr.safetensors"
    assert opened.gate_path() == opened.path / "reference/gate.npz"
    assert opened.vocabulary_path() == opened.path / "vocab.json"


def test_a_missing_precision_names_the_option_and_what_there_is(opened: Bundle) -> None:
    hint = ["--precision fp32", EXPORT]
    with refused(BundleError, opened.path, "fp16", expected="fp32", got="fp16", hint=hint):
        opened.graph_path("sgr", "scorer", "fp16")


@pytest.mark.parametrize(
    ("call", "expected", "got"),
    [
        (lambda made: made.graph("saf", "scorer", "fp32"), "sgr", "saf"),
        (lambda made: made.graph("sgr", "explain", "fp32"), naming(*GRAPHS), "explain"),
        (lambda made: made.reference_path("saf"), "sgr", "saf"),
    ],
    ids=["member", "graph", "reference-of-member"],
)
def test_what_the_bundle_never_had_is_named(
    opened: Bundle, call: Callable[[Bundle], object], expected: object, got: str
) -> None:
    with refused(BundleError, opened.path, expected=expected, got=got):
        call(opened)


@pytest.mark.parametrize(
    ("call", "names", "hint"),
    [
        (lambda made: made.reference_path("sgr"), ["sgr"], "--checkpoint FILE"),
        (lambda made: made.gate_path(), [], "--checkpoint FILE"),
        (lambda made: made.vocabulary_path(), [], "--vocab FILE"),
        (lambda made: made.extractor_files(), [], "--extractor SPEC"),
    ],
    ids=["reference", "gate", "vocabulary", "extractor"],
)
def test_what_was_left_out_names_what_stands_in(
    bare: Bundle, call: Callable[[Bundle], object], names: list[str], hint: str
) -> None:
    with refused(BundleError, bare.path, *names, hint=hint):
        call(bare)


@pytest.mark.parametrize("file", FILES)
def test_a_changed_byte_is_found(folder: Path, file: str) -> None:
    fill(folder, manifest())
    path = folder / file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    found = Bundle.open(folder)
    ref = next(ref for ref in found.manifest.files if ref.file == file)
    got = hash_file(path, relative_to=folder).sha256

    for call in (lambda: found.file(ref), found.verify_files):
        with refused(BundleError, file, folder, expected=naming(ref.sha256), got=got, hint=EXPORT):
            call()


NO_CAUSE = type(None)


@pytest.mark.parametrize(
    ("damage", "got", "cause"),
    [
        (lambda path: path.unlink(), ANY, FileNotFoundError),
        (lambda path: path.write_bytes(b""), naming(0), NO_CAUSE),
        (lambda path: (path.unlink(), path.mkdir()), kind_of(stat.S_IFDIR), NO_CAUSE),
        (lambda path: (path.unlink(), path.symlink_to(path.name)), ANY, (OSError, RuntimeError)),
        (
            lambda path: (path.rename("/".join((*path.parts[:-2], "v"))), path.symlink_to("../v")),
            naming("v"),
            NO_CAUSE,
        ),
    ],
    ids=["missing", "empty", "folder", "link-to-itself", "link-outside"],
)
def test_a_file_that_is_none_is_refused(
    opened: Bundle, damage: Callable[[Path], None], got: object, cause: type[Exception]
) -> None:
    damage(opened.path / "vocab.json")

    with refused(BundleError, "vocab.json", opened.path, got=got, hint=EXPORT) as found:
        opened.vocabulary_path()
    assert isinstance(found.error.__cause__, cause)


def test_several_damaged_files_are_all_named(opened: Bundle) -> None:
    for file in FILES[1:4]:
        (opened.path / file).unlink()

    with refused(BundleError, opened.path, *FILES[1:4], hint=EXPORT) as found:
        opened.verify_files()
    said = found.error.what.replace(str(opened.path), "")
    assert [number for number in (3, 10) if not holds(said, number)] == []


def test_a_file_is_hashed_once_until_it_changes(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    digest = bundle._hash

    def counted(path: Path) -> str:
        hashed.append(path.name)
        return digest(path)

    monkeypatch.setattr(bundle, "_hash", counted)
    path = opened.vocabulary_path()
    opened.vocabulary_path()
    assert hashed == ["vocab.json"]

    status = path.stat()
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))

    with refused(BundleError, "vocab.json", got=digest(path)):
        opened.vocabulary_path()
    assert hashed == ["vocab.json", "vocab.json"]


def test_a_file_that_cannot_be_read_is_named(
    opened: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(bundle, "_hash", refuse)

    with refused(BundleError, "vocab.json", opened.path, got=naming(os.strerror(errno.EACCES))):
        opened.vocabulary_path()


def test_files_that_nobody_named_are_reported(opened: Bundle) -> None:
    for file in ("engines/sm90/a.plan", "notes.txt", "sgr/engines/b.plan"):
        (opened.path / file).parent.mkdir(parents=True, exist_ok=True)
        (opened.path / file).touch()
    (opened.path / "elsewhere").symlink_to("/")

    assert opened.verify_files() == ("elsewhere", "notes.txt", "sgr/engines/b.plan")


def test_the_identity_is_that_of_the_content(folder: Path, tmp_path: Path) -> None:
    made = fill(folder, manifest())
    first = Bundle.open(folder).sha256
    text = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(dict(reversed(text.items()))))
    assert Bundle.open(folder).sha256 == first

    shutil.copytree(folder, tmp_path / "copy.sgraf")
    assert Bundle.open(tmp_path / "copy.sgraf").sha256 == first

    write_manifest(folder, replace(made, tools={"content": "else"}))
    assert Bundle.open(folder).sha256 != first


def test_a_bundle_that_was_replaced_is_to_be_opened_again(opened: Bundle) -> None:
    with staged_bundle(opened.path, force=True) as staged:
        fill(staged, manifest(content="another"))

    with refused(BundleError, "vocab.json", hint=[]) as found:
        opened.vocabulary_path()
    assert EXPORT not in str(found.error.hint)  # the new one is whole
    assert Bundle.open(opened.path).verify_files() == ()


def test_opening_completes_an_interrupted_replacement(opened: Bundle) -> None:
    """What a kill between the two renames leaves, made by hand."""
    staged, moved = (
        opened.path.with_name(f".{opened.path.name}.{kind}-{'0' * 16}") for kind in ("new", "old")
    )
    staged.mkdir()
    made = fill(staged, manifest(content="new"))
    opened.path.rename(moved)

    assert Bundle.open(opened.path).manifest == made


@pytest.mark.parametrize("exchange", [disk.exchange, never], ids=["exchange", "two-renames"])
def test_readers_find_a_bundle_while_it_is_replaced(
    folder: Path, exchange: Callable[[Path, Path], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    fill(folder, manifest(content="0"))
    done = threading.Event()
    found: set[str] = set()
    errors: list[BundleError] = []

    def read() -> None:
        while not done.is_set():
            try:
                found.add(Bundle.open(folder).manifest.tools["content"])
            except BundleError as error:
                errors.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for turn in range(1, 40):
            with staged_bundle(folder, force=True, exchange=exchange) as staged:
                fill(staged, manifest(content=str(turn)))
    finally:
        done.set()
        reader.join()

    assert errors == []
    assert found <= {str(turn) for turn in range(40)}
    assert found


@pytest.mark.parametrize("name", ["../out.onnx", "manifest.json"], ids=["outside", "reserved"])
def test_only_a_file_of_the_bundle_is_described(folder: Path, name: str) -> None:
    (folder / name).touch()

    with refused(BundleError, got=f'"{name}"'):
        hash_file(folder / name, relative_to=folder)
    with refused(BundleError, folder / "absent.onnx"):
        hash_file(folder / "absent.onnx", relative_to=folder)


def test_a_file_is_described_by_its_content(folder: Path) -> None:
    (folder / "sgr").mkdir()
    (folder / "sgr" / "a.onnx").write_bytes(b"abc")

    assert hash_file(folder / "sgr" / "a.onnx", relative_to=folder) == FileRef(
        "sgr/a.onnx", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad", 3
    )


@pytest.mark.parametrize(
    "parity",
    [{"largest": float("nan")}, {"largest": {1, 2}}],
    ids=["nan", "set"],
)
def test_a_manifest_that_is_no_json_is_not_written(folder: Path, parity: dict[str, Any]) -> None:
    made = replace(manifest(), parity=parity)

    with refused(BundleError, folder / "manifest.json"):
        write_manifest(folder, made)
    assert not (folder / "manifest.json").exists()


def test_a_manifest_that_could_not_be_read_back_is_not_written(folder: Path) -> None:
    made = replace(manifest(), tools={"torch": 2})  # type: ignore[dict-item]

    with refused(BundleError, folder / "manifest.json", "tools.torch", got=2):
        write_manifest(folder, made)
    assert not (folder / "manifest.json").exists()
