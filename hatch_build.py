"""Compiles the CPU's scorer, `sgraf_deploy/engines/native`, into the wheel.

It needs a C compiler (`$CC`, else cc, gcc or clang) on Linux. Where there is none the package is
built without engine `native`; SGRAF_DEPLOY_NATIVE=0 leaves it out on purpose, and
SGRAF_DEPLOY_NATIVE=debug builds it with assertions, slow. Instruction sets that the compiler does
not know are left out too.

It also makes PyPI's page out of README.md, whose links are relative. SGRAF_DEPLOY_REPOSITORY is the
repository's address, which `publish.yml` knows, and links then lead to this version's files there;
where it is not set, only their texts stay.
"""

from __future__ import annotations

import os
import re
import runpy
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

SOURCES = Path("sgraf_deploy/engines/native")

# By its path: nothing that the package imports is installed yet.
_build = runpy.run_path(str(Path(__file__).parent / SOURCES / "build.py"))
LIBRARY: str = _build["LIBRARY"]
find_compiler = _build["find_compiler"]
compile_library = _build["compile_library"]
DEBUG: tuple[str, ...] = _build["DEBUG"]

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!\w+:|#)([^)]*)\)")
"""A link in Markdown, or a picture, to a file of the repository: its text and its target."""


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


class PageHook(MetadataHookInterface):
    """See the module; hatchling calls `update` before it writes the metadata."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the text of the page, and the project's addresses."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        address = os.environ.get("SGRAF_DEPLOY_REPOSITORY", "").rstrip("/")
        urls = dict(self.config["urls"])
        if address:
            changes = f"{address}/blob/v{metadata['version']}/CHANGELOG.md"
            urls |= {"Source": address, "Changelog": changes}
        page = absolute_links(text, address, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": page}
        metadata["urls"] = urls


def absolute_links(text: str, address: str, version: str) -> str:
    """A README whose links lead to the files of a version; their texts alone without an address."""

    def absolute(link: re.Match[str]) -> str:
        picture, shown, target = link.groups()
        if not address:
            return "" if picture else shown
        return f"{picture}[{shown}]({address}/{'raw' if picture else 'blob'}/v{version}/{target})"

    return _LINK.sub(absolute, text)
