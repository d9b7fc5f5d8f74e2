"""Which GPUs a plan is for, as sidecars of every schema say it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from support.refusals import holds, naming, refused
from support.sidecars import PLAN, SIDECAR, SIDECAR_FILE, load, schema_1, schema_2, signed

from sgraf_deploy.engines.trt.library import Flavour
from sgraf_deploy.engines.trt.plans import Sidecar, read_sidecar, write_plan
from sgraf_deploy.engines.trt.rtx import CAPABILITIES, INSTEAD, REBUILD
from sgraf_deploy.errors import BundleError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_plan(tmp_path / "engines", PLAN, SIDECAR)
    return tmp_path / "engines"


def write_older(folder: Path, schema: int, **changes: object) -> None:
    path = folder / SIDECAR_FILE
    older = {1: schema_1, 2: schema_2}[schema]
    path.write_text(json.dumps(older(json.loads(path.read_text()), **changes)))


def test_a_sidecar_of_version_0_1_is_read(folder: Path) -> None:
    write_older(folder, 1)
    assert read_sidecar(folder, "sgr", "fp16", "scorer") == SIDECAR
    assert load(folder) == PLAN


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        *(({"plan": value}, "plan") for value in (5, None, "other.plan", "../x.plan", "/etc/x")),
        *(({"verified": value}, "verified") for value in ("yes", 1, None)),
    ],
)
def test_a_sidecar_of_version_0_1_must_be_whole(
    folder: Path, changes: dict[str, object], field: str
) -> None:
    write_older(folder, 1, **changes)
    with refused(BundleError, folder / SIDECAR_FILE, field, expected=naming()):
        load(folder)


@pytest.mark.parametrize("compute_capability", ["8.6", "8.9"])
def test_a_plan_may_be_for_several_kinds_of_gpu(folder: Path, compute_capability: str) -> None:
    write_plan(folder, PLAN, replace(SIDECAR, compute_capabilities=("8.6", "8.9")))
    assert load(folder, compute_capability=compute_capability) == PLAN


@pytest.mark.parametrize(
    ("flavour", "compute_capability", "hint"),
    [
        ("tensorrt-rtx", "7.5", INSTEAD),
        ("tensorrt-rtx", "9.0", INSTEAD),
        ("tensorrt-rtx", "10.0", INSTEAD),
        ("tensorrt-rtx", "12.1", REBUILD),
        ("tensorrt", "9.0", REBUILD),
        ("tensorrt", "7.5", REBUILD),
    ],
)
def test_a_plan_for_other_gpus_is_refused(
    folder: Path, flavour: Flavour, compute_capability: str, hint: str
) -> None:
    """And nobody is told to build the same again where that gives the same."""
    some = CAPABILITIES[:-1]
    write_plan(folder, PLAN, replace(SIDECAR, flavour=flavour, compute_capabilities=some))
    with refused(BundleError, expected=compute_capability, got=naming(*some)) as caught:
        load(folder, flavour=flavour, compute_capability=compute_capability)
    assert caught.error.hint == hint


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize(
    ("stored", "read"), [("8.9", ("8.9",)), ("9.0", ("9.0",)), ("portable", CAPABILITIES)]
)
def test_an_older_sidecar_is_for_what_it_was_built_for(
    folder: Path, schema: int, stored: str, read: tuple[str, ...]
) -> None:
    """One without a compute capability never was for all of them, whatever it was taken for."""
    write_older(folder, schema, compute_capability=stored)
    sidecar = read_sidecar(folder, "sgr", "fp16", "scorer")
    assert sidecar == replace(SIDECAR, compute_capabilities=read)
    assert Sidecar.from_bytes(sidecar.to_bytes()) == sidecar


@pytest.mark.parametrize("schema", [1, 2])
@pytest.mark.parametrize("value", [8.9, None, "", ["8.9"], "8.9\x00", "every"])
def test_an_older_sidecar_must_name_a_kind_of_gpu(folder: Path, schema: int, value: object) -> None:
    write_older(folder, schema, compute_capability=value)
    with refused(BundleError, folder / SIDECAR_FILE, expected=naming(), got=naming()) as caught:
        load(folder)
    names = "compute_capability", "compute_capabilities"
    assert any(holds(caught.error.what, name) for name in names)


@pytest.mark.parametrize("schema", [1, 2])
def test_an_older_sidecar_has_the_older_field(folder: Path, schema: int) -> None:
    content = json.loads((folder / SIDECAR_FILE).read_text())
    (folder / SIDECAR_FILE).write_text(json.dumps(signed(content | {"schema": schema})))
    with refused(BundleError, folder / SIDECAR_FILE, "compute_capabilities", expected=None):
        load(folder)
    del content["compute_capabilities"]
    (folder / SIDECAR_FILE).write_text(json.dumps(signed(content | {"schema": schema})))
    with refused(BundleError, folder / SIDECAR_FILE, "compute_capability", expected=None):
        load(folder)
