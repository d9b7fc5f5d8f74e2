"""One folder has one recipe, also while its splits are still being made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.cells import Cells
from support.refusals import naming, refused

from sgraf_deploy.data.precomp import open_images
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.features.extraction import FeatureOptions
from sgraf_deploy.features.folder import Report, write_features
from sgraf_deploy.features.parts import Plan
from sgraf_deploy.features.paths import find_photos
from sgraf_deploy.files.work import begin_work, work_path

FILES = ["dev_boxes.npy", "dev_ids.txt", "dev_ims.npy", "dev_sizes.npy", "extractor.json"]


def write(photos: Path, split: str = "dev", extractor: Cells | None = None, **more: Any) -> Report:
    found, target = find_photos([photos]).photos, photos.parent / "features"
    return write_features(found, extractor or Cells(), target, split, FeatureOptions(**more))


def names(photos: Path) -> list[str]:
    return sorted(path.name for path in (photos.parent / "features").iterdir())


def test_of_two_recipes_at_once_the_second_is_refused(photos: Path) -> None:
    """The first, which has published nothing yet, does not come to know of it."""
    other, refusals = Cells(gain=2.0), []

    def second(step: str) -> None:
        if step == "planned":
            with refused(InputError, "dev", got=naming("pixels.backbone.scale")) as found:
                write(photos, "train", other)
            refusals.append(found.error)

    target = photos.parent / "features"
    write_features(find_photos([photos]).photos, Cells(), target, "dev", step=second)
    assert len(refusals) == 1
    assert other.extracted == 0
    assert names(photos) == FILES


def test_work_of_another_recipe_is_not_mixed_with(photos: Path) -> None:
    other: dict[str, Any] = {"extractor": Cells(gain=2.0), "max_pixels": 1, "on_error": "stop"}
    with refused(DataError):
        write(photos, "train", **other)
    with refused(InputError, "train", hint=["-o", "--force"]):
        write(photos)
    assert names(photos) == [".train.work"]
    write(photos, "train", force=True)
    write(photos)


def test_of_two_recipes_at_the_same_moment_none_is_mixed_in(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both found nothing there; what is looked at again is the other's plan."""
    target = photos.parent / "features"

    def meanwhile(work: Path) -> None:
        begin_work(work)
        begin_work(work_path(target, "train"))
        plan = Plan.of([], Cells(gain=2.0).spec, "float32", 1)
        plan.write(work_path(target, "train"))

    monkeypatch.setattr("sgraf_deploy.features.folder.begin_work", meanwhile)
    with refused(InputError, "train", got=naming("pixels.backbone.scale")):
        write(photos)
    assert names(photos) == [".train.work"]


def test_two_splits_of_one_recipe_are_written_at_once(photos: Path) -> None:
    def second(step: str) -> None:
        if step == "planned":
            write(photos, "train")

    target = photos.parent / "features"
    write_features(find_photos([photos]).photos, Cells(), target, "dev", step=second)
    for split in ("dev", "train"):
        assert len(open_images(target, split).regions) == 5


def test_a_plan_of_other_work_that_is_damaged_is_named(photos: Path) -> None:
    work = work_path(photos.parent / "features", "train")
    work.mkdir(parents=True)
    (work / "plan.json").write_text("{")
    with refused(InputError, work / "plan.json", hint="--force"):
        write(photos)
