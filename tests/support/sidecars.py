"""A plan and its sidecar, and sidecars as files hold them, altered."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sgraf_deploy.engines.trt.plans import Sidecar, load_plan, read_sidecar

PLAN = bytes(range(256)) * 8
DIGEST = hashlib.sha256(PLAN).hexdigest()

SIDECAR = Sidecar(
    member="sgr",
    graph="scorer",
    precision="fp16",
    onnx_sha256="ab" * 32,
    plan_sha256=DIGEST,
    plan_bytes=len(PLAN),
    flavour="tensorrt-rtx",
    version="1.7.1.116",
    compute_capabilities=("8.9",),
    profiles=({"lengths": ((1,), (4,), (8,))}, {"lengths": ((1,), (1,), (1,))}),
    workspace_bytes=2**30,
    layers={"FLOAT": 1, "HALF": 16},
)

EXPECTED: dict[str, object] = {
    name: getattr(SIDECAR, name)
    for name in (
        *("member", "graph", "precision", "onnx_sha256"),
        *("flavour", "version"),
    )
} | {"compute_capability": "8.9"}


SIDECAR_FILE = "sgr-fp16-scorer.json"


def load(folder: Path, **changes: object) -> bytes:
    sidecar, plan = load_plan(folder, EXPECTED | changes, lambda sidecar: True)
    assert sidecar == read_sidecar(folder, "sgr", "fp16", "scorer")
    return plan


def signed(content: dict[str, Any]) -> dict[str, Any]:
    """A sidecar's object with the checksum that its content has: anybody can make one."""
    value = {name: item for name, item in content.items() if name != "checksum"}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return value | {"checksum": hashlib.sha256(text.encode()).hexdigest()}


def schema_2(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The sidecar as it was when it named one kind of GPU, or none: "portable"."""
    value = {name: item for name, item in content.items() if name != "compute_capabilities"}
    (single,) = content["compute_capabilities"]
    return signed(value | {"schema": 2, "compute_capability": single} | changes)


def schema_1(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The sidecar as version 0.1.0 wrote it, which says itself that it was verified."""
    name = "-".join(content[each] for each in ("member", "precision", "graph"))
    plan = f"{name}-{content['plan_sha256'][:16]}.plan"
    return schema_2(content, **{"schema": 1, "plan": plan, "verified": True} | changes)
