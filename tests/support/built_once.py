"""Files that several processes of one test run share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock


@dataclass(frozen=True)
class BuiltOnce:
    """Folders below one of the whole run, each built by whoever asks for it first."""

    base: Path

    def __call__(self, name: str, build: Callable[[Path], object]) -> Path:
        """The folder of that name; `build` is called with where it is to be."""
        folder = self.base / "built-once" / name
        folder.parent.mkdir(exist_ok=True)
        done = folder.with_name(f"{name}.done")
        with FileLock(folder.with_name(f"{name}.lock")):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # Of one who was interrupted.
                build(folder)
                done.touch()
        return folder
