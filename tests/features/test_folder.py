"""Photographs to a split of a folder: what is written, what is skipped, and what is refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cells import DIM, Cells, write_photos
from support.photographs import picture_file
from support.refusals import holds, naming, refused

from sgraf_deploy.data.precomp import open_images
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.features.decode import decode_photo
from sgraf_deploy.features.extraction import FeatureOptions
from sgraf_deploy.features.folder import Report, write_features
from sgraf_deploy.features.paths import find_photos
from sgraf_deploy.features.recipe import read_recipe
from sgraf_deploy.files.work import kept_work

FILES = ["dev_boxes.npy", "dev_ids.txt", "dev_ims.npy", "dev_sizes.npy", "extractor.json"]


def write(photos: Path, split: str = "dev", extractor: Cells | None = None, **more: Any) -> Report:
    options = FeatureOptions(**more)
    found = find_photos([photos]).photos
    target = photos.parent / "features"
    return write_features(found, extractor or Cells(), target, split, options)


def names(photos: Path) -> list[str]:
    target = photos.parent / "features"
    return sorted(path.name for path in target.iterdir()) if target.exists() else []


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_split_opens_without_captions(photos: Path, dtype: Any) -> None:
    report = write(photos, dtype=dtype)
    assert names(photos) == FILES
    split = open_images(photos.parent / "features", "dev")
    assert (split.regions.shape, split.regions.dtype) == ((5, 9, DIM), dtype)
    assert split.ids == [f"photo{row:03d}.png" for row in range(5)]
    pictures = [decode_photo(path) for path in sorted(photos.iterdir())]
    expected = Cells().extract(pictures).regions
    assert np.array_equal(split.regions, expected.astype(dtype))
    assert (report.images, report.skipped, report.present) == (5, (), 0)
    assert read_recipe(photos.parent / "features" / "extractor.json") == Cells().spec


def test_progress_and_the_time_of_each_stage_are_told(photos: Path) -> None:
    told: list[tuple[int, int]] = []
    ticks = iter(range(1000))
    report = write_features(
        find_photos([photos]).photos,
        Cells(),
        photos.parent / "features",
        "dev",
        progress=lambda done, total: told.append((done, total)),
        clock=lambda: float(next(ticks)),
    )
    assert told == [(done, 5) for done in range(6)]
    assert report.seconds == {"decode": 5.0, "extract": 5.0, "write": 1.0}


def test_a_photograph_that_cannot_be_read_is_skipped_and_named(photos: Path) -> None:
    (photos / "photo002.png").write_bytes(b"none")
    report = write(photos)
    assert names(photos) == sorted([*FILES, "dev_skipped.txt"])
    (skipped,) = report.skipped
    text = (photos.parent / "features" / "dev_skipped.txt").read_text("utf-8")
    assert text == f"photo002.png\t{skipped.reason}\n"
    split = open_images(photos.parent / "features", "dev")
    assert split.ids == [f"photo{row:03d}.png" for row in (0, 1, 3, 4)]
    assert report.images == len(split.regions) == 4
    # The next run has none to name.
    write_photos(photos, 5)
    write(photos, force=True)
    assert names(photos) == FILES


@pytest.mark.parametrize("jobs", [1, 2])
def test_stop_writes_nothing_and_can_go_on(photos: Path, jobs: int) -> None:
    (photos / "photo003.png").write_bytes(b"none")
    with refused(DataError, "photo003.png"):
        write(photos, on_error="stop", jobs=jobs)
    assert names(photos) == [".dev.work"]
    assert write(photos, resume=True).images == 4


def test_a_folder_of_no_photographs_is_not_written(photos: Path) -> None:
    for path in photos.iterdir():
        path.write_bytes(b"none")
    with refused(DataError, got=naming(5, "photo000.png")):
        write(photos)
    assert names(photos) == []


def test_a_limit_of_pixels_holds(photos: Path) -> None:
    write_photos(photos, 1, (20, 20))
    report = write(photos, max_pixels=200)
    assert [one.id for one in report.skipped] == ["photo000.png"]


def test_an_existing_split_is_replaced_only_by_force(photos: Path) -> None:
    write(photos)
    with refused(InputError, "dev", hint="--force"):
        write(photos)
    (photos / "photo004.png").unlink()
    with refused(InputError, "dev", hint="--force"):
        write(photos, resume=True)
    write(photos, force=True)
    assert len(open_images(photos.parent / "features", "dev").regions) == 4


def test_a_split_that_is_complete_is_done(photos: Path) -> None:
    (photos / "photo003.png").write_bytes(b"none")
    first, extractor = write(photos), Cells()
    again = write(photos, extractor=extractor, resume=True)
    assert (again.images, again.skipped, again.present) == (4, first.skipped, 5)
    assert extractor.extracted == 0
    with refused(InputError, "dtype", expected="float32", got="float16"):
        write(photos, resume=True, dtype="float16")


def test_a_damaged_split_is_not_taken_for_complete(photos: Path) -> None:
    write(photos)
    (photos.parent / "features" / "dev_ims.npy").write_bytes(b"none")
    with refused(DataError, "dev_ims.npy"):
        write(photos, resume=True)


@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_a_link_that_leads_nowhere_is_one_photograph_that_cannot_be_read(
    photos: Path, on_error: Any
) -> None:
    (photos / "photo001.png").unlink()
    (photos / "photo001.png").symlink_to("nowhere")
    if on_error == "stop":
        with refused(DataError, "photo001.png"):
            write(photos, on_error="stop")
    else:
        assert [one.id for one in write(photos).skipped] == ["photo001.png"]
    # A photograph that has come since is another content.
    (photos / "nowhere").write_bytes((photos / "photo002.png").read_bytes())
    if on_error == "stop":
        with refused(InputError, "photo001.png"):
            write(photos, resume=True)


class Blind(Cells):
    """Finds nothing in a dark picture."""

    def extract(self, images: Any) -> Any:
        if max(image.max() for image in images) == 0:
            raise InputError("output", expected="finite numbers", got="others")
        return super().extract(images)


def test_a_photograph_that_the_extractor_fails_on_is_named(photos: Path) -> None:
    (photos / "photo003.png").write_bytes(picture_file(np.zeros((9, 12, 3), np.uint8)))
    with refused(InputError, photos / "photo003.png", expected="finite numbers"):
        write(photos, extractor=Blind())


def test_a_second_split_is_added_beside_what_others_put_there(photos: Path) -> None:
    write(photos)
    folder = photos.parent / "features"
    (folder / "dev_caps.txt").write_text("a\n")
    recipe = (folder / "extractor.json").stat()
    write(photos, "test-1.a")
    assert len(open_images(folder, "test-1.a").regions) == 5
    assert (folder / "dev_caps.txt").read_text() == "a\n"
    assert (folder / "extractor.json").stat().st_mtime_ns == recipe.st_mtime_ns


def test_a_split_of_another_recipe_is_refused(photos: Path) -> None:
    write(photos)
    got = naming("pixels.backbone.scale")
    other = Cells(gain=2.0)
    with refused(InputError, got=got, hint="-o"):
        write(photos, "test", extractor=other)
    assert other.extracted == 0
    with refused(InputError, got=got):
        write(photos, "test", extractor=Cells(gain=2.0), force=True)
    # The only split may be replaced by one of another recipe.
    write(photos, extractor=Cells(gain=2.0), force=True)
    recipe = read_recipe(photos.parent / "features" / "extractor.json")
    assert recipe == Cells(gain=2.0).spec


def test_features_of_unknown_making_are_not_added_to(photos: Path) -> None:
    folder = photos.parent / "features"
    folder.mkdir()
    np.save(folder / "train_ims.npy", np.zeros((2, 9, DIM), np.float32))
    with refused(InputError, "train_ims.npy", expected=naming("extractor.json"), hint="-o"):
        write(photos)
    assert names(photos) == ["train_ims.npy"]


def test_captions_that_are_there_already_stay(photos: Path) -> None:
    folder = photos.parent / "features"
    folder.mkdir()
    (folder / "dev_caps.txt").write_text("a\n")
    write(photos)
    assert names(photos) == sorted([*FILES, "dev_caps.txt"])


@pytest.fixture
def begun(photos: Path) -> Path:
    """Photographs of which some are done."""
    good = photos / "photo004.png"
    content, state = good.read_bytes(), good.stat()
    good.write_bytes(b"none")
    os.utime(good, ns=(state.st_atime_ns, state.st_mtime_ns))
    with refused(DataError):
        write(photos, on_error="stop")
    good.write_bytes(content)
    return photos


def test_a_run_that_was_stopped_is_gone_on_with_only_on_request(begun: Path) -> None:
    with refused(InputError, "dev", hint=["--resume", "--force"]):
        write(begun)
    assert write(begun, force=True).present == 0


def test_work_of_another_list_is_not_gone_on_with(begun: Path) -> None:
    with refused(InputError, "photo004.png", hint="--force"):
        write(begun, resume=True)  # its size is another one
    write_photos(begun, 6)
    (begun / "photo000.png").unlink()
    with refused(InputError, expected="photo000.png", got="photo001.png"):
        write(begun, resume=True)


@pytest.mark.parametrize(
    ("options", "named", "expected", "got"),
    [
        ({"dtype": "float16"}, "--dtype", "float32", "float16"),
        ({"max_pixels": 1000}, "--max-pixels", 50_000_000, 1000),
        ({"extractor": Cells(gain=2.0)}, "recipe", naming(), naming("pixels.backbone.scale")),
    ],
    ids=["dtype", "max_pixels", "recipe"],
)
def test_work_of_other_options_is_not_gone_on_with(
    begun: Path, options: dict[str, Any], named: str, expected: object, got: object
) -> None:
    with refused(InputError, named, expected=expected, got=got, hint="--force"):
        write(begun, resume=True, **options)


def test_a_run_that_goes_on_is_not_taken_for_one_that_was_stopped(begun: Path) -> None:
    """--resume would be of no use then."""
    with kept_work(begun.parent / "features", "dev"), refused(InputError, "dev") as found:
        write(begun)
    assert not holds(str(found.error.hint), "--resume")


def test_one_process_at_a_time_writes_a_split(photos: Path) -> None:
    folder = photos.parent / "features"
    with kept_work(folder, "dev"), refused(InputError, "dev"):
        write(photos)
    with kept_work(folder, "dev"):
        write(photos, "test")
    assert "test_ims.npy" in names(photos)


@pytest.mark.parametrize("split", ["", ".dev", "a/b", "..", "a b", "a\n"])
def test_a_split_has_a_plain_name(photos: Path, split: str) -> None:
    with refused(InputError, got=repr(split)):
        write(photos, split)


def test_a_target_that_cannot_be_made_is_refused(photos: Path) -> None:
    found = find_photos([photos]).photos
    with refused(InputError, got=naming("none")):
        write_features(found, Cells(), photos.parent / "none" / "features", "dev")
    with refused(InputError, "photo000.png"):
        write_features(found, Cells(), photos / "photo000.png", "dev")
    (photos.parent / "features").mkdir()
    with refused(DataError):
        write(photos, on_error="stop", max_pixels=1)


class Wrong(Cells):
    """Regions of a constant value."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def extract(self, images: Any) -> Any:
        found = super().extract(images)
        found.regions[:] = self.value
        return found


def test_numbers_that_cannot_be_stored_are_refused(photos: Path) -> None:
    with refused(DataError, "photo000.png", expected=naming()):
        write(photos, extractor=Wrong(np.nan))
    with refused(DataError, "photo000.png", got="70000", hint="--dtype float32"):
        write(photos, extractor=Wrong(70000), dtype="float16", force=True)
    write(photos, extractor=Wrong(70000), force=True)


class Coarse(Cells):
    """Looks at a few of the pixels, which is quick."""

    def extract(self, images: Any) -> Any:
        return super().extract([image[::20, ::20] for image in images])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_photographs(tmp_path: Path) -> None:
    """Each takes 3.2 MB when it is decoded: 160 of them would be seen."""
    from PIL import Image

    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    noise = np.repeat(np.repeat(rng.integers(0, 256, (9, 12, 3)), 100, 0), 100, 1).astype(np.uint8)
    Image.fromarray(noise).save(tmp_path / "photos" / "photo000.jpg")
    for number in range(1, 200):
        os.link(tmp_path / "photos/photo000.jpg", tmp_path / f"photos/photo{number:03d}.jpg")
    held: list[float] = []

    def hold(done: int, _: int) -> None:
        if done >= 40:
            held.append(resident_megabytes())

    found = find_photos([tmp_path / "photos"]).photos
    options = FeatureOptions(jobs=2)
    write_features(found, Coarse(), tmp_path / "f", "dev", options, progress=hold)
    assert len(held) > 100
    assert max(held) - min(held) < 100, "more than 50 MB up or down"


def resident_megabytes() -> float:
    """What this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
