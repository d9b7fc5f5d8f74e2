"""Compiles the CPU's scorer, `sgraf_deploy/runtime/native`, into the wheel.

It needs a C compiler (`$CC`, else cc, gcc or clang) on Linux. Where there is none the package is
built without engine `native`; SGRAF_DEPLOY_NATIVE=0 leaves it out on purpose.
"""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("sgraf_deploy/runtime/native")
LIBRARY = "libsgraf_scorer.so"

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra")
FLOATS = ("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math")
X86 = {
    "avx512": ("-march=x86-64-v4", "-mprefer-vector-width=512"),
    "avx2": ("-march=x86-64-v3",),
}
"""The scorer is compiled once for each; `dispatch.c` chooses on the machine that runs it."""


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """See the module; hatchling calls `initialize` before it gathers the files."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this platform."""
        library = Path(self.root) / SOURCES / LIBRARY
        compiler = find_compiler()
        wanted = os.environ.get("SGRAF_DEPLOY_NATIVE") != "0"
        if wanted and compiler is None:
            self.app.display_warning("no C compiler: engine native is left out")
        if compiler is None or not wanted or not sys.platform.startswith("linux"):
            library.unlink(missing_ok=True)
            return
        compile_library(compiler, library.parent, library)
        build_data["artifacts"].append(str(SOURCES / LIBRARY))
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"


def find_compiler() -> list[str] | None:
    """The command of the C compiler, or None."""
    if os.environ.get("CC"):
        return shlex.split(os.environ["CC"])
    return next(([found] for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def compile_library(compiler: list[str], sources: Path, library: Path) -> None:
    """Compile the sources into one library; RuntimeError with what the compiler says."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    with tempfile.TemporaryDirectory() as folder:
        objects = [Path(folder) / "dispatch.o"]
        _run([*compiler, *FLAGS, "-c", sources / "dispatch.c", "-o", objects[0]])
        for isa, flags in (X86 if x86 else {"generic": ()}).items():
            objects.append(Path(folder) / f"{isa}.o")
            defined = (*FLAGS, *FLOATS, *flags, f"-DISA={isa}")
            _run([*compiler, *defined, "-c", sources / "scorer.c", "-o", objects[-1]])
        linked = Path(folder) / LIBRARY
        _run([*compiler, "-shared", "-o", linked, *objects, "-lm"])
        beside = library.with_suffix(".new")
        shutil.copyfile(linked, beside)
        beside.replace(library)  # A process that has the old one open keeps it.


def _run(command: list[Any]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        words = shlex.join(map(str, command))
        raise RuntimeError(
            f"compiling engine native failed: {words}\n{done.stderr}\n"
            "SGRAF_DEPLOY_NATIVE=0 installs the package without it"
        )
