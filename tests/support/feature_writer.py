"""Writes features in a process of its own, which is killed at a step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from support.cells import Cells

from sgraf_deploy.features import folder
from sgraf_deploy.features.extraction import FeatureOptions
from sgraf_deploy.features.paths import find_photos

PATHS = Path(folder.__file__).parents[2], Path(__file__).parents[1]


def content(folder: Path) -> dict[str, bytes]:
    """What every file holds, hidden ones included, but for the lock of a killed process."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith("-lock")
    }


def killed_at(step: str, photos: Path, target: Path, jobs: int, count: int = 1) -> int:
    """Run this file: write `dev` until a step happens for the `count`-th time."""
    child = subprocess.run(
        [sys.executable, __file__, step, str(photos), str(target), str(jobs), str(count)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))},
        check=False,
    )
    return child.returncode


def main(last: str, photos: str, target: str, jobs: str, count: str) -> None:
    """Write, and be killed."""
    seen: list[str] = []

    def step(name: str) -> None:
        seen.append(name)
        if seen.count(last) == int(count):
            os.kill(os.getpid(), signal.SIGKILL)

    options = FeatureOptions(jobs=int(jobs), force=Path(target).exists())
    folder.write_features(find_photos([photos]).photos, Cells(), target, "dev", options, step=step)


if __name__ == "__main__":
    main(*sys.argv[1:])
