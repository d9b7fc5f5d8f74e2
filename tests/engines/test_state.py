"""What a user found out on a machine: where it lies, and that nothing else counts."""

from __future__ import annotations

import stat
from dataclasses import fields, replace
from pathlib import Path

import pytest
from support.refusals import naming, refused

from sgraf_deploy.engines.state import VARIABLE, Mark, is_verified, mark_verified, state_folder
from sgraf_deploy.errors import BundleError, InputError

MARK = Mark("ab" * 32, "cd" * 32, "ef" * 32, "tensorrt", "11.4.0", "GPU", "9.0")


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """No folder is named; the home is empty."""
    for name in (VARIABLE, "XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("platform", "variable", "below"),
    [
        ("linux", "XDG_STATE_HOME", ".local/state/sgraf-deploy"),
        ("darwin", "XDG_STATE_HOME", ".local/state/sgraf-deploy"),
        ("win32", "LOCALAPPDATA", "AppData/Local/sgraf-deploy"),
    ],
)
def test_where_the_state_is(
    unset: Path, monkeypatch: pytest.MonkeyPatch, platform: str, variable: str, below: str
) -> None:
    monkeypatch.setattr("sys.platform", platform)
    assert state_folder() == unset / below
    monkeypatch.setenv(variable, "relative")
    assert state_folder() == unset / below
    monkeypatch.setenv(variable, str(unset / "theirs"))
    assert state_folder() == unset / "theirs" / "sgraf-deploy"
    monkeypatch.setenv(VARIABLE, str(unset / "named"))
    assert state_folder() == unset / "named"
    assert list(unset.iterdir()) == []


def test_a_relative_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "state")
    with refused(InputError, VARIABLE, expected=naming(), got="state"):
        state_folder()


@pytest.mark.usefixtures("unset")
def test_a_user_without_a_home_has_no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert state_folder() is None
    assert not is_verified(MARK)
    with refused(BundleError, hint=VARIABLE):
        mark_verified(MARK)


def test_what_was_marked_is_verified() -> None:
    assert not is_verified(MARK)
    mark_verified(MARK)
    mark_verified(MARK)
    assert is_verified(MARK)


def test_others_cannot_look_into_the_state() -> None:
    mark_verified(MARK)
    folder = state_folder()
    assert folder is not None
    assert stat.S_IMODE((folder / "verified").stat().st_mode) == 0o700


@pytest.mark.parametrize("field", [field.name for field in fields(Mark)])
def test_a_mark_is_for_one_plan_graph_reference_and_gpu(field: str) -> None:
    mark_verified(MARK)
    assert not is_verified(replace(MARK, **{field: "another"}))


@pytest.mark.parametrize("content", [b"", b"{}"])
def test_a_torn_mark_does_not_count(content: bytes) -> None:
    mark_verified(MARK)
    folder = state_folder()
    assert folder is not None
    MARK.path(folder).write_bytes(content)
    assert not is_verified(MARK)


def test_a_state_that_cannot_be_written_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file"))
    assert not is_verified(MARK)
    with refused(BundleError, hint=VARIABLE):
        mark_verified(MARK)
