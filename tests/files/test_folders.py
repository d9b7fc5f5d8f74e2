from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from support.refusals import naming, refused
from support.staged_writer import ANY, NAME, WAYS, fill, names, prepare, read, write

from sgraf_deploy.errors import BundleError
from sgraf_deploy.files.disk import kind_of
from sgraf_deploy.files.folders import RENAME_STEPS, STEPS, staged_folder


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_is_published_whole(tmp_path: Path, way: str) -> None:
    target = prepare(tmp_path, way)
    steps: list[str] = []

    write(target, "new", way, steps.append)

    assert read(target) == "new"
    assert names(target.parent) == [NAME]
    assert tuple(steps) == WAYS[way]
    assert set(steps) <= set(STEPS)


def test_nothing_is_at_the_target_before_the_end(target: Path) -> None:
    with staged_folder(target, ANY) as folder:
        fill(folder, "new")

        assert not target.exists()
        assert folder.parent == target.parent
        assert folder.name.startswith(".")

    assert read(target) == "new"


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_a_new_folder_has_the_permissions_that_are_usual(target: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write(target, "new", "fresh")
    finally:
        os.umask(before)

    assert stat.S_IMODE(target.stat().st_mode) == 0o777 & ~umask


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_a_replaced_folder_keeps_its_permissions(tmp_path: Path, way: str) -> None:
    target = prepare(tmp_path, way)
    target.chmod(0o770)

    write(target, "new", way)

    assert stat.S_IMODE(target.stat().st_mode) == 0o770


def test_a_folder_that_may_not_be_written_to_is_not_replaced(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said by `os.access` here: root may write everywhere."""
    monkeypatch.setattr(os, "access", lambda path, mode: path != old)

    with refused(BundleError, old, got=None, hint=[]) as found:
        write(old, "new", "exchange")
    assert "--force" not in str(found.error.hint)

    assert read(old) == "old"


def test_files_and_folders_are_synced_before_they_are_published(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("needs /proc to see which file is synced")

    def step(name: str) -> None:
        if name == "synced":
            inside = [Path(path).relative_to(folder).as_posix() for path in synced]
            assert sorted(inside) == [".", "manifest.json", "sgr", "sgr/scorer.onnx"]

    with staged_folder(target, ANY, step=step) as folder:
        fill(folder, "new")

    assert synced[-1] == str(target.parent)


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EOPNOTSUPP])
def test_a_file_system_that_cannot_sync_is_no_error(
    target: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fsync)

    write(target, "new", "fresh")

    assert read(target) == "new"


def test_a_failed_sync_publishes_nothing(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)

    with refused(BundleError, "bundle", target, got=os.strerror(errno.EIO)):
        write(target, "new", "fresh")
    assert names(target.parent) == []


@pytest.mark.parametrize("force", [False, True], ids=["", "force"])
@pytest.mark.parametrize(
    "make",
    [lambda path: path.write_text("x"), lambda path: path.symlink_to("loop.sgraf"), os.mkfifo],
    ids=["file", "link-to-itself", "named-pipe"],
)
def test_only_a_folder_is_replaced(
    tmp_path: Path, make: Callable[[Path], None], force: bool
) -> None:
    path = tmp_path / "loop.sgraf"
    make(path)

    kind = kind_of(path.lstat().st_mode)
    with refused(BundleError, path, kind), staged_folder(path, ANY, force=force):
        pytest.fail("the block must not run")
    assert names(tmp_path) == ["loop.sgraf"]


def test_a_bundle_is_replaced_only_by_force(old: Path) -> None:
    with refused(BundleError, old, hint="--force"), staged_folder(old, ANY):
        pytest.fail("the block must not run")

    assert read(old) == "old"
    assert names(old.parent) == [NAME]


@pytest.mark.parametrize("parent", ["absent", "file"])
def test_the_parent_folder_must_exist(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").touch()

    path = tmp_path / parent / "a.sgraf"
    with refused(BundleError, path, got=naming(path.parent), hint=[]), staged_folder(path, ANY):
        pytest.fail("the block must not run")


def test_the_root_folder_is_no_target() -> None:
    with refused(BundleError, "/", "bundle", hint=[]), staged_folder(Path("/"), ANY):
        pytest.fail("the block must not run")


def test_what_appeared_meanwhile_is_not_replaced(target: Path) -> None:
    def step(name: str) -> None:
        if name == "synced":
            target.mkdir()
            fill(target, "another's")

    with (
        refused(BundleError, target, hint="--force"),
        staged_folder(target, ANY, step=step) as new,
    ):
        fill(new, "new")

    assert read(target) == "another's"
    assert names(target.parent) == [NAME]


def test_the_folder_behind_a_link_is_replaced(old: Path) -> None:
    link = old.parent / "current.sgraf"
    link.symlink_to(old.name)

    write(link, "new", "exchange")

    assert link.is_symlink()
    assert read(old) == "new"
    assert names(old.parent) == [NAME, "current.sgraf"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt], ids=lambda error: error.__name__)
@pytest.mark.parametrize("way", WAYS)
def test_an_error_in_the_block_leaves_what_was(
    tmp_path: Path, way: str, error: type[BaseException]
) -> None:
    target = prepare(tmp_path, way)

    def fail() -> None:
        with staged_folder(target, ANY, force=True) as folder:
            fill(folder, "new")
            raise error

    with pytest.raises(error):
        fail()

    if way == "fresh":
        assert names(target.parent) == []
    else:
        assert names(target.parent) == [NAME]
        assert read(target) == "old"


@pytest.mark.parametrize("stuck", [1, 2, 3], ids=["marked", "moved-old", "moved-new"])
def test_a_rename_that_fails_leaves_the_old_one(
    old: Path, monkeypatch: pytest.MonkeyPatch, stuck: int
) -> None:
    def refuse(source: Path, destination: Path) -> None:
        calls.append(destination)
        if len(calls) == stuck:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        os_rename(source, destination)

    calls: list[Path] = []
    os_rename = os.rename
    monkeypatch.setattr(os, "rename", refuse)

    with refused(BundleError, "bundle", old, got=os.strerror(errno.EBUSY)):
        write(old, "new", "renames")

    assert read(old) == "old"
    assert names(old.parent) == [NAME]


class FakeLibc:
    """A C library whose renameat2 fails with an error code of our choice."""

    def __init__(self, code: int) -> None:
        self.code = code

    def renameat2(self, *arguments: object) -> int:
        ctypes.set_errno(self.code)
        return -1


@pytest.mark.parametrize(
    "libc",
    [FakeLibc(errno.ENOSYS), FakeLibc(errno.EINVAL), FakeLibc(errno.EXDEV), object()],
    ids=["no-system-call", "no-flag", "other-device", "no-function"],
)
def test_without_exchange_there_are_two_renames(
    old: Path, monkeypatch: pytest.MonkeyPatch, libc: object
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: libc)

    write(old, "new", "exchange", steps.append)

    assert tuple(steps) == RENAME_STEPS
    assert read(old) == "new"
    assert names(old.parent) == [NAME]


def test_an_exchange_that_is_refused_leaves_the_old_one(
    old: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: FakeLibc(errno.EACCES))

    with refused(BundleError, "bundle", old, got=os.strerror(errno.EACCES)):
        write(old, "new", "exchange")

    assert read(old) == "old"
    assert names(old.parent) == [NAME]
