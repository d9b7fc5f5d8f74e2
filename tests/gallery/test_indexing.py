"""Indexing encodes what is not there yet, goes on after a kill, and never mixes contents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery.conftest import Make
from numpy.typing import NDArray
from support.refusals import naming, refused
from support.scorers import CAPTIONS, make_regions

from sgraf_deploy.data.precomp import PrecompSplit, open_images
from sgraf_deploy.errors import DataError
from sgraf_deploy.gallery import Gallery, indexing
from sgraf_deploy.gallery.indexing import SavedItems, SplitCaptions, SplitImages, add, update
from sgraf_deploy.gallery.splits import SplitDetails, given_ids, image_ids
from sgraf_deploy.runtime import Scorer
from sgraf_deploy.runtime.saved_encodings import SavedRows

IMAGES = 10
NAMES = [f"photo{row}.jpg" for row in range(IMAGES)]
NOTHING = SplitDetails(None, None)


class StoppedError(Exception):
    pass


def images_of(
    scorer: Scorer, regions: NDArray[Any], details: SplitDetails = NOTHING
) -> SplitImages:
    return SplitImages(scorer, NAMES[: len(regions)], regions, details)


def same(gallery: Gallery, scorer: Scorer, regions: NDArray[Any]) -> bool:
    ids = NAMES[: len(regions)]
    expected = scorer.score(regions, CAPTIONS)
    return np.allclose(scorer.score(gallery.images(scorer, ids), CAPTIONS), expected, 0, 1e-6)


def test_images_are_added_once(make: Make, fake: Scorer) -> None:
    gallery, regions = make(), make_regions(IMAGES)
    told: list[tuple[int, int]] = []
    first = add(gallery, images_of(fake, regions[:4]), lambda *numbers: told.append(numbers))
    again = add(gallery, images_of(fake, regions), lambda *numbers: told.append(numbers))
    assert (first.written, first.present) == (4, 0)
    assert (again.written, again.present) == (6, 4)
    assert told == [(4, 4), (6, 6)]
    assert gallery.ids() == NAMES
    assert same(gallery, fake, regions)
    assert add(gallery, images_of(fake, regions)).written == 0


@pytest.mark.parametrize("step", ["locked", "put", "committed"])
def test_it_goes_on_after_it_was_stopped(
    make: Make, fake: Scorer, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    monkeypatch.setattr(indexing, "MOST_PER_BATCH", 3)
    gallery, regions = make(), make_regions(IMAGES)
    seen: list[str] = []

    def stop(name: str) -> None:
        seen.append(name)
        if seen.count(step) == 2:
            raise StoppedError

    with pytest.raises(StoppedError):
        add(gallery, images_of(fake, regions), step=stop)
    there = 3 * (1 + (step == "committed"))
    assert gallery.ids() == NAMES[:there]
    done = add(gallery, images_of(fake, regions))
    assert (done.written, done.present) == (IMAGES - there, there)
    assert gallery.ids() == NAMES
    assert same(gallery, fake, regions)


def test_other_contents_under_known_ids_are_refused_before_anything_is_written(
    make: Make, fake: Scorer
) -> None:
    gallery, regions = make(), make_regions(IMAGES)
    add(gallery, images_of(fake, regions[:4]))
    other = regions.copy()
    other[2] += 1
    with refused(DataError, gallery.path, 1, got=naming("photo2.jpg"), hint="gallery update"):
        add(gallery, images_of(fake, other))
    assert gallery.ids() == NAMES[:4]
    done = update(gallery, images_of(fake, other[:4]), None)
    assert done.written == 4
    assert gallery.ids() == NAMES[:4]
    assert same(gallery, fake, other[:4])
    assert add(gallery, images_of(fake, other)).present == 4


def test_other_contents_are_written_anew_and_new_ids_added(make: Make, fake: Scorer) -> None:
    gallery, regions = make(), make_regions(IMAGES)
    add(gallery, images_of(fake, regions[:4]))
    regions[2] += 1
    done = add(gallery, images_of(fake, regions), replace=True)
    assert (done.written, done.replaced, done.present) == (IMAGES - 3, 1, 3)
    assert gallery.ids() == NAMES
    assert same(gallery, fake, regions)
    again = add(gallery, images_of(fake, regions), replace=True)
    assert (again.written, again.replaced, again.present) == (0, 0, IMAGES)


def test_boxes_and_sizes_belong_to_the_content(make: Make, fake: Scorer) -> None:
    gallery, regions = make(), make_regions(3)
    boxes = np.arange(3 * 16, dtype=np.float64).reshape(3, 4, 4)
    sizes = np.array([[640, 480]] * 3)
    add(gallery, images_of(fake, regions, SplitDetails(boxes, sizes)))
    found = gallery.details([NAMES[1]])[0]
    assert np.array_equal(found.boxes, boxes[1])  # type: ignore[arg-type]
    assert (found.size, found.metadata) == ((640, 480), None)
    with refused(DataError, 3):
        add(gallery, images_of(fake, regions, SplitDetails(boxes, None)))


def test_captions_carry_their_texts(make: Make, fake: Scorer) -> None:
    gallery = make(kind="captions")
    ids = given_ids(None, len(CAPTIONS), "ids", first=1)
    token_ids = [fake._reader.token_ids([text], None)[0] for text in CAPTIONS]
    items = SplitCaptions(fake, ids, CAPTIONS, token_ids)
    assert add(gallery, items).written == len(CAPTIONS)
    assert add(gallery, items).present == len(CAPTIONS)
    assert [one.metadata for one in gallery.details(["1", "7"])] == [
        {"caption": CAPTIONS[0]},
        {"caption": CAPTIONS[6]},
    ]
    regions = make_regions(2)
    found = fake.score(regions, gallery.captions(fake, ["3", "1"]))
    assert np.allclose(found, fake.score(regions, [CAPTIONS[2], CAPTIONS[0]]), 0, 1e-6)


def test_what_is_encoded_already_is_taken_as_it_is(make: Make, fake: Scorer) -> None:
    gallery, regions = make(), make_regions(IMAGES)
    encoded = fake.encode_images(regions)
    saved = SavedRows(encoded.encoding, encoded.to_host(), None)
    assert add(gallery, SavedItems(NAMES, saved)).written == IMAGES
    assert add(gallery, SavedItems(NAMES, saved)).present == IMAGES
    assert same(gallery, fake, regions)
    with refused(DataError, "ids", got=2):
        SavedItems(NAMES[:2], saved)


def test_what_another_arithmetic_encoded_is_refused(make: Make, fake: Scorer) -> None:
    encoded = fake.encode_images(make_regions(2))
    encoding = replace(encoded.encoding, executed="fp16-rounded")
    gallery = make()
    with refused(DataError, gallery.path, "executed", got="fp16-rounded"):
        add(gallery, SavedItems(NAMES[:2], SavedRows(encoding, encoded.to_host(), None)))


def test_an_update_names_what_it_does_not_know(make: Make, fake: Scorer) -> None:
    gallery, regions = make(), make_regions(IMAGES)
    add(gallery, images_of(fake, regions[:4]))
    with refused(DataError, got=naming("nobody", 1)):
        update(gallery, images_of(fake, regions), ["nobody"])
    with refused(DataError, gallery.path, 6, got=naming("photo4.jpg"), hint="sgraf-deploy index"):
        update(gallery, images_of(fake, regions), None)
    assert update(gallery, images_of(fake, regions), ["photo3.jpg", "photo3.jpg"]).written == 1


def test_an_id_that_is_there_twice_is_refused(fake: Scorer) -> None:
    with refused(DataError, "a", got=naming(0, 2)):
        SplitImages(fake, ["a", "b", "a"], make_regions(3), NOTHING)


Write = Callable[..., PrecompSplit]


@pytest.fixture
def split(tmp_path: Path) -> Write:
    """Write files of the split `dev` and open its images."""

    def write(names: list[str] | None = None, **arrays: NDArray[Any]) -> PrecompSplit:
        np.save(tmp_path / "dev_ims.npy", make_regions(3))
        for name, array in arrays.items():
            np.save(tmp_path / f"dev_{name}.npy", array)
        if names is not None:
            (tmp_path / "dev_ids.txt").write_text("\n".join(names))
        return open_images(tmp_path, "dev")

    return write


def test_ids_are_names_or_else_rows(split: Write, tmp_path: Path) -> None:
    assert image_ids(tmp_path, split()) == ["0", "1", "2"]
    assert image_ids(tmp_path, split(["a", "b", "c"])) == ["a", "b", "c"]
    wrong = split(["a", "b"])
    with refused(DataError, tmp_path / "dev_ids.txt", expected=naming(3), got=naming(2)):
        image_ids(tmp_path, wrong)


def test_details_are_read_where_there_are_files(split: Write, tmp_path: Path) -> None:
    assert SplitDetails.open(tmp_path, split())[1].boxes is None
    boxes, sizes = np.arange(48).reshape(3, 4, 4), np.array([[3, 4], [5, 6], [7, 8]])
    found = SplitDetails.open(tmp_path, split(boxes=boxes, sizes=sizes))
    assert np.array_equal(found[2].boxes, boxes[2])  # type: ignore[arg-type]
    assert found[1].size == (5, 6)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("boxes", np.zeros((3, 5, 4), np.float32)),
        ("boxes", np.zeros((3, 4, 4), bool)),
        ("boxes", np.full((3, 4, 4), np.inf)),
        ("sizes", np.zeros((3, 2), np.int64)),
        ("sizes", np.ones((3, 2))),
        ("sizes", np.ones((2, 2), np.int64)),
    ],
)
def test_details_of_another_form_are_refused(
    split: Write, tmp_path: Path, name: str, array: NDArray[Any]
) -> None:
    opened = split(**{name: array})
    with refused(DataError, tmp_path / f"dev_{name}.npy", expected=naming(), got=naming()):
        SplitDetails.open(tmp_path, opened)


def test_given_ids_fit(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("a\nb\n")
    assert given_ids(path, 2, "ids", first=1) == ["a", "b"]
    assert given_ids(None, 2, "ids", first=1) == ["1", "2"]
    with refused(DataError, path, expected=naming(3), got=2):
        given_ids(path, 3, "ids", first=1)
