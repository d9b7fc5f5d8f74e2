"""Which instruction set is used, and what is said where it cannot be."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.cli_world import done
from support.refusals import check_error, holds, naming, refused

from sgraf_deploy.engines.native import library
from sgraf_deploy.engines.native.instructions import SETS, VARIABLE, InstructionSets, named
from sgraf_deploy.engines.registry import unavailable
from sgraf_deploy.errors import UnavailableError

compiled = pytest.mark.skipif(not library.LIBRARY.exists(), reason="engine native was not compiled")


def test_bits_are_sets() -> None:
    assert [named(bits) for bits in (0b001, 0b011, 0b101)] == [
        ("generic",),
        ("generic", "avx2"),
        ("generic", "avx512"),
    ]


@pytest.mark.parametrize(
    ("built", "runnable", "used"),
    [
        (SETS, SETS, "avx512"),
        (SETS, ("generic", "avx2"), "avx2"),
        (SETS, ("generic",), "generic"),
        (("generic", "avx2"), SETS, "avx2"),
        (("generic", "avx512"), ("generic", "avx2"), "generic"),
    ],
    ids=str,
)
def test_the_widest_that_is_built_and_runs_is_used(
    built: tuple[str, ...], runnable: tuple[str, ...], used: str
) -> None:
    assert InstructionSets(built, runnable).used == used


@pytest.mark.parametrize("wanted", SETS)
def test_the_one_that_is_asked_for_is_used(wanted: str) -> None:
    assert InstructionSets(SETS, SETS, wanted).used == wanted


@pytest.mark.parametrize(
    ("built", "runnable", "wanted", "hint"),
    [
        (SETS, SETS, "avx1024", f"unset {VARIABLE}"),
        (SETS, SETS, "AVX2", f"unset {VARIABLE}"),
        (SETS, ("generic", "avx2"), "avx512", f"unset {VARIABLE}"),
        (("generic", "avx2"), SETS, "avx512", ["CC=…", f"unset {VARIABLE}"]),
    ],
    ids=["unknown", "capitals", "processor", "build"],
)
def test_one_that_is_not_there_is_refused(
    built: tuple[str, ...], runnable: tuple[str, ...], wanted: str, hint: Any
) -> None:
    sets = InstructionSets(built, runnable, wanted)
    usable, has = naming(*sets.usable), naming(wanted, *built, *runnable)
    with refused(UnavailableError, VARIABLE, expected=usable, got=has, hint=hint) as caught:
        _ = sets.used
    assert not any(holds(str(caught.error.expected), isa) for isa in {*SETS} - {*sets.usable})


def line_of_native() -> str:
    """What `doctor` says of the instruction sets."""
    lines = done("doctor").stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("engine native"))
    return line


@compiled
def test_the_environment_chooses(instruction_set: str) -> None:
    assert library.instruction_sets().wanted == instruction_set
    line = line_of_native()
    assert line.split()[2] == instruction_set
    assert holds(line, "generic")


@compiled
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert library.instruction_sets().used == library.instruction_sets().usable[-1]


@compiled
def test_what_is_unknown_makes_the_engine_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "sse9")
    error = unavailable("native")
    assert error is not None
    check_error(error, VARIABLE, "sse9", "generic")
    assert holds(line_of_native(), VARIABLE)
    assert not any(holds(line_of_native().partition(VARIABLE)[0], isa) for isa in SETS)


def opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> UnavailableError:
    """What is said of engine native where its library is this file."""
    monkeypatch.setattr(library, "open_library", lambda: OPEN(path))
    error = unavailable("native")
    assert error is not None
    assert "engine native" not in error.reason, "who asked for it says that"
    assert error.hint == library.INSTALL
    return error


OPEN = library.open_library


def test_a_package_without_the_library_says_how_to_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not holds(opened(tmp_path / "no.so", monkeypatch).reason, "no.so")


def test_a_file_that_is_no_library_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noise.so").write_bytes(b"noise")
    check_error(opened(tmp_path / "noise.so", monkeypatch), "noise.so")


def test_a_library_of_other_sources_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, old = tmp_path / "old.c", tmp_path / "old.so"
    source.write_text("int sgraf_score(void) { return 0; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", old, source], check=True)
    check_error(opened(old, monkeypatch), "old.so", "sgraf_built")


def test_a_library_that_was_compiled_for_other_structures_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With them it would read other memory than was meant."""
    if not library.LIBRARY.exists():
        pytest.skip("the package was built without a C compiler")
    copied = shutil.copy(library.LIBRARY, tmp_path / "other.so")
    monkeypatch.setattr(library, "_STRUCTURES", (*library._STRUCTURES[:-1], library._Images))
    check_error(opened(Path(copied), monkeypatch), "other.so")
