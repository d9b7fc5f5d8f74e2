"""Compiled TensorRT plans on disk, each with a sidecar that says exactly what it was built from.

    FOLDER/MEMBER-PRECISION-GRAPH.json           the sidecar
    FOLDER/MEMBER-PRECISION-GRAPH-HASH.plan      the plan, named after the sidecar's fields

The sidecar is replaced in one step, after its plan, so the plan that it names is always whole. A
plan is code, and its folder may have been downloaded: TensorRT is given it only after every field
has been compared, and only if it passed the gate for this user here (`state.Mark`) or the user
allowed it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sgraf_deploy.bundle.manifest import PLANS_FOLDER
from sgraf_deploy.config import GraphName, GraphSignature, Precision
from sgraf_deploy.engines.trt.library import Flavour
from sgraf_deploy.engines.trt.rtx import CAPABILITIES, REBUILD, rebuild
from sgraf_deploy.errors import BundleError
from sgraf_deploy.files.disk import os_errors
from sgraf_deploy.files.writer import write_file
from sgraf_deploy.schema import INLINE, Document, check_version, decode, encode, join, parse

if TYPE_CHECKING:
    from sgraf_deploy.bundle.bundle import Bundle

SCHEMA = 3
"""The version of sidecars. Version 1 also held `plan` and `verified`, which a file cannot say of
itself; until version 2 there was one `compute_capability`, or PORTABLE."""
PORTABLE = "portable"
"""The target of a build where TensorRT itself chooses the GPUs."""

_ELSEWHERE = "choose a folder that can be written with --engine-dir"

Shape = tuple[int, ...]
Profile = dict[str, tuple[Shape, Shape, Shape]]
"""By input: the smallest, the best and the largest shape."""

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")
_SHA256 = re.compile("[0-9a-f]{64}")
_CAPABILITY = re.compile("[0-9]{1,2}[.][0-9]")

DOCUMENT = Document("sidecar", BundleError, REBUILD, most_bytes=2**20)


@dataclass(frozen=True)
class Sidecar:
    """What a plan was built from, by what, and for which GPUs and shapes.

    `compute_capabilities` are those of the GPUs that it runs on. `layers` counts the matrix
    products by data type, as the strongly typed network has them: TensorRT may not change them.
    HALF+FLOAT is a product of float16 values that sums in float32. Raises BundleError for a field
    that cannot be true.
    """

    member: str
    graph: GraphName
    precision: Precision
    onnx_sha256: str
    plan_sha256: str
    plan_bytes: int
    flavour: Flavour
    version: str
    compute_capabilities: tuple[str, ...]
    profiles: tuple[Profile, ...]
    workspace_bytes: int
    layers: dict[str, int]

    def __post_init__(self) -> None:
        for name in ("member", "version"):
            _check_text(name, getattr(self, name), _WORD)
        for capability in self.compute_capabilities:
            _check_text("compute_capabilities", capability, _CAPABILITY)
        if not self.compute_capabilities:
            raise DOCUMENT.wrong("compute_capabilities", "at least one", [])
        for name in ("onnx_sha256", "plan_sha256"):
            _check_text(name, getattr(self, name), _SHA256)
        for name in ("plan_bytes", "workspace_bytes"):
            if getattr(self, name) < 0:
                raise DOCUMENT.wrong(name, "a size", getattr(self, name))
        for profile in self.profiles:
            for name, (low, best, high) in profile.items():
                if not len(low) == len(best) == len(high):
                    ranks = [len(low), len(best), len(high)]
                    raise DOCUMENT.wrong(
                        join("profiles", name), "shapes of as many axes each", ranks
                    )

    @property
    def name(self) -> str:
        """MEMBER-PRECISION-GRAPH."""
        return plan_name(self.member, self.precision, self.graph)

    @property
    def plan(self) -> str:
        """The name of the plan's file: it follows from other fields, so that none can choose it."""
        return f"{self.name}-{self.plan_sha256[:16]}.plan"

    def to_json(self) -> dict[str, Any]:
        """The fields, the schema, and a checksum over both."""
        value: dict[str, Any] = {"schema": SCHEMA} | encode(self)
        return value | {"checksum": _checksum(value)}

    def to_bytes(self) -> bytes:
        """The sidecar's file."""
        return json.dumps(self.to_json(), indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, content: bytes) -> Sidecar:
        """Read `to_bytes`'s file back, or an older one; BundleError for any defect."""
        value = parse(content, DOCUMENT)
        schema = check_version(value, "schema", (1, 2, SCHEMA), DOCUMENT)
        kind: type[_Stored | _FirstStored] = _FirstStored if schema == 1 else _Stored
        read = decode(kind, _migrated(value) if schema < SCHEMA else value, DOCUMENT)
        right = _checksum({name: item for name, item in value.items() if name != "checksum"})
        if read.checksum != right:
            raise DOCUMENT.wrong("checksum", right, read.checksum)
        return read.sidecar


@dataclass(frozen=True)
class _Stored:
    """What a sidecar's file holds."""

    schema: Literal[2, 3]
    sidecar: Sidecar = field(metadata=INLINE)
    checksum: str


@dataclass(frozen=True)
class _FirstStored:
    """The same in schema 1, which also held what a file cannot say of itself."""

    schema: Literal[1]
    sidecar: Sidecar = field(metadata=INLINE)
    checksum: str
    plan: str
    verified: bool

    def __post_init__(self) -> None:
        if self.plan != self.sidecar.plan:
            raise DOCUMENT.wrong("plan", self.sidecar.plan, self.plan)


def _migrated(value: Mapping[str, Any]) -> dict[str, Any]:
    """An older file's object with `compute_capabilities` in place of the one that it held."""
    old, new = "compute_capability", "compute_capabilities"
    if new in value:
        raise DOCUMENT.unknown(new)
    if old not in value:
        raise DOCUMENT.missing(old)
    single = value[old]
    if not isinstance(single, str):
        raise DOCUMENT.wrong(old, "a text", single)
    several = list(CAPABILITIES) if single == PORTABLE else [single]
    return {name: item for name, item in value.items() if name != old} | {new: several}


def plan_name(member: str, precision: str, graph: str) -> str:
    """What a plan's files begin with."""
    return f"{member}-{precision}-{graph}"


def write_plan(folder: Path, plan: bytes, sidecar: Sidecar) -> Path:
    """Publish a plan and then, in one step, its sidecar; an earlier plan is removed.

    Returns the sidecar's path. Raises BundleError where the folder cannot be written.
    """
    path = folder / f"{sidecar.name}.json"
    with os_errors(f"plan {path}", BundleError, _ELSEWHERE):
        folder.mkdir(parents=True, exist_ok=True)
    replace_file(folder / sidecar.plan, plan)
    replace_file(path, sidecar.to_bytes())
    ours = re.compile(rf"{re.escape(sidecar.name)}-[0-9a-f]{{16}}\.plan")
    with os_errors(f"plan {path}", BundleError, _ELSEWHERE):
        for old in folder.iterdir():
            if ours.fullmatch(old.name) and old.name != sidecar.plan:
                old.unlink()
    return path


def replace_file(target: Path, content: bytes) -> None:
    """Write a file whole or not at all; BundleError where that cannot be done."""
    write_file(target, content, what="plan", error=BundleError, hint=_ELSEWHERE)


def read_sidecar(folder: Path, member: str, precision: str, graph: str) -> Sidecar:
    """The sidecar of a plan; BundleError if there is none or it is damaged."""
    path = folder / f"{plan_name(member, precision, graph)}.json"
    most = DOCUMENT.most_bytes
    content = _read(path, lambda size: size <= most, f"at most {most}")
    try:
        return Sidecar.from_bytes(content)
    except BundleError as error:
        raise error.at(f"plan {path}") from error


def plan_folder(bundle: Bundle, engine_dir: Path | None) -> Path:
    """The folder of a bundle's plans: inside it, or below `engine_dir`, named after its hash.

    Raises BundleError where the folder inside is a link, which a download may have brought.
    """
    if engine_dir is not None:
        return engine_dir / bundle.sha256[:16]
    folder = bundle.path / PLANS_FOLDER
    if Path(os.path.realpath(folder)) != folder:
        raise BundleError(
            f"{folder} is a link",
            expected="a folder in the bundle",
            hint="name another folder for plans with --engine-dir",
        )
    return folder


def load_plan(
    folder: Path, expected: Mapping[str, object], allowed: Callable[[Sidecar], bool]
) -> tuple[Sidecar, bytes]:
    """Read a plan and its sidecar: every expected field, and the plan's hash, must be right.

    `expected` holds at least member, precision and graph, and what the machine and the bundle say
    of onnx_sha256, flavour, version and compute_capability. `allowed` says whether the plan may
    be deserialised. Raises a BundleError that names what differs.
    """
    member, precision, graph = (str(expected[key]) for key in ("member", "precision", "graph"))
    sidecar = read_sidecar(folder, member, precision, graph)
    where = folder / sidecar.plan
    for name in differing(sidecar, expected):
        raise _differs(where, sidecar, name, expected)
    right = sidecar.plan_bytes
    plan = _read(where, lambda size: size == right, str(right))
    digest = hashlib.sha256(plan).hexdigest()
    if digest != sidecar.plan_sha256:
        raise _defect(where, "its sha256", sidecar.plan_sha256[:12], digest[:12])
    if not allowed(sidecar):
        raise BundleError(
            f"plan {where} was never compared with the reference by this user on this GPU",
            hint="if you trust who built it, allow it with --allow-unverified: it is then compared "
            "before it is used, and remembered",
        )
    return sidecar, plan


def differing(sidecar: Sidecar, expected: Mapping[str, object]) -> list[str]:
    """The fields of a sidecar that are not as expected; `compute_capability` must be one of its."""
    return [
        name
        for name, value in expected.items()
        if (
            value not in sidecar.compute_capabilities
            if name == "compute_capability"
            else getattr(sidecar, name) != value
        )
    ]


def largest_sizes(signature: GraphSignature, sidecar: Sidecar) -> tuple[dict[str, int], ...]:
    """Every profile's largest sizes by dynamic axis; BundleError for a profile of other inputs."""
    expected = {spec.name: len(spec.axes) for spec in signature.inputs}
    for profile in sidecar.profiles:
        found = {name: len(high) for name, (_, _, high) in profile.items()}
        if found != expected:
            what = f"profiles of plan {sidecar.plan}, by input the axes"
            raise BundleError(what, expected=expected, got=found, hint=REBUILD)
    return tuple(
        {
            axis: size
            for spec in signature.inputs
            for axis, size in zip(spec.axes, profile[spec.name][2], strict=True)
            if isinstance(axis, str)
        }
        for profile in sidecar.profiles
    )


def _read(path: Path, fits: Callable[[int], bool], size: str) -> bytes:
    """The bytes of a regular file in the folder of plans, once it has the right size."""
    try:
        real = Path(os.path.realpath(path))
        status = real.stat()
        if real.parent != Path(os.path.realpath(path.parent)):
            raise _defect(path, "its place", "a file in the folder", "a link out of it")
        if not stat.S_ISREG(status.st_mode):
            raise _defect(path, "its kind", "a file", "something else")
        if not fits(status.st_size):
            raise _defect(path, "its size", size, status.st_size)
        return real.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"no plan {path}", hint=REBUILD) from error
    except OSError as error:
        raise BundleError(
            f"plan {path} cannot be read", got=error.strerror, hint=REBUILD
        ) from error


def _defect(path: Path, what: str, expected: object, got: object) -> BundleError:
    return BundleError(f"plan {path}: {what}", expected=expected, got=got, hint=REBUILD)


def _differs(
    path: Path, sidecar: Sidecar, name: str, expected: Mapping[str, object]
) -> BundleError:
    """The error for a field that is not as expected.

    For another GPU the same build may not help: then the hint names another TensorRT.
    """
    what, right = f"plan {path}: {name.replace('_', ' ')}", expected[name]
    if name != "compute_capability":
        return BundleError(what, expected=right, got=getattr(sidecar, name), hint=REBUILD)
    got = ", ".join(sidecar.compute_capabilities)
    hint = rebuild(sidecar.flavour, str(right))
    return BundleError(what, expected=right, got=got, hint=hint)


def _check_text(name: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value):
        raise DOCUMENT.wrong(name, f"text like {pattern.pattern}", value)


def _checksum(value: Mapping[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
