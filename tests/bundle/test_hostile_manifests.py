"""Manifests that no program writes: each an error that names the place, never another exception."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.mutations import Raw, Tried, dumps
from support.refusals import naming, refused
from support.small_bundle import fill, manifest

from sgraf_deploy.bundle.bundle import Bundle, check_replaceable, write_manifest
from sgraf_deploy.errors import BundleError, SgrafDeployError

Json = Any
Change = Callable[[Json], None]

CHECKPOINT = "members.sgr.checkpoint"
SCORER = "members.sgr.graphs.fp32.scorer"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "small.sgraf"
    path.mkdir()
    fill(path, manifest())
    return path


def put(path: str, value: Json) -> Change:
    *steps, last = path.split(".")

    def change(document: Json) -> None:
        for step in steps:
            document = document[step]
        document[last] = value

    return change


HOSTILE: dict[str, tuple[str, Json, object]] = {
    "infinite": (f"{CHECKPOINT}.best_rsum", Raw("1e999"), "1e999"),
    "minus-infinite": (f"{CHECKPOINT}.best_rsum", Raw("-1e999"), "-1e999"),
    "400-digits": (f"{CHECKPOINT}.best_rsum", Raw("9" * 400), naming(400)),
    "5000-digits": (f"{CHECKPOINT}.best_rsum", Raw("9" * 5000), naming(5000)),
    "400-digit-fraction": (f"{CHECKPOINT}.best_rsum", Raw(f"0.{'9' * 400}"), naming(402)),
    "400-digit-epoch": (f"{CHECKPOINT}.epoch", Raw("9" * 400), naming(400)),
    "400-digit-size": (f"{SCORER}.bytes", Raw("9" * 400), naming(400)),
    "surrogate-file": (f"{SCORER}.file", "sgr/\ud800.onnx", r'"sgr/\ud800.onnx"'),
    "surrogate-checkpoint": (f"{CHECKPOINT}.file", "\udc80.pth", r'"\udc80.pth"'),
    "surrogate-name": ("tools.\ud800", "1", r'"\ud800"'),
    "free-infinite": ("parity.fp32.largest", Raw("1e999"), "1e999"),
    "free-400-digits": ("parity.more", [Raw("9" * 400)], naming(400)),
    "free-nan": ("region_statistics.mean", Raw("NaN"), "NaN"),
}
"""A field, what stands there, and what an error says it got."""


def test_what_json_lets_pass_is_refused(folder: Path) -> None:
    with Tried() as trying:
        for name, (path, value, got) in HOSTILE.items():
            document = manifest().to_json()
            put(path, value)(document)
            (folder / "manifest.json").write_bytes(dumps(document))
            named = path.replace("\ud800", '"\\ud800"')
            with trying(f"{name}, opened"):
                with refused(BundleError, folder / "manifest.json", named, got=got) as found:
                    Bundle.open(folder)
                assert_shown(found.error)
            with trying(f"{name}, replaced"):
                with refused(BundleError, folder, got=naming("manifest.json", named)) as found:
                    check_replaceable(folder)
                assert_shown(found.error)


def assert_shown(error: SgrafDeployError) -> None:
    """It fits a line of a terminal, and writes nothing else there."""
    assert str(error).isprintable()
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    "content",
    [
        b"[" * 1_000_000,
        b'{"a":' * 1_000_000,
        json.dumps(manifest().to_json()).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(manifest().to_json()).encode(),
        json.dumps(manifest().to_json()).encode() + b"{}",
        b'{"schema_version": 1, "schema_version": 1}',
        b"",
    ],
    ids=["lists", "objects", "utf-16", "byte-order-mark", "trailing", "twice", "empty"],
)
def test_what_is_no_such_json_is_refused(folder: Path, content: bytes) -> None:
    (folder / "manifest.json").write_bytes(content)
    with refused(BundleError, folder / "manifest.json", hint=[]):
        Bundle.open(folder)


def test_a_huge_manifest_is_not_read(folder: Path) -> None:
    with (folder / "manifest.json").open("r+b") as file:
        file.truncate(2**40)
    with refused(BundleError, folder / "manifest.json", got=naming(16 * 2**20)):
        Bundle.open(folder)


@pytest.mark.parametrize("field", ["epoch", "best_rsum"])
def test_a_manifest_that_could_not_be_read_is_not_written(tmp_path: Path, field: str) -> None:
    made = manifest()
    member = made.members["sgr"]
    changes: dict[str, Any] = {field: 10**400 if field == "epoch" else float("inf")}
    member = replace(member, checkpoint=replace(member.checkpoint, **changes))
    with refused(BundleError, tmp_path / "manifest.json", f"{CHECKPOINT}.{field}"):
        write_manifest(tmp_path, replace(made, members={"sgr": member}))
    assert list(tmp_path.iterdir()) == []
