"""What is written into a gallery is read from it, by id, as it was; anything else is refused."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gallery.conftest import Make
from numpy.typing import NDArray
from support.galleries import IDS, batch_of, versions, words_of
from support.onnx_bundles import write_bundle
from support.refusals import naming, refused
from support.scorers import CAPTIONS, Faked, make_regions

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.gallery import Batch, Details, Gallery
from sgraf_deploy.gallery.record import MOST_ID_BYTES
from sgraf_deploy.runtime import Scorer

NAMES = [f"photo{row}.jpg" for row in range(9)]


def test_images_are_scored_as_they_were_encoded(scorer: Scorer, tmp_path: Path) -> None:
    images, captions = scorer.encode_images(make_regions(9)), scorer.encode_captions(CAPTIONS)
    with Gallery.create(tmp_path / "g", scorer) as gallery:
        assert gallery.write(Batch.of(NAMES, images)) == 9
        asked = [7, 0, 7, 3]
        found = gallery.images(scorer, [NAMES[row] for row in asked])
        expected = scorer.score(images[asked], captions)
        assert np.array_equal(scorer.score(found, captions), expected)
        assert len(gallery.images(scorer, [])) == 0


def test_captions_are_scored_as_they_were_encoded(scorer: Scorer, tmp_path: Path) -> None:
    images, captions = scorer.encode_images(make_regions(3)), scorer.encode_captions(CAPTIONS)
    ids = [str(row) for row in range(len(CAPTIONS))]
    with Gallery.create(tmp_path / "g", scorer, "captions") as gallery:
        gallery.write(Batch.of(ids, captions))
        found = gallery.captions(scorer, ["5", "0", "5", "6"])
        expected = scorer.score(images, captions[[5, 0, 5, 6]])
        assert np.array_equal(scorer.score(images, found), expected)
        assert len(gallery.captions(scorer, [])) == 0


def test_ids_keep_the_order_in_which_they_were_written(make: Make) -> None:
    gallery = make()
    header = gallery.header
    assert (len(gallery), gallery.ids(), "a" in gallery) == (0, [], False)
    gallery.write(batch_of(header, ["z", "a", "m"]))
    gallery.write(batch_of(header, ["b", "é" * 3]))
    gallery.write(batch_of(header, ["m", "y"], 1), replace=True)
    assert gallery.ids() == ["z", "a", "m", "b", "ééé", "y"]
    gallery.delete(["a", "z", "a"])
    gallery.write(batch_of(header, ["a"]))
    assert gallery.ids() == ["m", "b", "ééé", "y", "a"]
    assert (len(gallery), "a" in gallery, "z" in gallery) == (5, True, False)
    gallery.compact()
    assert gallery.ids() == ["m", "b", "ééé", "y", "a"]


def test_metadata_boxes_and_sizes_come_back(make: Make) -> None:
    gallery = make()
    boxes = np.arange(16, dtype=np.float32).reshape(4, 4)
    every = [
        Details({"title": "a “dog”", "tags": [1, None]}, boxes, (640, 480)),
        Details({}),
        Details(boxes=boxes + 1),
        Details(size=(1, 2**31 - 1)),
    ]
    gallery.write(batch_of(gallery.header, IDS[:4], details=every))
    gallery.write(batch_of(gallery.header, IDS[4:5]))
    rows = gallery.read(IDS[:5])
    for found in ([rows.details(row) for row in range(5)], gallery.details(IDS[:5])):
        assert [one.metadata for one in found] == [every[0].metadata, {}, None, None, None]
        assert [one.size for one in found] == [(640, 480), None, None, (1, 2**31 - 1), None]
        assert np.array_equal(found[0].boxes, boxes)  # type: ignore[arg-type]
        assert np.array_equal(found[2].boxes, boxes + 1)  # type: ignore[arg-type]
        assert [found[row].boxes for row in (1, 3, 4)] == [None] * 3


def test_rows_of_float16_are_half_as_large_and_their_products_agree(
    scorer: Scorer, tmp_path: Path
) -> None:
    images, captions = scorer.encode_images(make_regions(9)), scorer.encode_captions(CAPTIONS)
    with Gallery.create(tmp_path / "g", scorer, dtype="float16") as gallery:
        gallery.write(Batch.of(NAMES, images))
        rows = gallery.read(NAMES).arrays["sgr"]
        whole = images.to_host()["sgr"]
        assert rows["region_embeddings"].dtype == np.float16
        assert np.array_equal(rows["image_global"], whole["image_global"].astype(np.float16))
        wide = rows["region_embeddings"].astype(np.float32)
        assert rows["region_gram"].dtype == np.float32
        assert np.allclose(rows["region_gram"], wide @ wide.transpose(0, 2, 1), 1e-6, 1e-6)
        found = gallery.images(scorer, NAMES)
        assert {b.dtype for b in found.members["saf"].named.values()} == {np.dtype(np.float32)}
        assert np.allclose(
            scorer.score(found, captions), scorer.score(images, captions), rtol=0, atol=2e-2
        )


def test_captions_of_float16_are_widened(scorer: Scorer, tmp_path: Path) -> None:
    captions = scorer.encode_captions(CAPTIONS)
    with Gallery.create(tmp_path / "g", scorer, "captions", dtype="float16") as gallery:
        gallery.write(Batch.of(CAPTIONS, captions))
        found = gallery.captions(scorer, CAPTIONS).to_host()["sgr"]["text_global"]
        expected = captions.to_host()["sgr"]["text_global"].astype(np.float16)
        assert found.dtype == np.float32
        assert np.array_equal(found, expected)


def test_a_half_precision_scorer_keeps_what_it_encoded(
    faked: Callable[..., Faked], tmp_path: Path
) -> None:
    scorer = faked(precision="fp16").scorer
    images = scorer.encode_images(make_regions(3))
    with Gallery.create(tmp_path / "g", scorer, dtype="float16") as gallery:
        gallery.write(Batch.of(NAMES[:3], images))
        found, expected = gallery.images(scorer, NAMES[:3]).to_host(), images.to_host()
    for member, named in expected.items():
        assert found[member].keys() == named.keys()
        for name, array in named.items():
            assert array.dtype == np.float16
            assert np.array_equal(found[member][name], array)


def test_unknown_ids_are_named_and_counted(make: Make) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))
    unknown = ["none", "no2", "n3", "n4", "n5", "n6", "n7"]
    for ask in (gallery.read, gallery.delete, gallery.details):
        with refused(DataError, gallery.path, 7, got=naming("none", "n5")) as caught:
            ask(["id3", *unknown])
        assert "n6" not in str(caught.error)
    assert len(gallery) == len(IDS)


def test_ids_that_are_there_are_refused_and_nothing_is_written(make: Make) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, ["a", "b"]))
    with refused(DataError, gallery.path, 1, got=naming("b"), hint="gallery update"):
        gallery.write(batch_of(gallery.header, ["new", "b"], 1))
    assert gallery.ids() == ["a", "b"]
    assert versions(gallery.read(["b"])) == [0]


@pytest.mark.parametrize(
    ("ids", "got"),
    [
        (["", "a"], 0),
        (["é" * 256], 512),
        ([7], "int"),
        (["a", "b", "a"], "a"),
        (["\ud800"], "surrogate"),
        ([None], "None"),
    ],
)
def test_what_is_no_id_is_refused(make: Make, ids: list[Any], got: object) -> None:
    gallery = make()
    good = batch_of(gallery.header, [f"x{row}" for row in range(len(ids))])
    with pytest.raises(DataError) as caught:
        gallery.write(Batch(ids, good.encoding, good.arrays))
    assert str(got) in str(caught.value.got or caught.value)
    assert len(gallery) == 0


def test_the_longest_id(make: Make) -> None:
    gallery = make()
    longest = "i" * MOST_ID_BYTES
    gallery.write(batch_of(gallery.header, [longest]))
    assert gallery.ids() == [longest]
    with refused(DataError, got=naming(MOST_ID_BYTES + 1)):
        gallery.read([f"{longest}i"])


def changed(batch: Batch, **fields: Any) -> Batch:
    return Batch(**{**vars(batch), **fields})


@pytest.mark.parametrize("what", ["missing", "shape", "dtype", "member", "lengths", "sources"])
def test_rows_that_do_not_fit_are_refused(make: Make, what: str) -> None:
    gallery = make()
    good = batch_of(gallery.header, IDS[:3])
    sgr = dict(good.arrays["sgr"])
    name = "image_global"
    if what == "missing":
        del sgr[name]
    elif what == "shape":
        sgr[name] = sgr[name][:2]
    elif what == "dtype":
        sgr[name] = sgr[name].astype(np.float64)
    arrays = {**good.arrays, "sgr": sgr}
    if what == "member":
        del arrays["sgr"]
    batch = changed(good, arrays=arrays)
    if what == "lengths":
        batch = changed(good, lengths=np.ones(3, np.int32))
    elif what == "sources":
        batch = changed(good, sources=[bytes(16)])
    with pytest.raises(InputError) as caught:
        gallery.write(batch)
    assert caught.value.expected is not None
    assert len(gallery) == 0


@pytest.mark.parametrize(
    "details",
    [
        Details({"a": float("nan")}),
        Details({"a": object()}),
        Details([1]),  # type: ignore[arg-type]
        Details({"a": "b" * 2**20}),
        Details(boxes=np.zeros((3, 4), np.float32)),
        Details(boxes=np.full((4, 4), np.nan, np.float32)),
        Details(size=(0, 5)),
        Details(size=(5, 2**31)),
    ],
)
def test_details_that_do_not_fit_are_refused(make: Make, details: Details) -> None:
    gallery = make()
    with pytest.raises(DataError):
        gallery.write(batch_of(gallery.header, ["a", "b"], details=[Details(), details]))
    assert len(gallery) == 0


def test_captions_of_any_lengths(make: Make) -> None:
    gallery = make(kind="captions")
    ids, lengths = list("abcdef"), [3, 1, 40, 2, 9, 1]
    gallery.write(words_of(gallery.header, ids, lengths))
    rows = gallery.read(["c", "b", "c", "e"])
    assert rows.lengths is not None
    assert rows.lengths.tolist() == [40, 1, 40, 9]
    words: NDArray[Any] = rows.arrays["sgr"]["word_embeddings"]
    assert len(words) == 90
    assert np.array_equal(words[:, 0], np.repeat([2, 1, 2, 4], [40, 1, 40, 9]))
    assert rows.arrays["saf"]["text_global"][:, 0].tolist() == [2, 1, 2, 4]
    with pytest.raises(InputError):
        gallery.write(changed(words_of(gallery.header, ["x"], [1]), lengths=None))
    with pytest.raises(DataError):
        gallery.write(changed(words_of(gallery.header, ["x"], [1]), lengths=np.zeros(1, np.int32)))


def test_the_gallery_of_another_bundle_is_refused(
    faked: Callable[..., Faked], fake: Scorer, tmp_path: Path
) -> None:
    foreign = faked(of=write_bundle(tmp_path / "other.sgraf", "SGR")).scorer
    with Gallery.create(tmp_path / "g", fake) as gallery:
        images = fake.encode_images(make_regions(2))
        gallery.write(Batch.of(["a", "b"], images))
        with refused(DataError, "members", expected=naming("sgr"), got=naming("saf")):
            gallery.images(foreign, ["a"])
        with refused(DataError, gallery.path, "members"):
            gallery.write(Batch.of(["c"], foreign.encode_images(make_regions(1))))
        with refused(DataError, "kind"):
            gallery.captions(fake, ["a"])
        assert len(gallery) == 2


def test_a_closed_gallery_says_so(make: Make) -> None:
    gallery = make()
    gallery.write(batch_of(gallery.header, IDS))
    rows = gallery.read(IDS)
    gallery.close()
    gallery.close()
    assert versions(rows) == [0] * len(IDS)
    assert "closed" in repr(gallery)
    for use in (gallery.ids, gallery.verify, lambda: len(gallery), gallery.__enter__):
        with refused(InputError, hint=naming()):
            use()


def test_two_galleries_of_one_folder_share_it(make: Make) -> None:
    one = make()
    two = Gallery.open(one.path)
    one.write(batch_of(one.header, ["a"]))
    assert two.ids() == ["a"]
    one.close()
    two.write(batch_of(two.header, ["b"]))
    assert Gallery.open(two.path).ids() == ["a", "b"]


def test_what_is_there_already_is_not_replaced(make: Make, tmp_path: Path, fake: Scorer) -> None:
    gallery = make()
    with pytest.raises(DataError):
        Gallery.create(gallery.path, fake)
    (tmp_path / "file").touch()
    with pytest.raises(DataError):
        Gallery.create(tmp_path / "file", fake)
    assert sorted(os.listdir(gallery.path)) == ["data.mdb", "data.mdb-lock", "gallery.json"]


@pytest.mark.parametrize("size", [10, 2**60])
def test_sizes_that_no_gallery_may_have(make: Make, size: int, tmp_path: Path) -> None:
    with refused(InputError, "max_size", got=size):
        make(max_size=size)
    assert os.listdir(tmp_path) == []


def test_stats_count_bytes(make: Make) -> None:
    gallery = make()
    assert gallery.stats().bytes_each is None
    gallery.write(batch_of(gallery.header, IDS))
    found = gallery.stats()
    assert found.count == len(IDS)
    sizes = {name: spec.nbytes for name, spec in gallery.header.rows["sgr"].items()}
    assert found.row_bytes["sgr"] == sizes
    assert sizes["region_gram"] == 4 * 4 * 4
    assert found.used_bytes >= len(IDS) * 2 * sum(sizes.values())
    assert found.bytes_each == found.used_bytes / len(IDS)
    assert found.used_bytes <= found.file_bytes < 2**20
