"""Plans and sidecars: whole or not there, and every altered byte or field is caught."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sgraf_deploy.config import GRAPHS, PRECISIONS, member_names
from sgraf_deploy.errors import BundleError
from sgraf_deploy.runtime.plans import (
    PORTABLE,
    Sidecar,
    load_plan,
    plan_name,
    read_sidecar,
    write_plan,
)

PLAN = bytes(range(256)) * 8
DIGEST = hashlib.sha256(PLAN).hexdigest()

SIDECAR = Sidecar(
    member="sgr",
    graph="scorer",
    precision="fp16",
    onnx_sha256="ab" * 32,
    plan=f"sgr-fp16-scorer-{DIGEST[:16]}.plan",
    plan_sha256=DIGEST,
    plan_bytes=len(PLAN),
    flavour="tensorrt-rtx",
    version="1.7.1.116",
    compute_capability="8.9",
    profiles=({"lengths": ((1,), (4,), (8,))}, {"lengths": ((1,), (1,), (1,))}),
    workspace_bytes=2**30,
    layers={"FLOAT": 1, "HALF": 16},
    verified=True,
)

EXPECTED: dict[str, object] = {
    name: getattr(SIDECAR, name)
    for name in (
        *("member", "graph", "precision", "onnx_sha256"),
        *("flavour", "version", "compute_capability"),
    )
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_plan(tmp_path / "engines", PLAN, SIDECAR)
    return tmp_path / "engines"


def load(folder: Path, **changes: object) -> bytes:
    sidecar, plan = load_plan(folder, EXPECTED | changes, allow_unverified=False)
    assert sidecar == read_sidecar(folder, "sgr", "fp16", "scorer")
    return plan


def edit(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "sgr-fp16-scorer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


def test_what_was_written_is_read(folder: Path) -> None:
    assert read_sidecar(folder, "sgr", "fp16", "scorer") == SIDECAR
    assert load(folder) == PLAN


def test_a_newer_plan_takes_the_place_of_the_older(folder: Path) -> None:
    newer = b"newer" * 100
    digest = hashlib.sha256(newer).hexdigest()
    name = f"sgr-fp16-scorer-{digest[:16]}.plan"
    sidecar = replace(SIDECAR, plan=name, plan_sha256=digest, plan_bytes=len(newer))
    write_plan(folder, newer, sidecar)
    assert load(folder) == newer
    assert sorted(path.name for path in folder.iterdir()) == [name, "sgr-fp16-scorer.json"]


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
        name = f"{plan_name(member, 'fp16', 'scorer')}-{digest[:16]}.plan"
        own = replace(SIDECAR, member=member, plan=name, plan_sha256=digest, plan_bytes=len(plan))
        write_plan(folder, plan, own)
    assert load(folder) == PLAN
    for member in members[1:]:
        assert load_plan(folder, EXPECTED | {"member": member}, allow_unverified=False)[1] == (
            member.encode()
        )


@pytest.mark.parametrize("step", [1, 2], ids=["before-the-plan", "before-the-sidecar"])
def test_a_killed_write_leaves_the_older_plan(
    folder: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    real = Path.replace

    def kill(self: Path, target: Path) -> Path:
        nonlocal calls
        calls += 1
        if calls == step:
            raise KeyboardInterrupt
        return real(self, target)

    monkeypatch.setattr(Path, "replace", kill)
    other = replace(SIDECAR, plan="sgr-fp16-scorer-0000.plan", plan_sha256="0" * 64)
    with pytest.raises(KeyboardInterrupt):
        write_plan(folder, b"newer", other)
    assert load(folder) == PLAN
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("field", sorted(SIDECAR.to_json()))
def test_an_altered_field_is_caught(folder: Path, field: str) -> None:
    value = SIDECAR.to_json()[field]
    altered: Any
    if isinstance(value, bool):
        altered = not value
    elif isinstance(value, int):
        altered = value + 1
    elif isinstance(value, str):
        altered = value[:-1] + ("0" if value[-1] != "0" else "1")
    else:
        altered = type(value)()
    edit(folder, {field: altered})
    with pytest.raises(BundleError, match="sgraf-deploy compile"):
        load(folder)


def test_a_missing_or_unknown_field_is_caught(folder: Path) -> None:
    edit(folder, {"extra": 1})
    with pytest.raises(BundleError, match="its fields"):
        load(folder)


@pytest.mark.parametrize("place", [0, 1, 64, len(PLAN) // 2, len(PLAN) - 1])
def test_an_altered_byte_of_the_plan_is_caught(folder: Path, place: int) -> None:
    damaged = bytearray(PLAN)
    damaged[place] ^= 1
    (folder / SIDECAR.plan).write_bytes(damaged)
    with pytest.raises(BundleError, match="its sha256"):
        load(folder)


@pytest.mark.parametrize("size", [0, 1, len(PLAN) - 1])
def test_a_truncated_plan_is_caught(folder: Path, size: int) -> None:
    (folder / SIDECAR.plan).write_bytes(PLAN[:size])
    with pytest.raises(BundleError, match=f"its size: expected {len(PLAN)}, got {size}"):
        load(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("onnx_sha256", "cd" * 32),
        ("flavour", "tensorrt"),
        ("version", "1.8.0"),
        ("compute_capability", "9.0"),
    ],
)
def test_a_plan_of_something_else_is_refused(folder: Path, field: str, value: str) -> None:
    with pytest.raises(BundleError, match=rf"{field.replace('_', ' ')}: expected {value}"):
        load(folder, **{field: value})


def test_a_portable_plan_is_for_every_gpu(folder: Path) -> None:
    write_plan(folder, PLAN, replace(SIDECAR, compute_capability=PORTABLE))
    assert load(folder, compute_capability="12.0") == PLAN


def test_an_unverified_plan_must_be_allowed(folder: Path) -> None:
    write_plan(folder, PLAN, replace(SIDECAR, verified=False))
    with pytest.raises(BundleError, match="--allow-unverified"):
        load(folder)
    assert load_plan(folder, EXPECTED, allow_unverified=True)[1] == PLAN


@pytest.mark.parametrize(
    ("file", "says"),
    [("sgr-fp16-scorer.json", "no engine"), (SIDECAR.plan, "cannot be read")],
    ids=["sidecar", "plan"],
)
def test_a_missing_file_is_named(folder: Path, file: str, says: str) -> None:
    (folder / file).unlink()
    with pytest.raises(BundleError, match=f"{says}.*"):
        load(folder)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_sidecar_that_is_none_is_refused(folder: Path, content: bytes) -> None:
    (folder / "sgr-fp16-scorer.json").write_bytes(content)
    with pytest.raises(BundleError, match="sgr-fp16-scorer"):
        load(folder)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BundleError, match="--engine-dir"):
        write_plan(tmp_path / "file" / "engines", PLAN, SIDECAR)
