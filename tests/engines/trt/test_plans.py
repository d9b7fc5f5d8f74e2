"""Plans and sidecars: whole or not there, and every altered byte or field is caught."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.onnx_bundles import write_bundle
from support.refusals import naming, refused
from support.sidecars import DIGEST, EXPECTED, PLAN, SIDECAR, SIDECAR_FILE, load, signed

from sgraf_deploy.config import GRAPHS, PRECISIONS, member_names
from sgraf_deploy.engines.trt.plans import (
    DOCUMENT,
    Sidecar,
    load_plan,
    plan_folder,
    plan_name,
    read_sidecar,
    replace_file,
    write_plan,
)
from sgraf_deploy.errors import BundleError

BUILD = "sgraf-deploy compile BUNDLE"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_plan(tmp_path / "engines", PLAN, SIDECAR)
    return tmp_path / "engines"


def edit(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "sgr-fp16-scorer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def forge(folder: Path, change: dict[str, Any]) -> None:
    """Change a sidecar and its checksum, as anybody can."""
    path = folder / SIDECAR_FILE
    path.write_text(json.dumps(signed(json.loads(path.read_text()) | change)))


def test_what_was_written_is_read(folder: Path) -> None:
    assert read_sidecar(folder, "sgr", "fp16", "scorer") == SIDECAR
    assert load(folder) == PLAN


def test_a_sidecar_is_written_a_field_a_line(folder: Path) -> None:
    assert len((folder / SIDECAR_FILE).read_text().splitlines()) > len(SIDECAR.to_json())


def test_the_folders_above_are_made_too(tmp_path: Path) -> None:
    folder = tmp_path / "shared" / "engines"
    assert write_plan(folder, PLAN, SIDECAR) == folder / SIDECAR_FILE
    assert load(folder) == PLAN


def test_a_newer_plan_takes_the_place_of_the_older(folder: Path) -> None:
    newer = b"newer" * 100
    digest = hashlib.sha256(newer).hexdigest()
    name = f"sgr-fp16-scorer-{digest[:16]}.plan"
    sidecar = replace(SIDECAR, plan_sha256=digest, plan_bytes=len(newer))
    write_plan(folder, newer, sidecar)
    assert load(folder) == newer
    assert sorted(path.name for path in folder.iterdir()) == [name, "sgr-fp16-scorer.json"]


def test_a_file_that_no_build_wrote_stays(folder: Path) -> None:
    kept = folder / "sgr-fp16-scorer-of-june.plan"
    kept.write_bytes(b"mine")
    newer = replace(SIDECAR, plan_sha256="0" * 64)
    write_plan(folder, PLAN, newer)
    assert kept.read_bytes() == b"mine"
    assert not (folder / SIDECAR.plan).exists()


def test_members_of_one_module_have_plans_of_their_own(folder: Path) -> None:
    """No name is what another one's files begin with."""
    members = member_names(["SGR", "SGR", "SAF", *["SGR"] * 9])  # type: ignore[list-item]
    names = [
        plan_name(member, precision, graph)
        for member in members
        for precision in PRECISIONS
        for graph in GRAPHS
    ]
    assert len(set(names)) == 12 * len(PRECISIONS) * len(GRAPHS)
    assert not any(
        other.startswith(f"{name}-") for name in names for other in names if other != name
    )
    for member in members[1:]:
        plan = member.encode()
        digest = hashlib.sha256(plan).hexdigest()
        own = replace(SIDECAR, member=member, plan_sha256=digest, plan_bytes=len(plan))
        write_plan(folder, plan, own)
    assert load(folder) == PLAN
    for member in members[1:]:
        _, plan = load_plan(folder, EXPECTED | {"member": member}, lambda sidecar: True)
        assert plan == member.encode()


@pytest.mark.parametrize("step", [1, 2], ids=["before-the-plan", "before-the-sidecar"])
def test_a_killed_write_leaves_the_older_plan(
    folder: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = os.replace

    def kill(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == step:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", kill)
    other = replace(SIDECAR, plan_sha256="0" * 64)
    with pytest.raises(KeyboardInterrupt):
        write_plan(folder, b"newer", other)
    assert load(folder) == PLAN
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("field", sorted(SIDECAR.to_json()))
def test_an_altered_field_is_caught(folder: Path, field: str) -> None:
    value = SIDECAR.to_json()[field]
    altered: Any
    if isinstance(value, int):
        altered = value + 1
    elif isinstance(value, str):
        altered = value[:-1] + ("0" if value[-1] != "0" else "1")
    else:
        altered = type(value)()
    edit(folder, {field: altered})
    with refused(BundleError, folder / SIDECAR_FILE, hint=BUILD):
        load(folder)


def test_an_unknown_field_is_caught(folder: Path) -> None:
    forge(folder, {"extra": 1})
    with refused(
        BundleError,
        folder / SIDECAR_FILE,
        "extra",
        expected=None,
        hint=BUILD,
    ):
        load(folder)


@pytest.mark.parametrize("field", sorted(set(SIDECAR.to_json()) - {"checksum"}))
def test_a_missing_field_is_caught(folder: Path, field: str) -> None:
    path = folder / SIDECAR_FILE
    content = json.loads(path.read_text())
    del content[field]
    path.write_text(json.dumps(signed(content)))
    with refused(BundleError, folder / SIDECAR_FILE, field, expected=None, hint=BUILD):
        load(folder)


WRONG: dict[str, list[object]] = {
    "schema": [None, 0, 4, "3", [3]],
    "member": [5, None, ["sgr"], "", "../sgr", "a/b", "s\x1b[2J"],
    "graph": [5, "explain", ["scorer"]],
    "precision": [16, "bf16", None],
    "onnx_sha256": [5, "ab", "AB" * 32, None],
    "plan_sha256": [5, "ab", "../" * 21 + "x", None],
    "plan_bytes": ["many", 1.5, True, None, [1], -1],
    "flavour": [5, "onnxruntime", None],
    "version": [1.7, "", "1.7\n", "\x1b]0;owned\x07"],
    "compute_capabilities": [
        *(8.9, "8.9", None, [], [8.9], [""], ["8.9\x00"], ["8.9", "portable"], {"8.9": 1}),
    ],
    "profiles": [
        *(3, [3], "x", None, {}, [{"lengths": 3}], [{"lengths": [[1], [4]]}]),
        *([{"lengths": [[1], [4], ["8"]]}], [{"lengths": [[1], [4], [8.0]]}]),
        *([{"lengths": [[1], [4], [True]]}], [{"lengths": [[1], [4], [8, 8]]}], [[1, 2, 3]]),
    ],
    "workspace_bytes": ["2", None, True, 2.0, -1],
    "layers": [3, ["HALF"], {"HALF": "16"}, {"HALF": True}, None],
}
"""By field what a file with the right checksum may hold there, and nobody can use."""


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param(field, value, id=f"{field}-{place}")
        for field, values in WRONG.items()
        for place, value in enumerate(values)
    ],
)
def test_a_field_of_another_kind_is_refused(folder: Path, field: str, value: object) -> None:
    forge(folder, {field: value})
    with refused(BundleError, folder / SIDECAR_FILE, field, got=naming()) as caught:
        load(folder)
    assert str(caught.error).isprintable()


def test_nothing_is_a_size_too(folder: Path) -> None:
    empty = replace(SIDECAR, plan_bytes=0, workspace_bytes=0)
    assert Sidecar.from_bytes(empty.to_bytes()) == empty


def test_shapes_of_one_input_have_as_many_axes(folder: Path) -> None:
    forge(folder, {"profiles": [{"lengths": [[1], [4], [8, 8]]}]})
    with refused(BundleError, "profiles", "lengths", got=[1, 1, 2]):
        load(folder)


def test_every_field_has_wrong_values_above() -> None:
    assert set(WRONG) == set(SIDECAR.to_json()) - {"checksum"}


def test_a_plan_of_another_name_is_not_read(folder: Path) -> None:
    (folder / SIDECAR.plan).rename(folder / "sgr-fp16-scorer-0000.plan")
    with refused(BundleError, folder / SIDECAR.plan, got=None, hint=BUILD):
        load(folder)


@pytest.mark.parametrize("file", [SIDECAR_FILE, SIDECAR.plan], ids=["sidecar", "plan"])
def test_a_link_out_of_the_folder_is_refused(folder: Path, file: str) -> None:
    (folder / file).rename(folder.parent / "elsewhere")
    (folder / file).symlink_to(folder.parent / "elsewhere")
    with refused(BundleError, folder / file, expected=naming(), got=naming(), hint=BUILD):
        load(folder)


@pytest.mark.parametrize("file", [SIDECAR_FILE, SIDECAR.plan], ids=["sidecar", "plan"])
@pytest.mark.parametrize("kind", ["folder", "fifo", "circle"])
def test_what_is_no_file_is_refused(folder: Path, file: str, kind: str) -> None:
    path = folder / file
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)  # Reading it would wait forever.
    else:
        path.symlink_to(path)
    reason = os.strerror(errno.ELOOP) if kind == "circle" else naming()
    with refused(BundleError, path, got=reason, hint=BUILD):
        load(folder)


def test_a_huge_sidecar_is_not_read(folder: Path) -> None:
    with (folder / SIDECAR_FILE).open("r+b") as file:
        file.truncate(2**40)
    with refused(BundleError, folder / SIDECAR_FILE, expected=naming(2**20), got=2**40):
        load(folder)


def test_as_large_as_a_sidecar_may_be_it_is_read(folder: Path) -> None:
    content = SIDECAR.to_bytes()
    (folder / SIDECAR_FILE).write_bytes(content + b" " * (DOCUMENT.most_bytes - len(content)))
    assert load(folder) == PLAN


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a":' * 100_000, b'{"schema": 2, "schema": 2}', b'{"schema": NaN}'],
    ids=["lists", "objects", "twice", "nan"],
)
def test_json_that_is_a_trap_is_refused(folder: Path, content: bytes) -> None:
    (folder / SIDECAR_FILE).write_bytes(content)
    with refused(BundleError, folder / SIDECAR_FILE, got=naming()):
        load(folder)


def test_plans_are_not_looked_for_behind_a_link(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path / "small.sgraf", "SAF", precisions=["fp32"])
    assert plan_folder(bundle, None) == bundle.path / "engines"
    (bundle.path / "engines").mkdir()
    assert plan_folder(bundle, None) == bundle.path / "engines"
    (bundle.path / "engines").rmdir()
    (bundle.path / "engines").symlink_to(tmp_path)
    with refused(BundleError, bundle.path / "engines", hint="--engine-dir"):
        plan_folder(bundle, None)
    assert plan_folder(bundle, tmp_path) == tmp_path / bundle.sha256[:16]


@pytest.mark.parametrize("place", [0, 1, 64, len(PLAN) // 2, len(PLAN) - 1])
def test_an_altered_byte_of_the_plan_is_caught(folder: Path, place: int) -> None:
    damaged = bytearray(PLAN)
    damaged[place] ^= 1
    (folder / SIDECAR.plan).write_bytes(damaged)
    with refused(BundleError, folder / SIDECAR.plan, expected=DIGEST[:12], got=naming()):
        load(folder)


@pytest.mark.parametrize("size", [0, 1, len(PLAN) - 1])
def test_a_truncated_plan_is_caught(folder: Path, size: int) -> None:
    (folder / SIDECAR.plan).write_bytes(PLAN[:size])
    with refused(BundleError, folder / SIDECAR.plan, expected=len(PLAN), got=size):
        load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("onnx_sha256", "cd" * 32),
        ("flavour", "tensorrt"),
        ("version", "1.8.0"),
    ],
)
def test_a_plan_of_something_else_is_refused(folder: Path, field: str, value: str) -> None:
    right = getattr(SIDECAR, field)
    with refused(BundleError, folder / SIDECAR.plan, expected=value, got=right, hint=BUILD):
        load(folder, **{field: value})


def test_a_plan_must_be_allowed(folder: Path) -> None:
    asked: list[Sidecar] = []

    def refuse(sidecar: Sidecar) -> bool:
        asked.append(sidecar)
        return False

    with refused(BundleError, folder / SIDECAR.plan, hint="--allow-unverified"):
        load_plan(folder, EXPECTED, refuse)
    assert asked == [SIDECAR]


@pytest.mark.parametrize("file", [SIDECAR_FILE, SIDECAR.plan], ids=["sidecar", "plan"])
def test_a_missing_file_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with refused(BundleError, folder / file, got=None, hint=BUILD):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_sidecar_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "sgr-fp16-scorer.json").write_bytes(content)
    with refused(BundleError, folder / SIDECAR_FILE, got=naming()):
        load(folder)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with refused(BundleError, tmp_path / "file" / "engines" / SIDECAR_FILE, hint="--engine-dir"):
        write_plan(tmp_path / "file" / "engines", PLAN, SIDECAR)


def test_an_older_plan_that_cannot_be_removed_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(Path, "unlink", denied)
    newer, reason = replace(SIDECAR, plan_sha256="0" * 64), os.strerror(errno.EACCES)
    with refused(BundleError, folder / SIDECAR_FILE, got=reason, hint="--engine-dir"):
        write_plan(folder, PLAN, newer)


def test_a_file_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    target, reason = tmp_path / SIDECAR.plan, os.strerror(errno.ENOSPC)
    with refused(BundleError, f"plan {target}", got=reason, hint="--engine-dir"):
        replace_file(target, PLAN)
