"""A node_modules folder with an `onnxruntime-web` in it whose files hold next to nothing."""

from __future__ import annotations

import json
from pathlib import Path

from sgraf_deploy.package.browser_runtime import PACKAGE, SOURCE, WASM

VERSION = "1.30.0"


def write_npm(folder: Path, **changes: object) -> Path:
    """The folder; `changes` are fields of package.json, left out where they are None."""
    described = {"name": PACKAGE, "version": VERSION, "license": "MIT"} | changes
    dist = folder / PACKAGE / "dist"
    dist.mkdir(parents=True)
    fields = {name: value for name, value in described.items() if value is not None}
    (folder / PACKAGE / "package.json").write_text(json.dumps(fields), encoding="utf-8")
    (dist / SOURCE).write_text("export const nothing = 0;\n", encoding="utf-8")
    (dist / WASM).write_bytes(b"\0asm\1\0\0\0")
    (dist / "ort.all.js").write_text("// What no page needs.\n", encoding="utf-8")
    return folder
