"""Compiles the scorer in C, once for each instruction set; needs the standard library alone.

`hatch_build.py` calls it when the package is installed, before any of its dependencies is there.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LIBRARY = "libsgraf_scorer.so"

_FLAGS = ("-O3", "-DNDEBUG", "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
_FLOATS = ("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
_X86 = {
    "generic": ("-march=x86-64",),
    "avx2": ("-march=x86-64-v3",),
    "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
}
"""The scorer is compiled once for each; the machine that runs it chooses one."""
DEBUG = ("-O1", "-UNDEBUG", "-g", "-fno-omit-frame-pointer")
"""Extra flags of a library that asserts its preconditions and can be stepped through."""

_OTHERS: dict[str, tuple[str, ...]] = {"generic": ()}


def find_compiler() -> list[str] | None:
    """The command of the C compiler: `$CC`, else cc, gcc or clang; None without one."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    return next(([found] for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def instruction_flags() -> dict[str, tuple[str, ...]]:
    """The compiler's flags by instruction set, on the architecture that is compiled for.

    That is this machine's; Python's own variable _PYTHON_HOST_PLATFORM, such as linux-aarch64,
    names another one for a `$CC` that compiles for it.
    """
    return _X86 if sysconfig.get_platform().endswith(("x86_64", "amd64")) else _OTHERS


def compile_library(
    compiler: Sequence[str], sources: Path, library: Path, extra: Sequence[str] = ()
) -> dict[str, str]:
    """Compile the sources into one library, with `extra` flags behind the usual ones.

    Instruction sets that the compiler refuses are left out, and returned with its messages. Raises
    RuntimeError where it cannot compile the generic one.
    """
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        objects = [Path(folder) / "dispatch.o"]
        for isa, flags in instruction_flags().items():
            made = Path(folder) / f"{isa}.o"
            defined = (*_FLAGS, *_FLOATS, *flags, *extra, f"-DISA={isa}")
            command = [*compiler, *defined, "-c", sources / "scorer.c", "-o", made]
            if isa == "generic":
                _run(command)
            elif (said := _said(command)) is not None:
                refused[isa] = said
                continue
            objects.append(made)
        have = [f"-DHAVE_{made.stem.upper()}" for made in objects[1:]]
        flags = (*_FLAGS, *instruction_flags()["generic"], *extra, *have)
        _run([*compiler, *flags, "-c", sources / "dispatch.c", "-o", objects[0]])
        linked = Path(folder) / LIBRARY
        _run([*compiler, *extra, "-shared", "-o", linked, *objects, "-lm"])
        beside = library.with_suffix(".new")
        shutil.copyfile(linked, beside)
        beside.replace(library)  # A process that has the old one open keeps it.
    return refused


def _run(command: Sequence[Any]) -> None:
    said = _said(command)
    if said is not None:
        raise RuntimeError(
            f"compiling engine native failed: {shlex.join(map(str, command))}\n{said}\n"
            "SGRAF_DEPLOY_NATIVE=0 installs the package without it"
        )


def _said(command: Sequence[Any]) -> str | None:
    """The error output of a command that failed; None for one that succeeded."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return (done.stderr.strip() or "nothing") if done.returncode else None
