"""`sgraf-deploy synth` writes a folder, whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from support.cli_world import done, error_line, refused_line, run, suggested, tree
from support.refusals import holds, naming

from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.data.synthetic.splits import SceneOptions, scene_split
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.files import disk

SMALL = ("--train", 6, "--dev", 3, "--test", 4, "--img-dim", 16)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_of_three_splits() -> None:
    result = done("synth", "-o", "scenes", *SMALL)

    for name, count in (("train", 6), ("dev", 3), ("test", 4)):
        split = open_precomp("scenes", name)
        assert split.regions.shape == (count, 36, 16)
        assert split.ids is not None
        if name == "test":
            assert split.ids[0] in result.output
            assert split.captions[0] in result.output
    assert suggested(result.output)[:2] == ["train", "scenes"]
    assert [path.name for path in Path().iterdir()] == ["scenes"]


def test_a_seed_changes_everything() -> None:
    for seed in (0, 1):
        done("synth", "-o", f"scenes{seed}", *SMALL, "--seed", seed)
    one, other = (open_precomp(f"scenes{seed}", "dev") for seed in (0, 1))
    assert one.captions != other.captions


@pytest.mark.parametrize(
    ("arguments", "names", "fields"),
    [
        (("-o", "there"), ["there"], {"got": naming("synth.json"), "hint": "-o"}),
        (("-o", "nowhere/scenes"), ["nowhere/scenes"], {"got": naming("nowhere")}),
        (("-o", "scenes", "--img-dim", 4), [], {"expected": naming(8, 4096), "got": 4}),
        (("-o", "scenes", "--noise", -1), ["noise"], {"expected": naming(0, 1000), "got": -1.0}),
        (("-o", "scenes", "--noise", "1e300"), ["noise"], {"got": 1e300}),
        (("-o", "scenes", "--train", 10**9), ["train"], {"expected": naming(1, 10**5)}),
    ],
    ids=["there", "no-parent", "img-dim", "noise", "noise-overflows", "too-many"],
)
def test_bad_input_leaves_nothing(
    here: Path, arguments: tuple[object, ...], names: list[object], fields: dict[str, Any]
) -> None:
    (here / "there").mkdir()
    before = tree(here)
    refused_line(run("synth", *SMALL, *arguments), InputError, *names, **fields)
    assert tree(here) == before


def test_a_split_without_scenes_is_bad_usage(here: Path) -> None:
    result = run("synth", *SMALL, "-o", "scenes", "--train", 0)
    assert result.exit_code == 2
    assert holds(error_line(result), "--train")
    assert tree(here) == {}


def test_the_examples_are_scenes_of_the_folder() -> None:
    result = done("synth", "-o", "scenes", *SMALL, "--test", 1)
    written = open_precomp("scenes", "test")
    assert written.ids is not None
    lines = result.output.splitlines()
    at = lines.index(written.ids[0])
    assert lines[at + 1].strip() == written.captions[0]
    assert len(lines) == at + 4  # what was written, and the next command
    assert holds(lines[at + 2], "scenes")


def test_the_next_command_can_be_typed() -> None:
    result = done("synth", "-o", "my scenes", *SMALL)
    assert suggested(result.output)[:2] == ["train", "my scenes"]


def test_a_folder_has_the_rights_that_are_usual(here: Path) -> None:
    before = os.umask(0o027)
    try:
        done("synth", "-o", "scenes", *SMALL)
    finally:
        os.umask(before)
    assert (here / "scenes").stat().st_mode & 0o777 == 0o750


def test_a_link_leads_to_the_folder(here: Path) -> None:
    (here / "link").symlink_to("scenes")
    done("synth", "-o", "link", *SMALL)
    assert (here / "link").is_symlink()
    assert open_precomp(here / "scenes", "dev").images == 3


def test_force_replaces_what_synth_wrote(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for renames in (False, True):
        done("synth", "-o", "scenes", *SMALL, "--force")
        again = run("synth", "-o", "scenes", *SMALL, "--seed", 1)
        refused_line(again, InputError, here / "scenes", hint="--force")
        if renames:
            monkeypatch.setattr(disk, "exchange", lambda first, second: False)
        done("synth", "-o", "scenes", *SMALL, "--seed", 1, "--force")
        expected = scene_split(SceneOptions(seed=1, img_dim=16), "dev", 3)
        assert open_precomp("scenes", "dev").captions == expected.captions
        assert [path.name for path in here.iterdir()] == ["scenes"]


@pytest.mark.parametrize("renames", [False, True], ids=["exchange", "renames"])
def test_a_failed_force_leaves_the_old_folder(
    here: Path, monkeypatch: pytest.MonkeyPatch, renames: bool
) -> None:
    done("synth", "-o", "scenes", *SMALL)
    before = tree(here)
    if renames:
        monkeypatch.setattr(disk, "exchange", lambda first, second: False)
        rename = os.rename

        def fail_late(path: Path, target: Path) -> None:
            if target.name == "scenes" and ".old-" not in path.name:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(target))
            rename(path, target)

        monkeypatch.setattr(os, "rename", fail_late)
    else:

        def refuse(first: Path, second: Path) -> bool:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(second))

        monkeypatch.setattr(disk, "exchange", refuse)
    result = run("synth", "-o", "scenes", *SMALL, "--seed", 1, "--force")
    refused_line(result, InputError, "scenes", got=os.strerror(errno.EIO))
    assert tree(here) == before


@pytest.mark.parametrize("stranger", ["tags.txt", None], ids=["another-file", "no-record"])
def test_force_replaces_nothing_else(here: Path, stranger: str | None) -> None:
    """Real features have the same names as synthetic ones: only the record tells them apart."""
    done("synth", "-o", "scenes", *SMALL)
    if stranger:
        (here / "scenes" / stranger).write_text("precious", encoding="utf-8")
    else:
        (here / "scenes" / "synth.json").unlink()
    before = tree(here)
    result = run("synth", "-o", "scenes", *SMALL, "--force")
    got = naming(1, stranger) if stranger else naming("synth.json")
    refused_line(result, InputError, here / "scenes", got=got, hint="-o")
    assert tree(here) == before


def test_a_full_disk_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = np.save

    def fill(file: BinaryIO, array: np.ndarray) -> None:
        save(file, array)
        if len(array) == 4:  # the third split
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "save", fill)
    result = run("synth", "-o", "scenes", *SMALL)
    full = os.strerror(errno.ENOSPC)
    refused_line(result, DataError, "test_ims.npy", got=full, hint=naming())
    assert tree(here) == {}
