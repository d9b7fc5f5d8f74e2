"""A file appears whole or not at all, and only where a file may be."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path

import pytest
from support.refusals import naming, refused
from support.staged_writer import names, run

from sgraf_deploy.data.vocabulary import SPECIAL_WORDS, Vocabulary
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files import disk
from sgraf_deploy.files.writer import FILE_STEPS, check_file, staged_file, write_file, write_json

LONGEST = 255
"""Bytes of a name, on the file systems that are usual."""


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "r [1].json"


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_file_is_written_in_steps(target: Path) -> None:
    steps: list[str] = []

    with staged_file(target, step=steps.append) as file:
        file.write(b"new")
        assert not target.exists()

    assert target.read_bytes() == b"new"
    assert names(target.parent) == [target.name]
    assert tuple(steps) == FILE_STEPS


def test_text_is_utf8_without_other_line_ends(target: Path) -> None:
    write_file(target, "é\n")
    assert target.read_bytes() == b"\xc3\xa9\n"


def test_what_is_read_meanwhile_is_the_old_file(target: Path) -> None:
    target.write_bytes(b"old")
    with target.open("rb") as reader:
        write_file(target, b"new")
        assert reader.read() == b"old"


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_a_new_file_has_the_permissions_that_the_umask_leaves(target: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_file(target, b"new")
    finally:
        os.umask(before)
    assert mode_of(target) == 0o666 & ~umask


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_replaced_file_keeps_its_permissions_from_the_start(target: Path, mode: int) -> None:
    target.touch()
    target.chmod(mode)

    with staged_file(target) as file:
        (staged,) = (path for path in target.parent.iterdir() if path != target)
        assert mode_of(staged) & ~mode == 0, "nobody may read it who could not read the old one"
        file.write(b"new")

    assert (mode_of(target), target.read_bytes()) == (mode, b"new")


def test_a_disk_that_knows_no_permissions_is_no_error(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, mode: int) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    target.touch()
    target.chmod(0o664)
    monkeypatch.setattr(Path, "chmod", refuse)
    write_file(target, b"new")
    assert target.read_bytes() == b"new"
    assert mode_of(target) & ~0o664 == 0


def test_file_and_folder_are_synced(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []

    def fsync(descriptor: int) -> None:
        synced.append(disk.kind_of(os.fstat(descriptor).st_mode))

    monkeypatch.setattr(os, "fsync", fsync)
    write_file(target, b"new")
    assert synced == ["a file", "a folder"]


@pytest.mark.parametrize("chain", [1, 2])
@pytest.mark.parametrize("there", [True, False], ids=["there", "dangling"])
def test_a_link_is_followed_and_stays(tmp_path: Path, chain: int, there: bool) -> None:
    (tmp_path / "elsewhere").mkdir()
    end = tmp_path / "elsewhere" / "real.json"
    if there:
        end.write_bytes(b"old")
    link = tmp_path / "link0"
    link.symlink_to("elsewhere/real.json")
    for number in range(1, chain):
        (tmp_path / f"link{number}").symlink_to(link.name)
        link = tmp_path / f"link{number}"

    write_file(link, b"new")

    assert link.is_symlink()
    assert (end.is_symlink(), end.read_bytes()) == (False, b"new")
    assert names(end.parent) == ["real.json"]


def _socket(path: Path) -> None:
    # By its name alone: a socket's path may have about a hundred bytes.
    with chdir(path.parent), socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "by-a-link"])
@pytest.mark.parametrize("make", [os.mkfifo, _socket, Path.mkdir], ids=["pipe", "socket", "folder"])
def test_only_a_file_is_replaced(
    tmp_path: Path, make: Callable[[Path], None], linked: bool
) -> None:
    path = tmp_path / "there"
    make(path)
    if linked:
        (tmp_path / "link").symlink_to("there")
    before, inside = path.lstat(), names(tmp_path)

    given = tmp_path / "link" if linked else path
    with refused(InputError, given, got=disk.kind_of(before.st_mode), hint=[]):
        write_file(given, b"new")

    assert path.lstat() == before
    assert names(tmp_path) == inside


def test_a_device_is_refused_before_anything_is_touched(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that the system calls a device: no real one is put at risk."""
    target.write_bytes(b"device")
    status, real = list(target.stat()), os.stat
    status[0] = stat.S_IFCHR | 0o666

    def lie(path: Path | str, **options: bool) -> os.stat_result:
        found = real(path, **options)
        return os.stat_result(status) if found.st_ino == status[1] else found

    def touch(*arguments: object, **options: object) -> int:
        raise AssertionError(f"touched {arguments}")

    monkeypatch.setattr(os, "stat", lie)
    for name in ("open", "rename", "replace", "unlink", "chmod"):
        monkeypatch.setattr(os, name, touch)
    with refused(InputError, target, got=disk.kind_of(stat.S_IFCHR)):
        write_file(target, b"new")
    monkeypatch.undo()
    assert target.read_bytes() == b"device"
    assert names(target.parent) == [target.name]


def test_every_kind_of_file_has_a_name_of_its_own() -> None:
    kinds = (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFCHR)
    assert len({disk.kind_of(kind) for kind in kinds}) == len(kinds)


def test_what_became_a_pipe_meanwhile_is_not_replaced(target: Path) -> None:
    def step(name: str) -> None:
        if name == "synced":
            os.mkfifo(target)

    got = disk.kind_of(stat.S_IFIFO)
    with refused(InputError, target, got=got), staged_file(target, step=step):
        pass
    assert stat.S_ISFIFO(target.lstat().st_mode)
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("when", ["before", "meanwhile", "at-the-end"])
@pytest.mark.parametrize("exchange", [True, False], ids=["renameat2", "without"])
def test_what_is_there_stays_unless_it_may_be_replaced(
    target: Path, monkeypatch: pytest.MonkeyPatch, when: str, exchange: bool
) -> None:
    def step(name: str) -> None:
        if name == "written" and when == "meanwhile":
            target.write_bytes(b"theirs")

    def late(source: Path, destination: Path) -> None:
        if when == "at-the-end":
            target.write_bytes(b"theirs")
        rename_new(source, destination)

    rename_new = disk.rename_new
    monkeypatch.setattr("sgraf_deploy.files.writer.rename_new", late)
    if not exchange:
        monkeypatch.setattr(disk, "_renameat2", lambda *arguments: False)
    if when == "before":
        target.write_bytes(b"theirs")
    with refused(InputError, target), staged_file(target, replace=False, step=step) as file:
        file.write(b"new")
    assert target.read_bytes() == b"theirs"
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("exchange", [True, False], ids=["renameat2", "without"])
def test_a_name_that_is_free_is_taken(
    target: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
) -> None:
    if not exchange:
        monkeypatch.setattr(disk, "_renameat2", lambda *arguments: False)
    write_file(target, b"new", replace=False)
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (OSError(errno.ENOSPC, "No space"), InputError),
        (ValueError("no"), ValueError),
        (DataError("no"), DataError),
        (KeyboardInterrupt(), KeyboardInterrupt),
    ],
    ids=["system", "value", "data", "interrupt"],
)
def test_an_error_in_the_block_leaves_the_old_file(
    target: Path, error: BaseException, raised: type[BaseException]
) -> None:
    target.write_bytes(b"old")

    def fail() -> None:
        with staged_file(target) as file:
            file.write(b"half")
            raise error

    with pytest.raises(raised):
        fail()
    assert target.read_bytes() == b"old"
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("call", ["open", "fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_failing_disk_leaves_the_old_file(
    target: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    target.write_bytes(b"old")
    monkeypatch.setattr(os, call, fail)
    with refused(DataError, target, got=os.strerror(code)) as found:
        write_file(target, b"new", error=DataError)
    assert (found.error.hint is None) == (code == errno.EIO)
    assert target.read_bytes() == b"old"
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("kind", ["bytes", "npz", "json", "checkpoint", "reference", "vocabulary"])
def test_a_full_disk_leaves_the_old_file(target: Path, kind: str) -> None:
    """A process that may not make a file larger than 64 bytes, as on a disk with so many left."""
    target.write_bytes(b"old")

    child = run("on_a_full_disk", target, kind)

    assert child.returncode == 0, child.stderr
    name, reason = child.stdout.split(" ", 1)
    assert name.endswith("Error")
    assert str(target) in reason
    assert os.strerror(errno.EFBIG) in reason
    assert target.read_bytes() == b"old"
    assert names(target.parent) == [target.name]


@pytest.mark.parametrize("size", [LONGEST, LONGEST + 1])
def test_a_long_name_works_or_is_refused_at_once(tmp_path: Path, size: int) -> None:
    path = tmp_path / ("é" * (size // 2) + "x" * (size % 2))
    if size <= LONGEST:
        write_file(path, b"new")
        write_file(path, b"newer")
        assert path.read_bytes() == b"newer"
        assert names(tmp_path) == [path.name]
    else:
        got = os.strerror(errno.ENAMETOOLONG)
        with refused(InputError, path, got=got, hint=[]), staged_file(path):
            pytest.fail("the block must not run")


@pytest.mark.parametrize("parent", ["absent", "file"])
def test_the_folder_must_be_there(tmp_path: Path, parent: str) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / parent / "r"
    with refused(InputError, path, got=naming(path.parent), hint=[]), staged_file(path):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("protected", ["file", "folder"])
def test_what_may_not_be_written_to_is_refused(
    target: Path, monkeypatch: pytest.MonkeyPatch, protected: str
) -> None:
    """Said by `os.access` here: root may write everywhere."""
    target.write_bytes(b"old")
    place = target if protected == "file" else target.parent
    monkeypatch.setattr(os, "access", lambda path, mode: path != place)
    with refused(InputError, target, expected=None, got=naming(place), hint=[]):
        write_file(target, b"new")
    assert target.read_bytes() == b"old"


def test_a_path_that_is_none_is_refused(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    with refused(InputError, loop, got=os.strerror(errno.ELOOP)):
        write_file(loop, b"new")
    with refused(InputError, repr(f"{tmp_path}/a\0b")):
        write_file(tmp_path / "a\0b", b"new")


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps a folder that a process is in")
def test_a_working_folder_that_is_gone_is_an_error_of_the_file(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with chdir(gone):
        gone.rmdir()
        with refused(InputError, "report.json", got=os.strerror(errno.ENOENT)):
            check_file("report.json")
        os.chdir(tmp_path)


def test_text_that_is_no_unicode_is_refused(target: Path) -> None:
    with refused(InputError, target) as found:
        write_file(target, "\udcff")
    assert isinstance(found.error.got, UnicodeEncodeError)
    assert not target.exists()


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, "\udcff"], ids=["nan", "set", "surrogate"])
def test_what_is_no_json_leaves_the_old_file(target: Path, value: object) -> None:
    target.write_bytes(b"old")
    with refused(DataError, "report", target) as found:
        write_json(target, {"a": value}, what="report", error=DataError)
    assert isinstance(found.error.got, TypeError | ValueError)
    assert target.read_bytes() == b"old"


def test_json_is_written_for_people(target: Path) -> None:
    write_json(target, {"b": [1], "a": "é"})
    assert target.read_bytes() == '{\n "b": [\n  1\n ],\n "a": "é"\n}\n'.encode()


def test_a_check_touches_nothing(target: Path) -> None:
    assert check_file(target) == (target, None)
    assert names(target.parent) == []


def test_a_vocabulary_is_written_whole(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: Path, destination: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    Vocabulary(SPECIAL_WORDS).save(target)
    before = target.read_bytes()
    monkeypatch.setattr(os, "replace", fail)
    with refused(DataError, target, got=os.strerror(errno.ENOSPC)):
        Vocabulary([*SPECIAL_WORDS, "dog"]).save(target)
    assert target.read_bytes() == before


@pytest.fixture
def old(target: Path) -> Path:
    target.write_text("old", encoding="utf-8")
    return target
