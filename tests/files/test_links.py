"""A second name of a file, or a copy where there can be none."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sgraf_deploy.files.disk import link_or_copy


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A link to a file, as the Hub's cache has them."""
    (tmp_path / "blob").write_bytes(b"content")
    (tmp_path / "link").symlink_to("blob")
    return tmp_path / "link"


def test_the_file_behind_a_link_gets_a_second_name(source: Path, tmp_path: Path) -> None:
    link_or_copy(source, tmp_path / "new")
    assert not (tmp_path / "new").is_symlink()
    assert (tmp_path / "new").samefile(tmp_path / "blob")


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_where_a_disk_has_no_second_names_it_is_copied(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    link_or_copy(source, tmp_path / "new")
    assert not (tmp_path / "new").samefile(tmp_path / "blob")
    assert (tmp_path / "new").read_bytes() == b"content"


def test_a_name_that_is_taken_stays(source: Path, tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"other")
    with pytest.raises(FileExistsError):
        link_or_copy(source, tmp_path / "new")
    assert (tmp_path / "new").read_bytes() == b"other"
