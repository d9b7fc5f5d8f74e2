"""Which instruction set is used, and what is said where it cannot be."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cli.world import done

from sgraf_deploy.errors import UnavailableError
from sgraf_deploy.runtime.engine import unavailable
from sgraf_deploy.runtime.native import library
from sgraf_deploy.runtime.native.instructions import SETS, VARIABLE, InstructionSets, named

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
    ("built", "runnable", "wanted", "mend"),
    [
        (SETS, SETS, "avx1024", f"unset {VARIABLE}"),
        (SETS, SETS, "AVX2", f"unset {VARIABLE}"),
        (SETS, ("generic", "avx2"), "avx512", f"unset {VARIABLE}"),
        (("generic", "avx2"), SETS, "avx512", "newer C compiler"),
    ],
    ids=["unknown", "capitals", "processor", "build"],
)
def test_one_that_is_not_there_is_refused(
    built: tuple[str, ...], runnable: tuple[str, ...], wanted: str, mend: str
) -> None:
    sets = InstructionSets(built, runnable, wanted)
    with pytest.raises(UnavailableError) as refused:
        _ = sets.used
    for said in (VARIABLE, wanted, str(sets), " or ".join(sets.usable)):
        assert said in refused.value.reason
    assert mend in str(refused.value.mend)


@compiled
def test_the_environment_chooses(instruction_set: str) -> None:
    assert library.instruction_sets().wanted == instruction_set
    line = rf"engine native: {instruction_set} \(built: .*generic.*; this processor runs: .*\)"
    assert re.search(line, done("doctor").stdout)


@compiled
def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    assert library.instruction_sets().used == library.instruction_sets().usable[-1]


@compiled
def test_what_is_unknown_makes_the_engine_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "sse9")
    error = unavailable("native")
    assert error is not None
    assert "got sse9 (built: generic" in error.reason
    assert f"engine native: none, {VARIABLE}" in done("doctor").stdout


def opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> UnavailableError:
    """What is said of engine native where its library is this file."""
    monkeypatch.setattr(library, "open_library", lambda: OPEN(path))
    error = unavailable("native")
    assert error is not None
    assert "engine native" not in error.reason, "who asked for it says that"
    assert error.mend == library.INSTALL
    return error


OPEN = library.open_library


def test_a_package_without_the_library_says_how_to_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = opened(tmp_path / "no.so", monkeypatch)
    assert "the package was built without a C compiler" in error.reason


def test_a_file_that_is_no_library_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noise.so").write_bytes(b"noise")
    assert "noise.so cannot be loaded" in opened(tmp_path / "noise.so", monkeypatch).reason


def test_a_library_of_other_sources_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source, old = tmp_path / "old.c", tmp_path / "old.so"
    source.write_text("int sgraf_score(void) { return 0; }\n")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", old, source], check=True)
    assert "sgraf_built" in opened(old, monkeypatch).reason
