"""An array appears whole or not at all, with its disk space taken first."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from support.refusals import naming, refused

from sgraf_deploy.errors import InputError
from sgraf_deploy.files.writer import staged_array


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "r [1].json"


@pytest.fixture
def old(target: Path) -> Path:
    target.write_text("old", encoding="utf-8")
    return target


def test_an_array_is_mapped_and_appears_whole(old: Path) -> None:
    values = np.arange(15, dtype=np.float32).reshape(3, 5)
    with staged_array(old, (3, 5)) as array:
        assert isinstance(array, np.memmap)
        assert not array.any()
        array[...] = values
        assert old.read_text(encoding="utf-8") == "old"

    found = np.load(old)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)
    assert [path.name for path in old.parent.iterdir()] == [old.name]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "a disk of its own"), KeyboardInterrupt()])
def test_an_error_beside_an_array_is_not_the_files(old: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught, staged_array(old, (3, 5)):
        raise error

    assert caught.value is error
    assert old.read_text(encoding="utf-8") == "old"
    assert [path.name for path in old.parent.iterdir()] == [old.name]


@pytest.mark.parametrize("kind", ["told", "found"])
def test_an_array_that_the_disk_has_no_room_for_is_refused_at_once(
    old: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if kind == "told":
        usage = shutil.disk_usage(old.parent)._replace(free=4_000_000)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    else:
        monkeypatch.setattr(os, "posix_fallocate", full)

    got = naming("4.0", "MB") if kind == "told" else os.strerror(errno.ENOSPC)
    with (
        refused(InputError, "result", old, got=got, hint=[]),
        staged_array(old, (1000, 1000), what="result"),
    ):
        pytest.fail("there is no room")

    assert old.read_text(encoding="utf-8") == "old"
    assert [path.name for path in old.parent.iterdir()] == [old.name]


@pytest.mark.parametrize("code", [None, errno.EOPNOTSUPP, errno.EINVAL])
def test_disk_space_is_taken_where_the_system_cannot_reserve_it(
    old: Path, code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(code, "not here")

    if code is None:
        monkeypatch.delattr(os, "posix_fallocate")
    else:
        monkeypatch.setattr(os, "posix_fallocate", refuse)
    monkeypatch.setattr("sgraf_deploy.files.writer._ZEROS", 1000)

    with staged_array(old, (30, 50)) as array:
        array[...] = 1

    assert np.load(old).sum() == 1500
