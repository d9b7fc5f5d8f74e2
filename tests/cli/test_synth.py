"""`sgraf-deploy synth` writes a folder, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli.world import done, error_line, run, tree

from sgraf_deploy.data.precomp import open_precomp

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
    assert "next: sgraf-deploy train scenes" in result.output
    assert [path.name for path in Path().iterdir()] == ["scenes"]


def test_a_seed_changes_everything() -> None:
    for seed in (0, 1):
        done("synth", "-o", f"scenes{seed}", *SMALL, "--seed", seed)
    one, other = (open_precomp(f"scenes{seed}", "dev") for seed in (0, 1))
    assert one.captions != other.captions


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("-o", "there"), "there exists already"),
        (("-o", "none/scenes"), "no folder none"),
        (("-o", "scenes", "--img-dim", 4), "img dim: expected 8 … 4096, got 4"),
        (("-o", "scenes", "--noise", -1), "noise"),
        (("-o", "scenes", "--train", 10**9), "scenes of split train: expected 1 … 100000"),
    ],
    ids=["there", "no-parent", "img-dim", "noise", "too-many"],
)
def test_bad_input_leaves_nothing(here: Path, arguments: tuple[object, ...], says: str) -> None:
    (here / "there").mkdir()
    before = tree(here)
    result = run("synth", *SMALL, *arguments)
    assert result.exit_code == 2
    assert says in error_line(result)
    assert tree(here) == before
