"""Locks: only files of our own are written to or removed."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest
from support.refusals import holds, naming, refused
from support.staged_writer import ANY, NAME, fill, names, read, write

from sgraf_deploy.errors import BundleError
from sgraf_deploy.files import locks
from sgraf_deploy.files.folders import staged_folder
from sgraf_deploy.files.locks import lock_path, take_lock


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / NAME


def test_a_lock_says_who_holds_it_and_goes(target: Path) -> None:
    lock = take_lock(target)
    assert lock is not None
    assert lock.excludes
    assert take_lock(target) is None
    assert holds(locks.holder(target), os.getpid())
    lock.drop()
    assert names(target.parent) == []


def test_a_users_own_lock_file_stays(target: Path) -> None:
    """Other programs lock so, too."""
    own = target.with_name(f".{NAME}.lock")
    own.write_text("mine")
    with own.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        write(target, "new", "fresh")
    assert own.read_text() == "mine"
    assert names(target.parent) == sorted([own.name, NAME])


@pytest.mark.parametrize("content", ["mine", "sgraf-deploy", "\0"])
def test_a_file_of_a_locks_name_that_is_none_is_refused_and_stays(
    target: Path, content: str
) -> None:
    lock_path(target).write_text(content)
    with refused(BundleError, target, got=naming(lock_path(target).name)):
        write(target, "new", "fresh")
    assert lock_path(target).read_text() == content
    assert names(target.parent) == [lock_path(target).name]


def test_a_link_of_a_locks_name_is_refused_and_its_target_stays(target: Path) -> None:
    mine = target.with_name("mine")
    mine.touch()
    lock_path(target).symlink_to("mine")
    with refused(BundleError, target, got=os.strerror(errno.ELOOP)):
        write(target, "new", "fresh")
    assert mine.read_bytes() == b""
    assert lock_path(target).is_symlink()


def test_a_pipe_of_a_locks_name_is_refused_and_stays(target: Path) -> None:
    os.mkfifo(lock_path(target))
    with refused(BundleError, target, got=naming(lock_path(target).name)):
        write(target, "new", "fresh")
    assert names(target.parent) == [lock_path(target).name]


@pytest.mark.parametrize("content", ["", "sgraf-deploy, process 123\n"], ids=["empty", "signed"])
def test_a_lock_that_a_dead_writer_left_is_taken_over(target: Path, content: str) -> None:
    lock_path(target).write_text(content)
    write(target, "new", "fresh")
    assert names(target.parent) == [NAME]


def test_what_took_the_place_of_a_lock_meanwhile_stays(target: Path) -> None:
    lock = take_lock(target)
    assert lock is not None
    lock_path(target).unlink()
    lock_path(target).write_text("mine")
    lock.drop()
    assert lock_path(target).read_text() == "mine"


def test_what_was_written_into_a_lock_meanwhile_stays(target: Path) -> None:
    lock = take_lock(target)
    assert lock is not None
    lock_path(target).write_text("mine")
    lock.drop()
    assert lock_path(target).read_text() == "mine"


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_disk_without_locks_is_written_to_without_them(
    target: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for content, way in (("1", "fresh"), ("2", "exchange"), ("3", "renames")):
        write(target, content, way)
        assert read(target) == content
        assert names(target.parent) == [NAME]


def test_a_lock_that_fails_otherwise_is_an_error(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    theirs = b"sgraf-deploy, process 123\n"
    lock_path(target).write_bytes(theirs)
    monkeypatch.setattr(fcntl, "flock", refuse)
    with refused(BundleError, target, got=os.strerror(errno.EIO)):
        write(target, "new", "fresh")
    assert lock_path(target).read_bytes() == theirs, "it may be a live writer's"
    assert not target.exists()


def test_a_full_disk_leaves_no_lock(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int, content: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", fail)
    with refused(BundleError, target, got=os.strerror(errno.ENOSPC)):
        write(target, "new", "fresh")
    assert names(target.parent) == []


def test_without_locks_what_others_left_stays(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be a live writer's."""
    monkeypatch.setattr(locks, "_can_lock", lambda: False)
    with staged_folder(target, ANY) as folder:
        fill(folder, "first")
        write(target, "second", "fresh")
        assert len(names(target.parent)) == 2
        (target.parent / "moved").mkdir()
        target.rename(target.parent / "moved" / NAME)
    assert read(target) == "first"
    assert names(target.parent) == sorted(["moved", NAME])
