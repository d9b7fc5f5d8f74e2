"""Which photographs paths name, in which order, and by which ids."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.refusals import naming, refused

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.features.paths import find_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = (
        *("b.jpg", "a.PNG", "notes.txt", ".DS_Store", ".hidden/x.jpg", "trip/sea.webp"),
        *("trip/b.jpg", "c.heic"),
    )
    for name in files:
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "photos"


def ids(*paths: Path, listed: Path | None = None) -> list[str]:
    return [photo.id for photo in find_photos(paths, listed).photos]


def test_a_folder_is_read_with_those_below_it(folder: Path) -> None:
    found = find_photos([folder])
    names = ["a.PNG", "b.jpg", "c.heic", "trip/b.jpg", "trip/sea.webp"]
    assert [photo.id for photo in found.photos] == names
    assert [photo.path for photo in found.photos] == [folder / name for name in names]
    assert found.left_out == 1


def test_paths_come_in_their_order_and_a_named_file_whatever_its_suffix(folder: Path) -> None:
    given = (folder / "notes.txt", folder / "trip", folder / "a.PNG")
    assert ids(*given) == ["notes.txt", "b.jpg", "sea.webp", "a.PNG"]


def test_photographs_of_the_same_id_are_refused(folder: Path) -> None:
    hint = naming()
    with refused(
        DataError, "b.jpg", got=naming(folder / "b.jpg", folder / "trip/b.jpg"), hint=hint
    ):
        ids(folder / "b.jpg", folder / "trip")


def test_what_is_not_there_is_refused(folder: Path) -> None:
    with refused(DataError, folder / "none.jpg"):
        ids(folder / "none.jpg")
    (folder / "empty").mkdir()
    with refused(DataError, expected=naming("jpg", "heic")):
        ids(folder / "empty")
    with refused(DataError):
        find_photos([])


@pytest.mark.parametrize("name", ["a\nb.jpg", " a.jpg", "a\x1b.jpg", os.fsdecode(b"\xff.jpg")])
def test_names_that_are_no_line_are_refused(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")
    with refused(DataError, hint="SPLIT_ids.txt"):
        ids(folder)


def test_links_are_followed_once(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "d.jpg").write_bytes(b"")
    (folder / "linked").symlink_to(tmp_path / "more")
    (folder / "trip" / "up").symlink_to(folder)
    found = ids(folder)
    assert "linked/d.jpg" in found
    assert len(found) == 6


def test_a_list_chooses_and_orders(folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "ids.txt"
    listed.write_text("trip/sea.webp\na.PNG\n")
    assert ids(folder, listed=listed) == ["trip/sea.webp", "a.PNG"]
    listed.write_text("sea.webp\na.PNG\n")
    with refused(DataError, listed, got=naming("sea.webp", 1, 2)):
        ids(folder, listed=listed)
    listed.write_text("a.PNG\na.PNG\n")
    with refused(InputError, listed, got=naming("a.PNG")):
        ids(folder, listed=listed)
