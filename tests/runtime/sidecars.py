"""Sidecars as files hold them, altered."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def signed(content: dict[str, Any]) -> dict[str, Any]:
    """A sidecar's object with the checksum that its content has: anybody can make one."""
    value = {name: item for name, item in content.items() if name != "checksum"}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return value | {"checksum": hashlib.sha256(text.encode()).hexdigest()}


def schema_1(content: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The sidecar as version 0.1.0 wrote it, which says itself that it was verified."""
    name = "-".join(content[each] for each in ("member", "precision", "graph"))
    plan = f"{name}-{content['plan_sha256'][:16]}.plan"
    return signed(content | {"schema": 1, "plan": plan, "verified": True} | changes)
