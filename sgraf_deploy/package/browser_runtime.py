"""ONNX Runtime for browsers, as npm installs it: the package `onnxruntime-web`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgraf_deploy.errors import InputError, UnavailableError

PACKAGE = "onnxruntime-web"
SOURCE = "ort.wasm.bundle.min.mjs"
"""Its interface and what loads the WebAssembly, without any GPU, as npm has it."""
SCRIPT = "ort.wasm.bundle.min.js"
"""The same in a page: not every file server knows that `.mjs` is a script."""
WASM = "ort-wasm-simd-threaded.wasm"
LICENCE = "LICENSE"

OLDEST = (1, 22)
"""The oldest version that is taken: that of ONNX Runtime which this program needs itself."""

INSTALL = f"run `npm install {PACKAGE}` and give its node_modules folder"

_MIT = Path(__file__).parent / "page" / "onnxruntime-license.txt"
"""ONNX Runtime's licence, which the npm package names and does not hold."""
_VERSION = re.compile(r"(\d+)\.(\d+)\.\d+(?:-[0-9A-Za-z.-]+)?")


@dataclass(frozen=True)
class BrowserRuntime:
    """A version of ONNX Runtime for browsers, and what a page needs of it, by the name there."""

    version: str
    files: Mapping[str, bytes]


def read_runtime(node_modules: Path) -> BrowserRuntime:
    """Read the files of `onnxruntime-web` from a folder that npm filled.

    Raises UnavailableError where the package or one of its files is not there, and InputError for
    a version that is too old, or one under a licence that this program does not know.

    Example:
        >>> runtime = read_runtime(Path("node_modules"))
        >>> sorted(runtime.files)
        ['LICENSE', 'ort-wasm-simd-threaded.wasm', 'ort.wasm.bundle.min.js']
    """
    folder = node_modules / PACKAGE
    described = _description(folder)
    version = str(described.get("version"))
    numbers = _VERSION.fullmatch(version)
    if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise InputError(
            f"{PACKAGE} in {node_modules}", expected=f"at least {oldest}", got=version, hint=INSTALL
        )
    dist = folder / "dist"
    files = {SCRIPT: _read(dist / SOURCE), WASM: _read(dist / WASM)}
    return BrowserRuntime(version, files | {LICENCE: _licence(folder, described)})


def _description(folder: Path) -> dict[str, Any]:
    path = folder / "package.json"
    try:
        found = json.loads(_read(path))
    except ValueError as error:
        raise InputError(f"{path} is not JSON", got=error, hint=INSTALL) from error
    if not isinstance(found, dict) or found.get("name") != PACKAGE:
        raise InputError(f"{path}", expected=f"the package {PACKAGE}", got="another", hint=INSTALL)
    return found


def _licence(folder: Path, described: Mapping[str, Any]) -> bytes:
    own = folder / LICENCE
    if own.is_file():
        return _read(own)
    if described.get("license") != "MIT":
        raise InputError(
            f"the licence of {folder}",
            expected=f"a file {LICENCE}, or MIT",
            got=described.get("license"),
            hint=INSTALL,
        )
    return _read(_MIT)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UnavailableError(
            f"{PACKAGE} for the page", expected=path, got=error.strerror, hint=INSTALL
        ) from error
