"""A run that is killed at any step, and one that goes on, give the bytes of one undisturbed."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from support.cells import Cells, write_photos
from support.feature_writer import content, killed_at

from sgraf_deploy.features.extraction import FeatureOptions
from sgraf_deploy.features.folder import write_features
from sgraf_deploy.features.paths import find_photos

IMAGES = 70
FILES = ("extractor.json", "dev_ids.txt", "dev_skipped.txt", "dev_sizes.npy", "dev_boxes.npy")
STEPS = ("planned", "part", "gathered", *FILES, "dev_ims.npy", "published", "discarded")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder, IMAGES)
    (folder / "photo040.jpg").write_bytes(b"none")
    return folder


@pytest.fixture(scope="module")
def undisturbed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    target = tmp_path_factory.mktemp("undisturbed") / "features"
    write_features(find_photos([photos]).photos, Cells(), target, "dev")
    return content(target)


def final(folder: Path) -> dict[str, bytes]:
    """What stands under final names."""
    return {name: held for name, held in content(folder).items() if not name.startswith(".")}


@pytest.mark.parametrize("jobs", [1, 2])
@pytest.mark.parametrize("last", STEPS)
def test_a_killed_run_that_goes_on_gives_the_same_bytes(
    photos: Path, undisturbed: dict[str, bytes], tmp_path: Path, last: str, jobs: int
) -> None:
    target = tmp_path / "features"
    assert killed_at(last, photos, target, jobs, 2 if last == "part" else 1) == -signal.SIGKILL
    left = final(target)
    assert {name: undisturbed[name] for name in left} == left, "something is half-written"
    if "dev_ims.npy" in left:
        assert left == undisturbed

    extractor = Cells()
    options = FeatureOptions(jobs=3 - jobs, resume=True)
    report = write_features(find_photos([photos]).photos, extractor, target, "dev", options)

    assert content(target) == undisturbed
    assert (report.images, [one.id for one in report.skipped]) == (IMAGES, ["photo040.jpg"])
    assert not list(tmp_path.rglob("*lock"))
    if last == "part":
        assert 0 < extractor.extracted < IMAGES
    elif last != "planned":
        assert extractor.extracted == 0


@pytest.mark.parametrize("last", ["gathered", "withdrawn", "dev_ids.txt", "dev_boxes.npy"])
def test_a_reader_never_finds_an_old_split_with_new_files(
    photos: Path, undisturbed: dict[str, bytes], tmp_path: Path, last: str
) -> None:
    target, other = tmp_path / "features", tmp_path / "other"
    write_photos(other, 3, (5, 4))
    write_features(find_photos([other]).photos, Cells(), target, "dev")
    old = final(target)
    assert killed_at(last, photos, target, 1) == -signal.SIGKILL
    left = final(target)
    if last == "gathered":
        assert left == old
    else:
        assert "dev_ims.npy" not in left
    options = FeatureOptions(resume=True, force=True)
    write_features(find_photos([photos]).photos, Cells(), target, "dev", options)
    assert content(target) == undisturbed


def test_the_boxes_and_sizes_are_those_of_the_photographs(
    photos: Path, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    for name, held in undisturbed.items():
        (tmp_path / name).write_bytes(held)
    names = (tmp_path / "dev_ids.txt").read_text().splitlines()
    assert names == [f"photo{row:03d}.png" for row in range(IMAGES)]
    assert np.array_equal(np.load(tmp_path / "dev_sizes.npy"), [[12, 9]] * IMAGES)
    boxes = np.load(tmp_path / "dev_boxes.npy")
    assert (boxes.shape, boxes.dtype) == ((IMAGES, 9, 4), np.float32)
    assert boxes[5, 5].tolist() == [8, 3, 12, 6]
