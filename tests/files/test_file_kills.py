"""What is left when writers of a file die, meet or run out of disk."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.refusals import check_error
from support.staged_writer import (
    NAME,
    WAYS,
    Forks,
    names,
    prepare,
    read,
    run,
    start,
    write,
    write_file,
)

from sgraf_deploy.errors import BundleError
from sgraf_deploy.files import folders, locks
from sgraf_deploy.files import writer as files
from sgraf_deploy.files.writer import FILE_STEPS

THREADS = 8
SIZE = 20_000
"""Characters of a content: more than one write of a buffered stream."""

FATES = (*FILE_STEPS, "full", "error", "")
"""What happens to the writer of a file: killed at a step, a full disk, an error, nothing."""

CONTENTS = st.integers(0, 2**20).map(lambda number: str(number).ljust(SIZE, "."))


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / NAME
    path.write_text("old")
    return path


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as running:
        yield running


@pytest.mark.parametrize("last", FILE_STEPS)
def test_a_kill_at_a_step_leaves_the_old_or_the_new(forks: Forks, target: Path, last: str) -> None:
    assert forks.run("file_job", target, "new", last) == -signal.SIGKILL
    assert target.read_text() == ("new" if last == "published" else "old")
    assert len(names(target.parent)) == (1 if last == "published" else 2)

    files.write_file(target, "next")

    assert target.read_text() == "next"
    assert names(target.parent) == [NAME]


@pytest.mark.parametrize("last", FILE_STEPS)
def test_an_interrupt_at_a_step_leaves_nothing_else(target: Path, last: str) -> None:
    def step(name: str) -> None:
        if name == last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_file(target, "new", step)

    assert target.read_text() == ("new" if last == "published" else "old")
    assert names(target.parent) == [NAME]


def test_kills_at_every_call_leave_the_old_or_the_new(tmp_path: Path) -> None:
    (tmp_path / "work").mkdir()

    child = run("file_killed_at_every_call", tmp_path / "work" / NAME)

    assert child.returncode == 0, child.stderr
    assert int(child.stdout) > 5


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(CONTENTS, st.sampled_from(FATES)), max_size=8))
def test_after_any_writers_the_last_that_finished_is_there_whole(
    forks: Forks, tmp_path_factory: pytest.TempPathFactory, writers: list[tuple[str, str]]
) -> None:
    target = tmp_path_factory.mktemp("files") / NAME
    files.write_file(target, expected := "old")
    for content, fate in writers:
        code = forks.run("file_job", target, content, fate)
        assert code == (-signal.SIGKILL if fate in FILE_STEPS else 0)
        if fate in ("", "published"):
            expected = content
        assert target.read_text() == expected
        left = 2 if fate in FILE_STEPS and fate != "published" else 1
        assert len(names(target.parent)) == left, "the next writer removes what the last one left"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from([(way, step) for way, steps in WAYS.items() for step in (*steps, "")]),
        max_size=6,
    )
)
def test_after_any_writers_of_a_folder_the_last_that_moved_in_is_there_whole(
    forks: Forks, tmp_path_factory: pytest.TempPathFactory, writers: list[tuple[str, str]]
) -> None:
    folder = tmp_path_factory.mktemp("folders")
    target = prepare(folder, "exchange")
    expected = "old"
    for number, (way, fate) in enumerate(writers):
        # `fresh` replaces as well as the system can: the target is there.
        steps = WAYS["exchange" if way == "fresh" else way]
        code = forks.run("folder_job", target, f"{number}", way, fate)
        reached = fate in steps
        assert code == (-signal.SIGKILL if reached else 0)
        if not reached or fate in ("exchanged", "moved-old", "moved-new", "removed-old"):
            expected = f"{number}"
        folders.recover(target)
        assert read(target) == expected
    write(target, "last", "exchange")
    assert names(folder) == [NAME]


def test_a_live_writer_is_left_alone_and_the_last_one_wins(target: Path) -> None:
    with start("paused_file", target) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        for step in FILE_STEPS[:-1]:
            assert child.stdout.readline() == f"{step}\n"
            files.write_file(target, f"mine at {step}")
            assert target.read_text() == f"mine at {step}"
            assert len(names(target.parent)) == 2
            child.stdin.write("\n")
            child.stdin.flush()
        assert child.stdout.readline() == "published\n"
        assert target.read_text() == "theirs"
        child.communicate("\n")
    assert names(target.parent) == [NAME]


def test_the_leftover_of_a_writer_in_another_process_goes_when_it_dies(target: Path) -> None:
    with start("paused_file", target) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "created\n"
        child.kill()
    assert len(names(target.parent)) == 2
    files.write_file(target, "mine")
    assert names(target.parent) == [NAME]


@pytest.mark.parametrize("held", [False, True], ids=["removed-already", "still-held"])
def test_a_file_that_is_swept_before_it_is_locked_is_made_again(
    target: Path, monkeypatch: pytest.MonkeyPatch, held: bool
) -> None:
    """Between its creation and its lock another writer takes a file for a dead one's."""
    swept: list[Path] = []
    other: list[int] = []

    def late(descriptor: int) -> bool | None:
        if not swept:
            swept.extend(path for path in target.parent.iterdir() if path != target)
            if held:
                other.append(os.open(swept[0], os.O_RDWR))
                assert locks.try_lock(other[0])
            else:
                files._sweep(target)
        return locks.try_lock(descriptor)

    monkeypatch.setattr(files, "try_lock", late)
    files.write_file(target, "new")
    assert target.read_text() == "new"
    if held:
        assert names(target.parent) == sorted([NAME, swept[0].name]), "its sweeper removes it"
        os.close(other[0])
        files.write_file(target, "newer")
    assert names(target.parent) == [NAME]


def test_files_that_only_look_like_leftovers_stay(target: Path) -> None:
    others = [
        f".{NAME}.tmp-1",
        f".{NAME}.tmp-{'0' * 16}.json",
        f".{NAME}.{os.getpid()}.partial",
        f".other.tmp-{'0' * 16}",
        f".{NAME}.lock",
        f"{NAME}.tmp-{'0' * 16}",
    ]
    for name in others:
        (target.parent / name).write_text("mine")
    folder = target.parent / f".{NAME}.tmp-{'1' * 16}"
    folder.mkdir()
    (target.parent / f".{NAME}.tmp-{'2' * 16}").touch()

    files.write_file(target, "new")

    assert names(target.parent) == sorted([*others, folder.name, NAME])


def in_threads(work: Callable[[int], None]) -> None:
    """Run `work` with 0 … 7, all at once; raise what the first of them raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(THREADS)

    def one(number: int) -> None:
        barrier.wait()
        try:
            work(number)
        except BaseException as error:  # noqa: BLE001  # raised below
            errors.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(THREADS)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    for error in errors:
        raise error


def test_threads_write_the_same_and_other_files(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    same = {f"{number} {turn}".ljust(SIZE, ".") for number in range(THREADS) for turn in range(10)}
    torn: list[str] = []

    def work(number: int) -> None:
        own = target.with_name(f"own{number}")
        for turn in range(10):
            content = f"{number} {turn}".ljust(SIZE, ".")
            files.write_file(target, content)
            files.write_file(own, content)
            found = target.read_text()
            if found not in same:
                torn.append(found)
        assert own.read_text() == content

    in_threads(work)

    assert torn == []
    assert target.read_text() in same
    assert names(target.parent) == sorted([NAME, *(f"own{number}" for number in range(THREADS))])


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_threads_write_the_same_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    monkeypatch.setattr(folders, "WRITER_PATIENCE", 0)
    target = prepare(tmp_path, way)
    done: list[str] = []
    busy: list[BundleError] = []

    def work(number: int) -> None:
        for turn in range(5):
            try:
                write(target, f"{number} {turn}", way)
            except BundleError as error:
                busy.append(error)
            else:
                done.append(f"{number} {turn}")

    in_threads(work)

    assert len(done) + len(busy) == THREADS * 5
    for error in busy:
        check_error(error, target, expected=None, got=None)
    assert read(target) in done
    assert names(tmp_path) == [NAME]
