"""Puts the site's pages into one folder, with links that hold there.

Pages are the Markdown files of docs/, and some that lie elsewhere in the repository. In the
repository a link leads from file to file; here it is written anew for where the pages lie.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path, PurePosixPath

from tools.pages.troubleshooting import MARK, message_tables

ELSEWHERE = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "measurements.md",
    "LICENSE": "LICENSE.txt",
    "benchmarks/results/scaling_demo_SAF.svg": "images/scaling.svg",
}
"""Files outside of docs/ that are on the site -> their names there."""

MESSAGES = "tests/support/messages.txt"

LINK = re.compile(r"(?<!`)(\]\()([^)#\s]+)((?:#[^)\s]*)?\))")


def stage(root: Path, target: Path) -> None:
    """Copy every page of the repository at `root` to `target`; ValueError for a link elsewhere."""
    files = {
        path.relative_to(root).as_posix(): path.relative_to(root / "docs").as_posix()
        for path in sorted((root / "docs").rglob("*"))
        if path.suffix in {".md", ".svg", ".png", ".css"}
    } | ELSEWHERE
    for source, name in files.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.suffix != ".md":
            shutil.copyfile(root / source, place)
            continue
        text = (root / source).read_text(encoding="utf-8")
        if MARK in text:
            messages = (root / MESSAGES).read_text(encoding="utf-8")
            text = text.replace(MARK, message_tables(messages))
        place.write_text(relinked(text, source, files), encoding="utf-8")


def relinked(text: str, source: str, files: dict[str, str]) -> str:
    """The Markdown of a file with every relative link led to where its target is on the site."""
    here = PurePosixPath(files[source]).parent

    def replace(found: re.Match[str]) -> str:
        before, target, after = found.groups()
        if re.match(r"[a-z]+:", target):
            return found[0]
        path = os.path.normpath(PurePosixPath(source).parent / target)
        if path not in files:
            raise ValueError(f"{source} links to {target}, which is not on the site")
        return before + os.path.relpath(files[path], here) + after

    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else LINK.sub(replace, part) for part in parts)
