"""Compiled engines on disk: a plan, and the sidecar that says exactly what it was built from.

    ENGINES/MEMBER-PRECISION-GRAPH.json           the sidecar
    ENGINES/MEMBER-PRECISION-GRAPH-HASH.plan      the plan that it names

The sidecar is replaced in one step, after its plan: what it names is always whole. Nothing of a
plan is given to TensorRT before every field has been compared.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgraf_deploy.disk import os_errors
from sgraf_deploy.errors import BundleError
from sgraf_deploy.files import write_file

if TYPE_CHECKING:
    from sgraf_deploy.bundle import Bundle

ENGINES = "engines"
"""The folder inside a bundle; no part of its hash."""

SCHEMA = 1
PORTABLE = "portable"
"""The compute capability of a plan that names none."""

_ELSEWHERE = "choose a folder that can be written with --engine-dir"

Shape = tuple[int, ...]
Profile = dict[str, tuple[Shape, Shape, Shape]]
"""By input: the smallest, the best and the largest shape."""


@dataclass(frozen=True)
class Sidecar:
    """What a plan was built from, by what, and for which shapes.

    `layers` counts the matrix products by data type, as the strongly typed network has them:
    TensorRT may not change them. `verified` says whether its values were compared with the
    reference's on a GPU.
    """

    member: str
    graph: str
    precision: str
    onnx_sha256: str
    plan: str
    plan_sha256: str
    plan_bytes: int
    flavour: str
    version: str
    compute_capability: str
    profiles: tuple[Profile, ...]
    workspace_bytes: int
    layers: dict[str, int]
    verified: bool

    @property
    def name(self) -> str:
        """MEMBER-PRECISION-GRAPH."""
        return plan_name(self.member, self.precision, self.graph)

    def to_json(self) -> dict[str, Any]:
        """The fields, the schema, and a checksum over both."""
        value = {"schema": SCHEMA} | asdict(self)
        return value | {"checksum": _checksum(value)}

    def to_bytes(self) -> bytes:
        """The sidecar's file."""
        return json.dumps(self.to_json(), indent=1).encode() + b"\n"

    @classmethod
    def from_json(cls, value: object, path: Path) -> Sidecar:
        """Read `to_json`'s object back; BundleError for any defect."""
        names = {"schema", "checksum", *(each.name for each in fields(cls))}
        if not isinstance(value, dict) or set(value) != names:
            raise _defect(path, "its fields", f"{sorted(names)}", "others")
        if value["schema"] != SCHEMA:
            raise _defect(path, "its schema", str(SCHEMA), value["schema"])
        content = {name: item for name, item in value.items() if name != "checksum"}
        if value["checksum"] != _checksum(content):
            raise _defect(
                path, "its checksum", _checksum(content)[:12], str(value["checksum"])[:12]
            )
        profiles = tuple(
            {
                name: (tuple(low), tuple(best), tuple(high))
                for name, (low, best, high) in profile.items()
            }
            for profile in content.pop("profiles")
        )
        del content["schema"]
        return cls(**content, profiles=profiles)


def plan_name(member: str, precision: str, graph: str) -> str:
    """What a plan's files begin with."""
    return f"{member}-{precision}-{graph}"


def write_plan(folder: Path, plan: bytes, sidecar: Sidecar) -> Path:
    """Publish a plan and then, in one step, its sidecar; an earlier plan is removed.

    Returns the sidecar's path. Raises BundleError where the folder cannot be written.
    """
    path = folder / f"{sidecar.name}.json"
    with os_errors(f"engine {path}", BundleError, _ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / sidecar.plan, plan)
    replace_file(path, sidecar.to_bytes())
    ours = re.compile(rf"{re.escape(sidecar.name)}-[0-9a-f]{{16}}\.plan")
    with os_errors(f"engine {path}", BundleError, _ELSEWHERE):
        for old in folder.iterdir():
            if ours.fullmatch(old.name) and old.name != sidecar.plan:
                old.unlink()
    return path


def replace_file(target: Path, content: bytes) -> None:
    """Write a file whole or not at all; BundleError where that cannot be done."""
    write_file(target, content, what="engine", error=BundleError, mend=_ELSEWHERE)


def read_sidecar(folder: Path, member: str, precision: str, graph: str) -> Sidecar:
    """The sidecar of a plan; BundleError if there is none or it is damaged."""
    path = folder / f"{plan_name(member, precision, graph)}.json"
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise BundleError(f"no engine {path}", mend=REBUILD) from error
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"engine {path} cannot be read", got=error, mend=REBUILD) from error
    return Sidecar.from_json(value, path)


REBUILD = "build it with `sgraf-deploy compile BUNDLE`"


def engine_folder(bundle: Bundle, engine_dir: Path | None) -> Path:
    """Where a bundle's engines are: inside it, or in a folder by its hash elsewhere."""
    if engine_dir is None:
        return bundle.path / ENGINES
    return engine_dir / bundle.sha256[:16]


def mark_verified(folder: Path, sidecar: Sidecar) -> Sidecar:
    """Write down that a plan's values were compared with the reference's; returns the sidecar.

    Raises BundleError where the folder cannot be written, or holds another plan by now.
    """
    now = read_sidecar(folder, sidecar.member, sidecar.precision, sidecar.graph)
    if now.plan_sha256 != sidecar.plan_sha256:
        raise _defect(folder / now.plan, "its sha256", sidecar.plan_sha256[:12], now.plan_sha256)
    verified = replace(sidecar, verified=True)
    replace_file(folder / f"{sidecar.name}.json", verified.to_bytes())
    return verified


def load_plan(
    folder: Path, expected: Mapping[str, object], *, allow_unverified: bool
) -> tuple[Sidecar, bytes]:
    """A plan and its sidecar, once that has every expected field and the plan's hash is right.

    `expected` holds at least member, precision and graph; also what the machine and the bundle
    say: onnx_sha256, flavour, version, compute_capability. Raises BundleError that names what
    differs.
    """
    member, precision, graph = (str(expected[key]) for key in ("member", "precision", "graph"))
    sidecar = read_sidecar(folder, member, precision, graph)
    where = folder / sidecar.plan
    for name, value in expected.items():
        found = getattr(sidecar, name)
        if name == "compute_capability" and found == PORTABLE:
            continue
        if found != value:
            raise _defect(where, name.replace("_", " "), value, found)
    try:
        plan = where.read_bytes()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BundleError(f"engine {where} cannot be read", got=reason, mend=REBUILD) from error
    if len(plan) != sidecar.plan_bytes:
        raise _defect(where, "its size", sidecar.plan_bytes, len(plan))
    digest = hashlib.sha256(plan).hexdigest()
    if digest != sidecar.plan_sha256:
        raise _defect(where, "its sha256", sidecar.plan_sha256[:12], digest[:12])
    if not sidecar.verified and not allow_unverified:
        raise BundleError(
            f"engine {where} has never been compared with the reference on a GPU",
            mend="allow it with --allow-unverified: it is then verified on first use",
        )
    return sidecar, plan


def _defect(path: Path, what: str, expected: object, got: object) -> BundleError:
    return BundleError(f"engine {path}: {what}", expected=expected, got=got, mend=REBUILD)


def _checksum(value: Mapping[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
