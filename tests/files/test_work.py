"""Work that is kept beside what it is for, and files that are published one by one."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.refusals import holds, naming, refused

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files.work import (
    begin_work,
    discard_work,
    kept_work,
    publish_files,
    work_path,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_work_stays_until_it_is_discarded(tmp_path: Path) -> None:
    folder = tmp_path / "target"
    with kept_work(folder, "dev") as work:
        begin_work(work)
        (work / "part").write_text("1")
    assert names(folder) == [".dev.work"]
    with kept_work(folder, "dev") as work:
        assert (work / "part").read_text() == "1"
        begin_work(work)
        assert names(work) == []
        discard_work(work)
        discard_work(work)
    assert not folder.exists(), "it was made for the work alone"


def test_a_folder_with_other_content_stays(tmp_path: Path) -> None:
    (tmp_path / "own").write_text("1")
    with kept_work(tmp_path, "dev"):
        pass
    assert names(tmp_path) == ["own"]


def test_one_at_a_time_works_on_a_name(tmp_path: Path) -> None:
    with kept_work(tmp_path, "dev"):
        with refused(DataError, "dev"), kept_work(tmp_path, "dev", error=DataError):
            pass
        with kept_work(tmp_path, "test") as other:
            assert other == work_path(tmp_path, "test")


@pytest.mark.parametrize("target", ["none/target", "file", "file/target"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "file").write_text("1")
    with refused(InputError, tmp_path / target, got=naming()), kept_work(tmp_path / target, "dev"):
        pass
    assert names(tmp_path) == ["file"]


def test_files_appear_in_order_and_the_last_one_goes_first(tmp_path: Path) -> None:
    for name in ("a", "main", "gone"):
        (tmp_path / name).write_text("old")
    work, seen = tmp_path / ".dev.work", []
    begin_work(work)
    for name in ("a", "b", "main"):
        (work / name).write_text("new")

    def step(name: str) -> None:
        seen.append((name, [one for one in names(tmp_path) if not one.startswith(".")]))

    publish_files(work, tmp_path, ["a", "b", "main"], withdrawn=["gone", "never"], step=step)
    assert seen == [
        ("withdrawn", ["a"]),
        ("a", ["a"]),
        ("b", ["a", "b"]),
        ("main", ["a", "b", "main"]),
    ]
    assert {(tmp_path / name).read_text() for name in ("a", "b", "main")} == {"new"}


def test_a_file_that_is_missing_is_an_error_of_the_folder(tmp_path: Path) -> None:
    begin_work(tmp_path / ".dev.work")
    with refused(InputError, tmp_path) as caught:
        publish_files(tmp_path / ".dev.work", tmp_path, ["a"])
    assert holds(str(caught.error), tmp_path)
