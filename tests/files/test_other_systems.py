"""What works without POSIX: importing, loading, looking, and publishing without its guarantees."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import other_system
from support.staged_writer import PATHS, names, prepare, write

from sgraf_deploy.errors import BundleError
from sgraf_deploy.files import folders, locks

BUNDLE = Path(__file__).parents[1] / "fixtures" / "v1.sgraf"


def test_the_package_works_without_posix(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, other_system.__file__, BUNDLE, tmp_path],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    assert "torch-reference" in child.stdout  # doctor's list of engines
    assert "v1_SGR.pth.tar" in child.stdout  # what inspect says a member is from


@pytest.fixture
def no_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "_can_lock", lambda: False)
    monkeypatch.setattr(folders, "SWAP_PATIENCE", 0)


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("last", ["marked", "moved-old", "moved-new"])
def test_without_locks_a_reader_completes_a_swap_after_a_while(tmp_path: Path, last: str) -> None:
    """It cannot know whether the writer is alive, and waits for it first."""
    target = prepare(tmp_path, "renames")
    seen: list[str] = []

    def step(name: str) -> None:
        if name == last:
            folders.recover(target)
            seen.append((target / "manifest.json").read_text())

    if last == "moved-old":
        with pytest.raises(BundleError):
            write(target, "new", "renames", step)
    else:
        write(target, "new", "renames", step)

    assert seen == ["old" if last == "marked" else "new"]
    assert (target / "manifest.json").read_text() == "new"
    assert names(tmp_path) == [target.name]
