"""Which `onnxruntime-web` a page is made with, and which is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fake_npm import VERSION, write_npm
from support.refusals import naming, refused

from sgraf_deploy.errors import InputError, UnavailableError
from sgraf_deploy.package.browser_runtime import (
    LICENCE,
    PACKAGE,
    SCRIPT,
    SOURCE,
    WASM,
    read_runtime,
)

INSTALL = "npm install onnxruntime-web"


def test_the_files_of_a_page_are_read_and_no_others(tmp_path: Path) -> None:
    folder = write_npm(tmp_path / "node_modules")

    runtime = read_runtime(folder)

    assert runtime.version == VERSION
    assert set(runtime.files) == {SCRIPT, WASM, LICENCE}
    for name, source in ((SCRIPT, SOURCE), (WASM, WASM)):
        assert runtime.files[name] == (folder / PACKAGE / "dist" / source).read_bytes()
    assert runtime.files[LICENCE].startswith(b"MIT License\n\nCopyright (c) Microsoft Corporation")


def test_a_licence_that_npm_brings_is_taken(tmp_path: Path) -> None:
    folder = write_npm(tmp_path / "node_modules", license="another")
    (folder / PACKAGE / LICENCE).write_bytes(b"its own")

    assert read_runtime(folder).files[LICENCE] == b"its own"


@pytest.mark.parametrize("missing", ["package.json", f"dist/{SOURCE}", f"dist/{WASM}", "."])
def test_what_npm_did_not_install_is_named(tmp_path: Path, missing: str) -> None:
    folder = write_npm(tmp_path / "node_modules")
    gone = folder / PACKAGE / missing
    gone.rename(tmp_path / "gone")

    named = folder / PACKAGE / ("package.json" if missing == "." else missing)
    with refused(UnavailableError, PACKAGE, expected=naming(named), got=naming(), hint=INSTALL):
        read_runtime(folder)


@pytest.mark.parametrize("version", ["1.21.9", "0.30.0", "1.22", "", "latest", None])
def test_a_version_that_is_too_old_or_none_is_refused(tmp_path: Path, version: str | None) -> None:
    folder = write_npm(tmp_path / "node_modules", version=version)

    got = naming(version) if version else naming()
    with refused(InputError, folder, PACKAGE, expected=naming("1.22"), hint=INSTALL, got=got):
        read_runtime(folder)


@pytest.mark.parametrize("version", ["1.22.0", "2.0.1", "1.31.0-dev.20260101-abc"])
def test_later_versions_are_taken(tmp_path: Path, version: str) -> None:
    assert read_runtime(write_npm(tmp_path / "npm", version=version)).version == version


def test_another_package_in_its_place_is_refused(tmp_path: Path) -> None:
    folder = write_npm(tmp_path / "node_modules", name="left-pad")

    path = folder / PACKAGE / "package.json"
    with refused(InputError, path, expected=naming(PACKAGE), hint=INSTALL):
        read_runtime(folder)


def test_a_description_that_is_not_json_is_refused(tmp_path: Path) -> None:
    folder = write_npm(tmp_path / "node_modules")
    path = folder / PACKAGE / "package.json"
    path.write_text("{")

    with refused(InputError, path, hint=INSTALL):
        read_runtime(folder)


@pytest.mark.parametrize("licence", ["Apache-2.0", None])
def test_a_licence_that_is_not_known_is_refused(tmp_path: Path, licence: str | None) -> None:
    folder = write_npm(tmp_path / "node_modules", license=licence)

    with refused(InputError, folder / PACKAGE, expected=naming(LICENCE, "MIT"), hint=INSTALL):
        read_runtime(folder)
