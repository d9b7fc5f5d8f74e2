"""Compiles the CPU's scorer, `sgraf_deploy/engines/native`, into the wheel.

It needs a C compiler (`$CC`, else cc, gcc or clang) on Linux. Where there is none the package is
built without engine `native`; SGRAF_DEPLOY_NATIVE=0 leaves it out on purpose, and
SGRAF_DEPLOY_NATIVE=debug builds it with assertions, slow. Instruction sets that the compiler does
not know are left out too.
"""

from __future__ import annotations

import os
import runpy
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCES = Path("sgraf_deploy/engines/native")

# By its path: nothing that the package imports is installed yet.
_build = runpy.run_path(str(Path(__file__).parent / SOURCES / "build.py"))
LIBRARY: str = _build["LIBRARY"]
find_compiler = _build["find_compiler"]
compile_library = _build["compile_library"]
DEBUG: tuple[str, ...] = _build["DEBUG"]


class NativeBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """See the module; hatchling calls `initialize` before it gathers the files."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and mark the wheel as one for this platform."""
        library = Path(self.root) / SOURCES / LIBRARY
        compiler = find_compiler()
        asked = os.environ.get("SGRAF_DEPLOY_NATIVE")
        wanted, extra = asked != "0", DEBUG if asked == "debug" else ()
        if wanted and compiler is None:
            self.app.display_warning("no C compiler: engine native is left out")
        if compiler is None or not wanted or not sys.platform.startswith("linux"):
            library.unlink(missing_ok=True)
            return
        for isa, said in compile_library(compiler, library.parent, library, extra).items():
            self.app.display_warning(
                f"engine native is built without {isa}: {compiler[0]} says {said.splitlines()[0]}"
            )
        build_data["artifacts"].append(str(SOURCES / LIBRARY))
        build_data["pure_python"] = False
        tag = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{tag}"
