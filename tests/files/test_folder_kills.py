"""What is left when writers die, meet or cannot clean up."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from support.refusals import holds, refused
from support.staged_writer import ANY, NAME, WAYS, fill, names, prepare, read, run, start, write

from sgraf_deploy.errors import BundleError
from sgraf_deploy.files import folders, locks
from sgraf_deploy.files.folders import RENAME_STEPS, recover, staged_folder

KILLS = [(way, step) for way, steps in WAYS.items() for step in steps]


def assert_warned(caplog: pytest.LogCaptureFixture, *names: object) -> None:
    """Some warning was logged, in which these names stand."""
    said = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert any(all(holds(text, name) for name in names) for text in said), said


@pytest.mark.parametrize(("way", "last"), KILLS)
def test_an_interrupt_at_a_step_leaves_the_old_or_the_new(
    tmp_path: Path, way: str, last: str
) -> None:
    target = prepare(tmp_path, way)

    def step(name: str) -> None:
        if name == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(target, "new", way, step)

    done = last in ("published", "exchanged", "moved-new", "removed-old")
    if way == "fresh" and not done:
        assert names(target.parent) == []
    else:
        assert names(target.parent) == [NAME]
        assert read(target) == ("new" if done else "old")


@pytest.mark.parametrize(("way", "last"), KILLS)
def test_a_kill_at_a_step_leaves_the_old_or_the_new(tmp_path: Path, way: str, last: str) -> None:
    target = prepare(tmp_path, way)
    assert run("killed", target, way, last).returncode == -signal.SIGKILL

    recover(target)

    done = last in ("published", "exchanged", "moved-old", "moved-new", "removed-old")
    if way == "fresh" and not done:
        assert not target.exists()
    else:
        assert read(target) == ("new" if done else "old")

    write(target, "next", way)

    assert read(target) == "next"
    assert names(target.parent) == [NAME]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "first"),
    [
        *((way, "") for way in WAYS),
        *(("renames", step) for step in ("synced", "marked", "moved-old", "moved-new")),
        ("exchange", "exchanged"),
    ],
)
def test_kills_at_every_call_leave_the_old_or_the_new(tmp_path: Path, way: str, first: str) -> None:
    """The writer that is killed finds what an earlier one left when it was killed at `first`."""
    (tmp_path / "work").mkdir()

    child = run("killed_at_every_call", tmp_path / "work" / NAME, way, first)

    assert child.returncode == 0, child.stderr
    assert int(child.stdout) > 20


def test_a_new_writer_without_force_completes_the_swap_and_stops(old: Path) -> None:
    run("killed", old, "renames", "moved-old")
    assert not old.exists()

    with refused(BundleError, old, hint="--force"), staged_folder(old, ANY):
        pytest.fail("the block must not run")

    assert read(old) == "new"
    assert names(old.parent) == [NAME]


def test_a_target_removed_by_its_owner_stays_away(old: Path) -> None:
    old.rename(old.parent / "elsewhere")

    recover(old)

    assert names(old.parent) == ["elsewhere"]


def test_the_old_folder_comes_back_if_the_new_one_is_lost(old: Path) -> None:
    run("killed", old, "renames", "moved-old")
    (new,) = old.parent.glob(".*.new-*")
    new.rename(old.parent / "lost")

    recover(old)

    assert read(old) == "old"


def test_files_that_only_look_like_leftovers_stay(target: Path) -> None:
    others = [
        f".{NAME}.tmp-1",
        f".{NAME}.tmp-{'0' * 16}.tmp-{'0' * 16}",
        f".other.sgraf.tmp-{'0' * 16}",
        f"{NAME}.tmp-{'0' * 16}",
    ]
    for name in others:
        (target.parent / name).mkdir()
    (target.parent / f".{NAME}.tmp-{'0' * 16}").mkdir()

    write(target, "new", "fresh")

    assert names(target.parent) == sorted([*others, NAME])


def test_a_leftover_that_cannot_be_removed_is_a_warning(
    target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stray = target.parent / f".{NAME}.tmp-{'0' * 16}"
    stray.write_text("a file where a folder should be")

    write(target, "new", "fresh")

    assert read(target) == "new"
    assert_warned(caplog, stray)


def test_leftovers_make_room_before_the_next_writer_fills_the_disk(target: Path) -> None:
    run("killed", target, "fresh", "written")
    (leftover,) = target.parent.glob(".*.tmp-*")

    with staged_folder(target, ANY) as folder:
        assert list(target.parent.glob(".*.tmp-*")) == [folder]
        fill(folder, "new")

    assert not leftover.exists()


def test_a_former_folder_is_half_removed_under_a_name_that_never_comes_back(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(folder: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", half)
        write(old, "new", "renames")
    shutil.rmtree(old)

    recover(old)

    assert not old.exists()


def test_a_complete_folder_outlives_a_target_that_vanished(old: Path) -> None:
    def step(name: str) -> None:
        if name == "marked":
            shutil.rmtree(old)

    with refused(BundleError, old, got=os.strerror(errno.ENOENT)):
        write(old, "new", "renames", step)
    recover(old)

    assert read(old) == "new"


def test_two_writers_of_one_target_are_an_error(target: Path) -> None:
    with staged_folder(target, ANY) as folder:
        fill(folder, "first")
        with refused(BundleError, target, os.getpid(), got=None), staged_folder(target, ANY):
            pytest.fail("the block must not run")

    assert read(target) == "first"
    assert names(target.parent) == [NAME]


def test_writers_of_two_targets_do_not_meet(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "a", ANY) as first, staged_folder(tmp_path / "b", ANY) as second:
        fill(first, "a")
        fill(second, "b")

    assert (read(tmp_path / "a"), read(tmp_path / "b")) == ("a", "b")
    assert names(tmp_path) == ["a", "b"]


def test_the_death_of_a_writer_in_another_process_frees_the_target(target: Path) -> None:
    with start("paused", target) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "created\n"
        with refused(BundleError, target, child.pid, got=None):
            write(target, "mine", "fresh")
        child.kill()
    assert not target.exists()
    assert len(names(target.parent)) == 2  # its lock and what it wrote

    write(target, "mine", "fresh")

    assert read(target) == "mine"
    assert names(target.parent) == [NAME]


def test_a_child_that_was_forked_meanwhile_does_not_keep_the_lock(target: Path) -> None:
    assert run("forking", target).returncode == 0
    assert read(target) == "second"


def test_a_lock_that_was_removed_while_it_was_taken_is_taken_again(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked: list[int] = []

    def flock(descriptor: int, operation: int) -> None:
        if not locked:
            (target.parent / f".{NAME}.sgraf-deploy-lock").unlink()
        locked.append(descriptor)
        fcntl_flock(descriptor, operation)

    fcntl_flock = fcntl.flock
    monkeypatch.setattr(fcntl, "flock", flock)

    with staged_folder(target, ANY) as folder:
        fill(folder, "new")
        with refused(BundleError, target, os.getpid(), got=None), staged_folder(target, ANY):
            pytest.fail("the block must not run")

    assert names(target.parent) == [NAME]


def test_a_reader_waits_for_a_live_writer_only_so_long(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "SWAP_PATIENCE", 0)
    met: list[str] = []

    def step(name: str) -> None:
        if name == "moved-old":
            with refused(BundleError, old, os.getpid(), got=None):
                recover(old)
        else:
            recover(old)
        met.append(name)

    write(old, "new", "renames", step)

    assert tuple(met) == RENAME_STEPS
    assert read(old) == "new"


def test_a_writer_waits_for_a_reader_that_has_the_lock(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = locks.take_lock(target)
    assert lock is not None
    monkeypatch.setattr(time, "sleep", lambda seconds: lock.drop())

    write(target, "new", "fresh")

    assert read(target) == "new"


def test_a_target_that_cannot_be_put_back_is_put_back_by_the_next_reader(
    old: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(source: Path, destination: Path) -> None:
        if destination == old:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os_rename(source, destination)

    os_rename = os.rename
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", refuse)
        with refused(BundleError, old, got=os.strerror(errno.EIO)):
            write(old, "new", "renames")
    assert not old.exists()
    assert_warned(caplog, old, os.strerror(errno.EIO))

    recover(old)

    assert read(old) == "new"
