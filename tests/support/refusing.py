"""What refuses a checkpoint, and what is said of one that is read: in names alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.refusals import holds

from sgraf_deploy.errors import CheckpointError
from sgraf_deploy.model.checkpoint import read_checkpoint
from sgraf_deploy.model.container import damaged


def refusal(path: Path, key: str | None = None) -> CheckpointError:
    """The error for the file or folder at `path`: one printable line, which begins with it."""
    with pytest.raises(CheckpointError) as caught:
        read_checkpoint(path, key)
    error = caught.value
    assert type(error) is CheckpointError
    assert error.what.startswith(f"{path}: ")
    assert str(error).isprintable()
    return error


def is_damaged(error: CheckpointError, path: Path) -> bool:
    """Whether a file is refused for not being whole any more."""
    return error.what == damaged("").at(path).what


def is_noted(notes: Sequence[str], *names: object) -> bool:
    """Whether one of the notes names all of these."""
    return any(all(holds(note, name) for name in names) for note in notes)


def check_notes(notes: Sequence[str], *named: Sequence[object]) -> None:
    """There are as many notes as tuples of names, and each names those of its own."""
    assert len(notes) == len(named), notes
    for note, names in zip(notes, named, strict=True):
        assert is_noted([note], *names), (note, names)
