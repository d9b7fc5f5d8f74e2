"""What is installed and what is released: the files, tags and metadata of wheels and the sdist."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from collections.abc import Callable
from email.message import Message
from email.parser import BytesParser
from pathlib import Path
from zipfile import ZipFile

import pytest

import sgraf_deploy
from sgraf_deploy.engines.native.build import LIBRARY, instruction_flags

ROOT = Path(__file__).parents[1]
NATIVE = "sgraf_deploy/engines/native"
NAME = f"sgraf_deploy-{sgraf_deploy.__version__}"
RELEASED = (
    *("sgraf_deploy", "benchmarks", "docs", "examples", "scripts", "tests", "tools", "typings"),
)
"""Folders, whole."""
BESIDE = (
    *("CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", ".gitignore"),
    *("constraints.txt", "hatch_build.py", "pyproject.toml", "zensical.toml"),
)
EXTRAS = {
    *("torch", "triton", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx"),
    *("cpu", "gpu", "hub", "gallery", "images", "serve", "ray", "rtx", "fused"),
}

Build = Callable[..., Path]

COMPILER = """#!/bin/sh
echo "$@" >>"$0.log"
while [ "$1" != -o ]; do shift; done
: >"$2"
"""
"""Compiles nothing, and keeps what it was asked for."""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources; building removes and writes the library in them."""
    folder = tmp_path_factory.mktemp("packaging") / "checkout"
    ignored = shutil.ignore_patterns("__pycache__", "*.so", ".*_cache")
    for name in RELEASED:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    for name in BESIDE:
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def build(checkout: Path) -> Build:
    """Builds a wheel or an sdist, with these environment variables."""
    pytest.importorskip("hatchling", reason="needs hatchling, which `make test` installs")

    def built(kind: str, **chosen: str) -> Path:
        target = checkout.parent / f"{kind}{len(list(checkout.parent.iterdir()))}"
        command = [sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(target)]
        subprocess.run(
            command, cwd=checkout, env=os.environ | chosen, capture_output=True, check=True
        )
        (made,) = target.iterdir()
        return made

    return built


@pytest.fixture(scope="module")
def pure(build: Build) -> Path:
    return build("wheel", SGRAF_DEPLOY_NATIVE="0")


def metadata(wheel: Path, name: str = "METADATA") -> Message:
    with ZipFile(wheel) as files:
        return BytesParser().parsebytes(files.read(f"{NAME}.dist-info/{name}"))


def files_of(wheel: Path) -> set[str]:
    """All but what describes the wheel itself."""
    with ZipFile(wheel) as files:
        return {name for name in files.namelist() if not name.startswith(f"{NAME}.dist-info/")}


def files_below(checkout: Path, folder: str) -> set[str]:
    """The sources below a folder; another test may have had the library built there."""
    paths = [path for path in (checkout / folder).rglob("*") if path.suffix != ".so"]
    return {path.relative_to(checkout).as_posix() for path in paths if path.is_file()}


def test_a_pure_wheel_is_the_package_without_sources_in_c(pure: Path, checkout: Path) -> None:
    assert pure.name == f"{NAME}-py3-none-any.whl"
    package = files_below(checkout, "sgraf_deploy")
    sources = {name for name in package if name.endswith((".c", ".h"))}
    assert f"{NATIVE}/scorer.c" in sources
    assert {"sgraf_deploy/py.typed", "sgraf_deploy/demo/checkpoints/sgr.pth.tar"} <= package
    assert files_of(pure) == package - sources


def test_metadata_say_what_is_needed(pure: Path) -> None:
    found = metadata(pure)
    assert (found["Name"], found["Version"]) == ("sgraf-deploy", sgraf_deploy.__version__)
    assert found["Requires-Python"] == ">=3.11"
    assert found["License-Expression"] == "Apache-2.0"
    assert set(found.get_all("Provides-Extra", [])) == EXTRAS
    needed = [text for text in found.get_all("Requires-Dist", []) if "extra ==" not in text]
    names = {re.match(r"[\w-]+", text)[0] for text in needed}  # type: ignore[index]
    assert names == {"click", "nltk", "numpy", "onnx", "safetensors", "tabulate"}
    assert not any("<" in text.partition(";")[0] for text in found.get_all("Requires-Dist", []))
    entry = metadata(pure, "entry_points.txt").get_payload()
    assert "sgraf-deploy = sgraf_deploy.cli:main" in str(entry)


def test_the_page_on_pypi_has_no_relative_link(build: Build, pure: Path) -> None:
    """It is the README: its links lead to the version's files, or are left out."""
    address = "https://git.example/sgraf/deploy"
    released = metadata(build("wheel", SGRAF_DEPLOY_NATIVE="0", SGRAF_DEPLOY_REPOSITORY=address))
    files = f"v{sgraf_deploy.__version__}"
    linked, plain = str(released.get_payload()), str(metadata(pure).get_payload())
    assert f"[the quickstart]({address}/blob/{files}/docs/quickstart.md)" in linked
    assert f"]({address}/raw/{files}/docs/images/recall-and-speed.svg)" in linked
    assert "then the quickstart |" in plain
    for page in (linked, plain):
        assert released["Description-Content-Type"] == "text/markdown"
        assert "[SGRAF](https://arxiv.org/abs/2101.01368)" in page
        assert re.findall(r"\]\((?!https://|#)[^)]*\)", page) == []
    urls = dict(text.split(", ") for text in released.get_all("Project-URL", []))
    assert urls["Source"] == address
    assert urls["Changelog"] == f"{address}/blob/{files}/CHANGELOG.md"
    assert set(urls) - {"Source", "Changelog"} == {"Paper", "Authors' code"}


def test_no_extra_brings_onnx_runtime_twice() -> None:
    """They install the same module over each other."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]

    def brought(extra: str) -> set[str]:
        names = set[str]()
        for text in extras[extra]:
            found = re.match(r"([\w-]+)(?:\[([\w,-]+)\])?", text)
            assert found is not None
            if found[1] == "sgraf-deploy":
                names |= set.union(*map(brought, found[2].split(",")))
            else:
                names.add(found[1])
        return names

    assert brought("cpu") == {"onnxruntime"}
    assert {"onnxruntime-gpu", "tensorrt"} <= brought("gpu")
    assert brought("fused") == {"torch", "triton"}
    for extra in extras:
        assert not {"onnxruntime", "onnxruntime-gpu"} <= brought(extra), extra


def test_a_compiled_wheel_has_the_library_and_the_tag_of_its_platform(
    build: Build, tmp_path: Path, pure: Path
) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    platform = "manylinux_2_17_aarch64"
    if not sys.platform.startswith("linux"):
        pytest.skip("engine native is compiled on Linux alone")
    wheel = build("wheel", CC=str(compiler), _PYTHON_HOST_PLATFORM=platform)
    assert wheel.name == f"{NAME}-py3-none-{platform}.whl"
    assert metadata(wheel, "WHEEL")["Root-Is-Purelib"] == "false"
    assert files_of(wheel) - files_of(pure) == {f"{NATIVE}/{LIBRARY}"}
    asked = Path(f"{compiler}.log").read_text().splitlines()
    assert [line for line in asked if "scorer.c" in line and "-march" in line] == []


@pytest.mark.parametrize(
    ("platform", "sets"),
    [
        ("linux-x86_64", ["generic", "avx2", "avx512"]),
        ("manylinux_2_17_x86_64", ["generic", "avx2", "avx512"]),
        ("manylinux_2_17_aarch64", ["generic"]),
    ],
)
def test_instruction_sets_are_those_of_what_is_compiled_for(
    monkeypatch: pytest.MonkeyPatch, platform: str, sets: list[str]
) -> None:
    monkeypatch.setenv("_PYTHON_HOST_PLATFORM", platform)
    assert list(instruction_flags()) == sets


def test_the_sdist_has_all_that_building_testing_and_reading_need(
    build: Build, checkout: Path
) -> None:
    sdist = build("sdist")
    assert sdist.name == f"{NAME}.tar.gz"
    with tarfile.open(sdist) as files:
        found = {name.removeprefix(f"{NAME}/") for name in files.getnames()}
    expected = set(BESIDE).union(*(files_below(checkout, folder) for folder in RELEASED))
    assert f"{NATIVE}/scorer.c" in expected
    assert "tests/fixtures/v1.sgraf/manifest.json" in expected
    assert found == expected | {"PKG-INFO"}


def test_workflows_pin_actions_by_commit_and_name_the_tag() -> None:
    folder = ROOT / ".github" / "workflows"
    if not folder.is_dir():
        pytest.skip("the sdist has no workflows")
    lines = [
        line.strip()
        for path in sorted(folder.glob("*.yml"))
        for line in path.read_text("utf-8").splitlines()
        if "uses:" in line
    ]
    assert len(lines) >= 5
    pinned = re.compile(r"(- )?uses: [\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+")
    assert [line for line in lines if not pinned.fullmatch(line)] == []
