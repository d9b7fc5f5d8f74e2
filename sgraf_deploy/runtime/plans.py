"""Compiled engines on disk: a plan, and the sidecar that says exactly what it was built from.

    ENGINES/MEMBER-PRECISION-GRAPH.json           the sidecar
    ENGINES/MEMBER-PRECISION-GRAPH-HASH.plan      the plan, named after the sidecar's fields

The sidecar is replaced in one step, after its plan: what it names is always whole. Nothing of a
plan is given to TensorRT before every field has been compared, and before this user has either
compared its values here (`state.Mark`) or allowed it: a plan is code, and a folder may have been
downloaded.
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

from sgraf_deploy.config import GraphName, GraphSignature, Precision
from sgraf_deploy.disk import os_errors
from sgraf_deploy.errors import BundleError
from sgraf_deploy.files import write_file
from sgraf_deploy.runtime.rtx import CAPABILITIES, REBUILD, rebuild
from sgraf_deploy.runtime.tensorrt import Flavour
from sgraf_deploy.schema import INLINE, Document, check_version, decode, encode, join, parse

if TYPE_CHECKING:
    from sgraf_deploy.bundle import Bundle

ENGINES = "engines"
"""The folder inside a bundle; no part of its hash."""

SCHEMA = 3
"""Of sidecars; 1 held `plan` and `verified`, which the file itself could claim, and until 2 there
was one `compute_capability`, or PORTABLE."""
PORTABLE = "portable"
"""What a plan is built for where TensorRT decides that."""

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

    `compute_capabilities` are those that it runs on. `layers` counts the matrix products by data
    type, as the strongly typed network has them: TensorRT may not change them. HALF+FLOAT is one
    of float16 values that sums in float32. Raises BundleError for a field that cannot be true.
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
        """The plan's file, which no field can choose."""
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
    """The same in schema 1, which also held what the file itself cannot say."""

    schema: Literal[1]
    sidecar: Sidecar = field(metadata=INLINE)
    checksum: str
    plan: str
    verified: bool

    def __post_init__(self) -> None:
        if self.plan != self.sidecar.plan:
            raise DOCUMENT.wrong("plan", self.sidecar.plan, self.plan)


def _migrated(value: Mapping[str, Any]) -> dict[str, Any]:
    """An older file's object with the compute capabilities that its plan was for."""
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
    most = DOCUMENT.most_bytes
    content = _read(path, lambda size: size <= most, f"at most {most}")
    try:
        return Sidecar.from_bytes(content)
    except BundleError as error:
        raise error.at(f"engine {path}") from error


def engine_folder(bundle: Bundle, engine_dir: Path | None) -> Path:
    """Where a bundle's engines are: inside it, or in a folder by its hash elsewhere.

    Raises BundleError where the folder inside is a link, which a download may have brought.
    """
    if engine_dir is not None:
        return engine_dir / bundle.sha256[:16]
    folder = bundle.path / ENGINES
    if Path(os.path.realpath(folder)) != folder:
        raise BundleError(
            f"{folder} is a link",
            expected="a folder in the bundle",
            mend="name another place for engines with --engine-dir",
        )
    return folder


def load_plan(
    folder: Path, expected: Mapping[str, object], allowed: Callable[[Sidecar], bool]
) -> tuple[Sidecar, bytes]:
    """A plan and its sidecar, once that has every expected field and the plan's hash is right.

    `expected` holds at least member, precision and graph; also what the machine and the bundle
    say: onnx_sha256, flavour, version, compute_capability. `allowed` says whether the plan may be
    deserialised. Raises BundleError that names what differs.
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
            f"engine {where} was never compared with the reference by this user on this GPU",
            mend="if you trust who built it, allow it with --allow-unverified: it is then compared "
            "before it is used, and remembered",
        )
    return sidecar, plan


def differing(sidecar: Sidecar, expected: Mapping[str, object]) -> list[str]:
    """The fields of a sidecar that are not as expected; one `compute_capability` must be in it."""
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
    """Every profile's largest sizes by dynamic axis; BundleError for one of other inputs."""
    expected = {spec.name: len(spec.axes) for spec in signature.inputs}
    for profile in sidecar.profiles:
        found = {name: len(high) for name, (_, _, high) in profile.items()}
        if found != expected:
            what = f"profiles of engine {sidecar.plan}, by input the axes"
            raise BundleError(what, expected=expected, got=found, mend=REBUILD)
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
    """A file of a folder of engines, once it is known to be one, there, of the right size."""
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
        raise BundleError(f"no engine {path}", mend=REBUILD) from error
    except OSError as error:
        raise BundleError(
            f"engine {path} cannot be read", got=error.strerror, mend=REBUILD
        ) from error


def _defect(path: Path, what: str, expected: object, got: object) -> BundleError:
    return BundleError(f"engine {path}: {what}", expected=expected, got=got, mend=REBUILD)


def _differs(
    path: Path, sidecar: Sidecar, name: str, expected: Mapping[str, object]
) -> BundleError:
    """The error for a field that is not as expected: of another GPU, not always the same build."""
    what, right = f"engine {path}: {name.replace('_', ' ')}", expected[name]
    if name != "compute_capability":
        return BundleError(what, expected=right, got=getattr(sidecar, name), mend=REBUILD)
    got = ", ".join(sidecar.compute_capabilities)
    mend = rebuild(sidecar.flavour, str(right))
    return BundleError(what, expected=right, got=got, mend=mend)


def _check_text(name: str, value: str, pattern: re.Pattern[str]) -> None:
    if not pattern.fullmatch(value):
        raise DOCUMENT.wrong(name, f"text like {pattern.pattern}", value)


def _checksum(value: Mapping[str, Any]) -> str:
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
