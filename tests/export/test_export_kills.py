"""A killed export leaves no bundle, or the one that was there, and the next one is not confused."""

from __future__ import annotations

import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.killed_exporter import Exporters, Job
from support.refusals import refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import BundleError
from sgraf_deploy.export.exporter import STEPS, ExportOptions, export_bundle
from sgraf_deploy.files import disk, folders
from sgraf_deploy.files.folders import EXCHANGE_STEPS, FRESH_STEPS, RENAME_STEPS

NAME = "made.sgraf"
KILLED = -signal.SIGKILL

Kill = tuple[str, int]
"""A step, and the how-manieth time that it is reached."""


def kills(around: tuple[str, ...]) -> list[Kill]:
    """Every step of an ensemble's export, in order; the members' steps come twice."""
    created, *published = around
    graphs, reference, *last = STEPS
    reached: Counter[str] = Counter()
    found = []
    for name in (created, graphs, reference, graphs, reference, *last, *published):
        reached[name] += 1
        found.append((name, reached[name]))
    return found


FRESH = kills(FRESH_STEPS)
EXCHANGE = kills(EXCHANGE_STEPS)
RENAMES = [kill for kill in kills(RENAME_STEPS) if kill[0] not in EXCHANGE_STEPS[:-1] + STEPS]

WAYS = {"exchange": EXCHANGE, "renames": RENAMES}
REPLACEMENTS = [(way, kill) for way, found in WAYS.items() for kill in found]


def name_of(value: object) -> str:
    if isinstance(value, tuple):
        step, turn = value
        return f"{step}-{turn}" if turn > 1 else str(step)
    return str(value)


@pytest.fixture(scope="module")
def exporters() -> Iterator[Exporters]:
    with Exporters() as running:
        yield running


@pytest.fixture(scope="module")
def both(checkpoint_files: dict[str, Path]) -> list[str]:
    return [str(path) for path in checkpoint_files.values()]


@pytest.fixture(scope="module")
def new(exporters: Exporters, both: list[str], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """What an export that is not killed writes."""
    target = tmp_path_factory.mktemp("new") / NAME
    assert exporters.run(Job(both, str(target))) == 0
    return Bundle.open(target)


@pytest.fixture(scope="module")
def old(checkpoint_files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle that is there before."""
    target = tmp_path_factory.mktemp("old") / NAME
    options = ExportOptions(precisions=("fp32",))
    return export_bundle([checkpoint_files["saf"]], target, options).bundle


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def whole(target: Path) -> str:
    """The identity of the bundle, once every file of it was found whole."""
    bundle = Bundle.open(target)
    assert bundle.verify_files() == ()
    return bundle.sha256


def check_the_next(target: Path, checkpoint: Path, *, force: bool) -> None:
    """Another export works, and nothing of the killed one is left."""
    options = ExportOptions(precisions=("fp32",), force=force)
    made = export_bundle([checkpoint], target, options).bundle
    assert made.manifest.module == "SGR"
    assert whole(target) == made.sha256
    assert names(target.parent) == [target.name]


def test_the_kills_cover_every_step() -> None:
    assert {step for step, _ in (*FRESH, *EXCHANGE, *RENAMES)} == {*STEPS, *folders.STEPS}


@pytest.mark.parametrize("kill", FRESH, ids=name_of)
def test_a_killed_export_leaves_no_bundle(
    kill: Kill,
    exporters: Exporters,
    both: list[str],
    new: Bundle,
    checkpoint_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    target = tmp_path / NAME

    assert exporters.run(Job(both, str(target), *kill)) == KILLED

    published = kill[0] == "published"
    if published:
        assert whole(target) == new.sha256
    else:
        assert not target.exists()
        with refused(BundleError, target, hint="sgraf-deploy export"):
            Bundle.open(target)
    check_the_next(target, checkpoint_files["sgr"], force=published)


@pytest.mark.parametrize(("way", "kill"), REPLACEMENTS, ids=name_of)
def test_a_killed_replacement_leaves_the_old_or_the_new(
    way: str,
    kill: Kill,
    exporters: Exporters,
    both: list[str],
    old: Bundle,
    new: Bundle,
    checkpoint_files: dict[str, Path],
    tmp_path: Path,
) -> None:
    if way == "exchange":
        skip_without_exchange(tmp_path)
    target = tmp_path / NAME
    shutil.copytree(old.path, target)

    job = Job(both, str(target), *kill, force=True, renames=way == "renames")
    assert exporters.run(job) == KILLED

    done = kill[0] in ("exchanged", "moved-old", "moved-new", "removed-old")
    assert whole(target) == (new.sha256 if done else old.sha256)
    check_the_next(target, checkpoint_files["sgr"], force=True)


def skip_without_exchange(folder: Path) -> None:
    pair = folder / "one", folder / "two"
    for path in pair:
        path.mkdir()
    works = disk.exchange(*pair)
    for path in pair:
        path.rmdir()
    if not works:
        pytest.skip("this file system cannot exchange two folders")


def test_a_killed_export_is_no_bundle_to_a_next_one_without_force(
    exporters: Exporters, both: list[str], checkpoint_files: dict[str, Path], tmp_path: Path
) -> None:
    target = tmp_path / NAME
    for step in ("gate", "written"):
        assert exporters.run(Job(both, str(target), step)) == KILLED
    assert len(names(tmp_path)) == 2, "what the second left, and its lock"

    check_the_next(target, checkpoint_files["sgr"], force=False)
