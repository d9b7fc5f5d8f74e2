"""Compiling the scorer: for every instruction set that the compiler knows."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from support.refusals import holds

from sgraf_deploy.engines.native.build import (
    DEBUG,
    LIBRARY,
    compile_library,
    find_compiler,
    instruction_flags,
)
from sgraf_deploy.engines.native.instructions import SETS, named

ROOT = Path(__file__).parents[3]
SOURCES = ROOT / "sgraf_deploy" / "engines" / "native"
FAST = ("-O0",)

FLAGS = {"avx2": "-march=x86-64-v3", "avx512": "-march=x86-64-v4"}

pytestmark = pytest.mark.skipif(
    shutil.which("sh") is None or find_compiler() is None or not sys.platform.startswith("linux"),
    reason="needs a C compiler on Linux",
)

OLD_COMPILER = """#!/bin/sh
for argument in "$@"; do
    case "$argument" in
        {refused})
            echo "error: bad value ($argument) for '-march=' switch" >&2
            exit 1;;
    esac
done
exec {compiler} "$@"
"""


def old_compiler(folder: Path, refused: list[str]) -> str:
    """A compiler that does not know the flags of these instruction sets."""
    path = folder / "old-cc"
    compiler = " ".join(find_compiler() or [])
    flags = "|".join([FLAGS[isa] for isa in refused] or ["none"])
    path.write_text(OLD_COMPILER.format(refused=flags, compiler=compiler))
    path.chmod(0o755)
    return str(path)


def test_what_the_compiler_refuses_is_left_out(tmp_path: Path) -> None:
    library, refused = tmp_path / LIBRARY, ["avx512"]
    left_out = compile_library([old_compiler(tmp_path, refused)], SOURCES, library, FAST)

    known = [isa for isa in SETS if isa in instruction_flags()]
    assert list(left_out) == [isa for isa in refused if isa in known]
    assert all(FLAGS[isa] in said for isa, said in left_out.items())
    built = named(ctypes.CDLL(str(library)).sgraf_built())
    assert built == tuple(isa for isa in known if isa not in refused)
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []


def test_every_set_that_the_compiler_knows_is_built(tmp_path: Path) -> None:
    compiler, empty = find_compiler(), tmp_path / "empty.c"
    assert compiler is not None
    empty.write_text("")
    known = [
        isa
        for isa, flags in instruction_flags().items()
        if subprocess.run([*compiler, *flags, "-fsyntax-only", empty], check=False).returncode == 0
    ]
    left_out = compile_library(compiler, SOURCES, tmp_path / LIBRARY, FAST)
    assert named(ctypes.CDLL(str(tmp_path / LIBRARY)).sgraf_built()) == tuple(known)
    assert set(left_out) == set(instruction_flags()) - set(known)


def test_sources_that_do_not_compile_are_an_error_and_leave_the_old_library(
    tmp_path: Path,
) -> None:
    (tmp_path / "scorer.c").write_text("#error no\n")
    (tmp_path / LIBRARY).write_bytes(b"old")
    with pytest.raises(RuntimeError, match="SGRAF_DEPLOY_NATIVE=0"):
        compile_library(find_compiler() or [], tmp_path, tmp_path / LIBRARY)
    assert (tmp_path / LIBRARY).read_bytes() == b"old"


SCORED = """
import resource
import sys
from pathlib import Path

import numpy as np
from support.small_models import SAF
from sgraf_deploy.engines.native import library

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # It aborts on purpose.
opened = library.open_library(Path(sys.argv[1]))
library.open_library = lambda: opened
layers = {"local_alignment": (32, 16), "global_alignment": (32, 16)}
layers |= dict.fromkeys(["filtration.attention", "similarity"], (16, 1))
weights = {f"{name}.weight": np.ones(shape, np.float32) for name, shape in layers.items()}
weights |= {f"{name}.bias": np.ones(shape[1:], np.float32) for name, shape in layers.items()}
shapes = {"region_embeddings": (2, 7, 32), "image_global": (2, 32), "word_embeddings": (2, 8, 32)}
shapes["text_global"] = (2, 32)
inputs = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
inputs["lengths"] = np.array([3, sys.argv[2]], np.int32)
logits = np.full((2, 2), np.nan, np.float32)
library.NativeModel(SAF, weights).score(inputs, logits)
assert np.isfinite(logits).all()
"""


@pytest.fixture(scope="module")
def debug_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the generic instruction set, for time."""
    folder = tmp_path_factory.mktemp("debug")
    compiler = old_compiler(folder, ["avx2", "avx512"])
    compile_library([compiler], SOURCES, folder / LIBRARY, (*DEBUG, *FAST))
    return folder / LIBRARY


@pytest.mark.parametrize(("length", "code"), [(8, 0), (9, -signal.SIGABRT), (0, -signal.SIGABRT)])
def test_a_debug_library_asserts_what_it_takes_for_granted(
    debug_library: Path, length: int, code: int
) -> None:
    found = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", SCORED, str(debug_library), str(length)]
    done = subprocess.run(command, env=os.environ | found, capture_output=True, check=False)
    assert done.returncode == code, done.stderr.decode()
    assert holds(done.stderr.decode(), "longest") == bool(code)


@pytest.mark.parametrize(("asked", "extra"), [("debug", DEBUG), ("1", ()), (None, ())], ids=str)
def test_an_installation_builds_it_where_that_is_asked_for(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, extra: tuple[str, ...]
) -> None:
    monkeypatch.delenv("SGRAF_DEPLOY_NATIVE", raising=False)
    if asked is not None:
        monkeypatch.setenv("SGRAF_DEPLOY_NATIVE", asked)
    made, _ = hook(monkeypatch, checkout)
    given = list[tuple[Any, ...]]()

    def compiled(*arguments: Any) -> dict[str, str]:
        given.append(arguments)
        return {}

    monkeypatch.setitem(made.initialize.__func__.__globals__, "compile_library", compiled)
    made.initialize("standard", {"artifacts": []})
    ((_, _, _, flags),) = given
    assert flags == extra


def hook(monkeypatch: pytest.MonkeyPatch, root: Path) -> tuple[Any, list[str]]:
    """The hook that the build calls, and what it warns of; hatchling itself is not needed."""
    for plugin, base in (
        ("builders.hooks", "BuildHookInterface"),
        ("metadata", "MetadataHookInterface"),
    ):
        parts = f"hatchling.{plugin}.plugin.interface".split(".")
        for number in range(1, len(parts) + 1):
            name = ".".join(parts[:number])
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        setattr(sys.modules[".".join(parts)], base, object)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made, warned = module.NativeBuildHook(), list[str]()
    made.root, made.app = str(root), SimpleNamespace(display_warning=warned.append)
    return made, warned


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the sources that are compiled."""
    folder = tmp_path / "checkout" / SOURCES.relative_to(ROOT)
    shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    return tmp_path / "checkout"


def test_an_installation_goes_on_without_them_and_says_so(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", old_compiler(tmp_path, ["avx2", "avx512"]))
    made, warned = hook(monkeypatch, checkout)
    data: dict[str, Any] = {"artifacts": []}

    made.initialize("standard", data)

    library = checkout / SOURCES.relative_to(ROOT) / LIBRARY
    assert data["artifacts"] == [library.relative_to(checkout).as_posix()]
    assert data["tag"].startswith("py3-none-")
    assert named(ctypes.CDLL(str(library)).sgraf_built()) == ("generic",)
    left_out = [isa for isa in ("avx2", "avx512") if isa in instruction_flags()]
    assert len(warned) == len(left_out)
    for isa, said in zip(left_out, warned, strict=True):
        assert holds(said, isa)


def test_an_installation_without_a_compiler_goes_on(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    monkeypatch.delenv("CC", raising=False)
    made, warned = hook(monkeypatch, checkout)
    data: dict[str, Any] = {"artifacts": []}
    made.initialize("standard", data)
    assert data == {"artifacts": []}
    (said,) = warned
    assert holds(said, "native")
