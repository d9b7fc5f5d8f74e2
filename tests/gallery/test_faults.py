"""What a gallery is after its writer died, met another one, or ran out of room or luck."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from gallery.conftest import Make
from support.galleries import IDS, LAST, ask, batch_of, hear, run, start, versions
from support.refusals import ANY, naming, refused

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.gallery import Details, Gallery, environment, library
from sgraf_deploy.gallery.store import COMPACT_STEPS, WRITE_STEPS


def data_files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("data*.mdb"))


@pytest.mark.parametrize("turn", [1, 3])
@pytest.mark.parametrize("step", WRITE_STEPS)
def test_a_kill_while_writing_loses_nothing_that_was_committed(
    make: Make, step: str, turn: int
) -> None:
    gallery = make()

    code, said = run("killed", gallery.path, step, turn)

    assert code == -signal.SIGKILL
    acknowledged = said.split()
    assert acknowledged == list(IDS[: 3 * (turn - 1)])
    committed = IDS[: 3 * (turn - 1 + (step == "committed"))]
    assert gallery.ids() == list(committed)
    assert versions(gallery.read(committed)) == [0] * len(committed)
    assert gallery.verify().damaged == {}
    gallery.write(batch_of(gallery.header, IDS[len(committed) :]))
    assert gallery.ids() == list(IDS)


@pytest.mark.parametrize("step", COMPACT_STEPS)
def test_a_kill_while_compacting_leaves_the_old_file_or_the_new(make: Make, step: str) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))
    gallery.delete(IDS[:4])

    code, _ = run("compact", gallery.path, step)

    assert code == -signal.SIGKILL
    assert gallery.ids() == list(IDS[4:])
    assert versions(gallery.read(IDS[4:])) == [0] * 8
    assert gallery.verify().damaged == {}
    gallery.write(batch_of(gallery.header, ["more"]))
    gallery.compact()
    assert data_files(gallery.path) == [gallery.header.data]
    assert gallery.ids() == [*IDS[4:], "more"]


def test_a_full_disk_is_told_and_loses_nothing(make: Make) -> None:
    gallery = make()
    code, said = run("full", gallery.path)
    assert code == 0
    error, written, kinds = said.splitlines()
    assert error.startswith("DataError ")
    assert str(gallery.path) in error
    assert kinds == "1"
    assert len(gallery) == 3 + 20 * int(written)
    assert versions(gallery.read(gallery.ids())) == [0] * len(gallery)
    assert gallery.verify().damaged == {}


@pytest.mark.parametrize(
    "reason", ["mdb_txn_commit: Input/output error", "No space left on device"]
)
def test_a_full_disk_is_told_from_other_errors(
    make: Make, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """LMDB reports a full disk as an I/O error."""
    gallery = make()
    lmdb = library.store_library()

    def fail() -> None:
        with library.translated(gallery.path):
            raise lmdb.Error(reason)

    usage = shutil.disk_usage(gallery.path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with refused(DataError, gallery.path, got=naming("0.0"), hint=naming()):
        fail()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10**12))
    with pytest.raises(DataError) as caught:
        fail()
    assert ("free disk space" in str(caught.value)) == ("No space" in reason)


def test_a_full_map_is_told_and_loses_nothing(make: Make) -> None:
    gallery = make(max_size=10**6)
    written: list[str] = []
    with refused(DataError, gallery.path, hint="sgraf-deploy index --max-size BYTES"):
        for number in range(1000):
            ids = [f"{number}-{each}" for each in range(50)]
            gallery.write(batch_of(gallery.header, ids))
            written += ids
    assert 100 < len(written) == len(gallery)
    assert versions(gallery.read(written)) == [0] * len(written)
    assert gallery.verify().damaged == {}
    again = Gallery.open(gallery.path)
    gallery.close()
    again.delete(written[:100])
    again.write(batch_of(again.header, ["fits"]))
    assert again.ids() == [*written[100:], "fits"]


def test_a_second_writer_is_refused_at_once(make: Make) -> None:
    gallery = make()
    with start("holding", gallery.path) as child:
        assert hear(child) == "put"
        for work in (
            lambda: gallery.write(batch_of(gallery.header, ["mine"])),
            lambda: gallery.delete(["held"]),
            gallery.compact,
        ):
            with refused(DataError, gallery.path, child.pid, hint=naming()):
                work()
        assert gallery.ids() == []
        output, errors = child.communicate("\n")
        assert (output, errors) == ("committed\n", "")
    gallery.write(batch_of(gallery.header, ["mine"]))
    assert gallery.ids() == ["held", "mine"]


def test_the_lock_of_a_writer_that_died_is_free(make: Make) -> None:
    gallery = make()
    with start("holding", gallery.path) as child:
        assert hear(child) == "put"
        child.kill()
    gallery.write(batch_of(gallery.header, ["mine"]))
    assert gallery.ids() == ["mine"]


def test_readers_beside_a_writer_see_whole_records_of_one_batch(make: Make) -> None:
    gallery = make()
    details = [Details({"version": 0})] * len(IDS)
    gallery.write(batch_of(gallery.header, IDS, details=details))
    readers = [start("reader", gallery.path) for _ in range(4)]
    writer = start("writer", gallery.path)
    for child in (writer, *readers):
        output, errors = child.communicate()
        assert (child.returncode, errors) == (0, ""), errors
        assert child is writer or int(output) >= 1
    assert set(versions(gallery.read(IDS))) == {LAST}


def test_no_write_between_the_copy_and_the_swap_of_compact_is_lost(make: Make) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))
    with start("obeying", gallery.path) as child:
        assert hear(child) == "open"
        seen: dict[str, str] = {}
        gallery.compact(step=lambda name: seen.update({name: ask(child, f"at-{name}")}))
        assert list(seen) == list(COMPACT_STEPS)
        assert {said.split()[0] for said in seen.values()} == {"DataError"}
        assert ask(child, "after") == "1"
        assert ask(child, "? id3") == "0"
        assert gallery.ids() == [*IDS, "after"]
        gallery.write(batch_of(gallery.header, ["mine"]))
        assert ask(child, "? mine") == "0"
        child.communicate()
    assert data_files(gallery.path) == [gallery.header.data]


def test_what_a_process_read_before_compact_is_read_from_the_new_file(make: Make) -> None:
    gallery = make()
    other = Gallery.open(gallery.path)
    gallery.write(batch_of(gallery.header, IDS))
    assert len(other.read(IDS)) == len(IDS)
    before = {id(environment_) for environment_ in environment._opened.values()}
    gallery.delete(IDS[:6])
    first, second = gallery.compact()
    assert second <= first
    assert versions(other.read(IDS[6:])) == [0] * 6
    assert other._current().environment is gallery._current().environment
    assert id(gallery._current().environment) not in before
    with refused(DataError, got=naming("id0")):
        other.read(["id0"])


def test_compact_needs_a_lock(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make()
    monkeypatch.setattr("sgraf_deploy.files.locks._can_lock", lambda: False)
    gallery.write(batch_of(gallery.header, IDS))
    with refused(DataError, gallery.path, expected=naming()):
        gallery.compact()
    assert gallery.ids() == list(IDS)


def test_a_copy_that_fails_is_removed(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))

    def stop(name: str) -> None:
        if name == "synced":
            raise OSError(28, "No space left on device")

    with refused(DataError, gallery.path, got=naming()):
        gallery.compact(step=stop)
    assert data_files(gallery.path) == ["data.mdb"]
    assert gallery.ids() == list(IDS)


def test_readers_that_were_killed_are_cleared(make: Make) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))
    gallery.close()
    with start("reading", gallery.path) as child:
        assert hear(child) == "reading"
        child.kill()
    with Gallery.open(gallery.path) as opened:
        readers = opened._current().environment._env.readers()
        assert str(child.pid) not in readers


def test_a_writer_clears_readers_that_were_killed(make: Make) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))
    with start("reading", gallery.path) as child:
        assert hear(child) == "reading"
        assert str(child.pid) in gallery._current().environment._env.readers()
        child.kill()
    gallery.write(batch_of(gallery.header, ["more"]))
    assert str(child.pid) not in gallery._current().environment._env.readers()


def test_a_forked_process_opens_its_own(make: Make) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            try:
                gallery.ids()
            except InputError as error:
                code = 2 if error.hint and "Gallery.open" in error.hint else 3
            with Gallery.open(gallery.path) as own:
                own.write(batch_of(own.header, ["forked"]))
                code = 0 if code == 2 and own.ids() == [*IDS, "forked"] else 4
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert gallery.ids() == [*IDS, "forked"]
    gallery.write(batch_of(gallery.header, ["parent"]))
    assert len(gallery) == len(IDS) + 2


def test_a_reader_who_may_not_write_the_lock_is_told_of_it(make: Make) -> None:
    gallery = make()
    lmdb = library.store_library()
    lock = environment.lock_file(gallery.path / gallery.header.data)
    with (
        refused(DataError, gallery.path, expected=naming(lock.name), got=ANY, hint=str(lock)),
        library.translated(gallery.path, lock=lock),
    ):
        raise lmdb.ReadonlyError("Permission denied")


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
def test_a_gallery_may_lie_in_a_folder_whose_name_is_no_unicode(make: Make) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))
    ids = gallery.ids()
    gallery.close()
    path = gallery.path.rename(gallery.path.with_name(os.fsdecode(b"g\xff")))
    with Gallery.open(path) as moved:
        assert moved.ids() == ids
        moved.compact()
        assert moved.ids() == ids
