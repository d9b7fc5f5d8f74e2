from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgraf_deploy.data.precomp import list_splits, open_precomp
from sgraf_deploy.errors import DataError


def image_features(images: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(11).normal(size=(images, 2, 3)).astype(np.float32)


def write_split(
    folder: Path,
    split: str = "dev",
    *,
    images: int = 3,
    repeat: int = 1,
    captions: int | None = None,
    ids: Sequence[str] | None = None,
) -> np.ndarray[Any, Any]:
    """Write a split and return its features, each image once."""
    once = image_features(images)
    np.save(folder / f"{split}_ims.npy", np.repeat(once, repeat, axis=0))
    lines = [f"image {index // 5} caption {index % 5}" for index in range(captions or images * 5)]
    (folder / f"{split}_caps.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if ids is not None:
        (folder / f"{split}_ids.txt").write_text("\n".join(ids), encoding="utf-8")
    return once


@pytest.mark.parametrize("repeat", [1, 5], ids=["once", "five-fold"])
@pytest.mark.parametrize("split", ["dev", "testall"])
def test_open_precomp(tmp_path: Path, repeat: int, split: str) -> None:
    once = write_split(tmp_path, split, images=4, repeat=repeat)
    opened = open_precomp(tmp_path, split)
    assert (opened.name, opened.images, opened.captions_per_image) == (split, 4, 5)
    np.testing.assert_array_equal(opened.regions, once)
    assert len(opened.captions) == 20
    assert opened.captions[7] == "image 1 caption 2"
    assert opened.image_of_caption.dtype == np.int32
    assert opened.image_of_caption.tolist() == np.repeat(range(4), 5).tolist()
    assert opened.ids is None


@pytest.mark.parametrize("repeat", [1, 5], ids=["once", "five-fold"])
def test_features_stay_on_disk(tmp_path: Path, repeat: int) -> None:
    write_split(tmp_path, repeat=repeat)
    regions = open_precomp(tmp_path, "dev", limit_images=2).regions
    assert isinstance(regions, np.memmap)
    assert regions.strides[0] == repeat * 2 * 3 * 4  # a view: no copy of the rows


@pytest.mark.parametrize("row", [1, 4, 64, 149], ids=lambda row: f"row-{row}")
def test_rows_that_should_repeat_but_differ(tmp_path: Path, row: int) -> None:
    write_split(tmp_path, images=30, repeat=5)
    stored = np.load(tmp_path / "dev_ims.npy")
    stored[row, 1, 2] += 1
    np.save(tmp_path / "dev_ims.npy", stored)
    first = row // 5 * 5
    message = rf"dev_ims\.npy has.*dev_caps\.txt.*\(150\).*row {row} differs from row {first} "
    with pytest.raises(DataError, match=message):
        open_precomp(tmp_path, "dev")


def test_one_image_per_caption_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, images=500, captions=500)
    with pytest.raises(DataError, match="expected 5 identical rows per image, got row 1 differs"):
        open_precomp(tmp_path, "dev")


def test_repeated_rows_with_nan_are_left_to_the_value_check(tmp_path: Path) -> None:
    write_split(tmp_path, images=2, repeat=5)
    stored = np.load(tmp_path / "dev_ims.npy")
    stored[5:] = np.nan
    np.save(tmp_path / "dev_ims.npy", stored)
    assert open_precomp(tmp_path, "dev").images == 2


@pytest.mark.parametrize(
    ("images", "captions"),
    [(3, 14), (3, 16), (3, 5), (3, 3), (7, 7), (10, 15), (10, 45), (3, 75)],
    ids=str,
)
def test_counts_that_do_not_match(tmp_path: Path, images: int, captions: int) -> None:
    write_split(tmp_path, images=images, captions=captions)
    message = rf"dev_ims\.npy and .*dev_caps\.txt.*got {images} rows and {captions} captions"
    with pytest.raises(DataError, match=message):
        open_precomp(tmp_path, "dev")


def test_a_missing_split_lists_those_that_exist(tmp_path: Path) -> None:
    for split in ("train", "dev", "testall"):
        write_split(tmp_path, split)
    (tmp_path / "half_ims.npy").touch()
    assert list_splits(tmp_path) == ["dev", "testall", "train"]
    with pytest.raises(DataError, match=r"no split 'test'.*got the splits dev, testall, train$"):
        open_precomp(tmp_path, "test")


@pytest.mark.parametrize("missing", ["dev_ims.npy", "dev_caps.txt"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write_split(tmp_path, "dev")
    (tmp_path / missing).unlink()
    with pytest.raises(DataError, match=rf"'dev': expected {missing}, got no split at all"):
        open_precomp(tmp_path, "dev")


def test_a_split_outside_the_folder_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, "dev")
    (tmp_path / "sub").mkdir()
    with pytest.raises(DataError, match=r"no split '\.\./dev': expected a split in .*sub itself"):
        open_precomp(tmp_path / "sub", "../dev")


@pytest.mark.parametrize("folder", ["absent", "file"])
def test_a_folder_that_is_none(tmp_path: Path, folder: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=rf"data folder .*{folder} cannot be read.*SPLIT_ims\.npy"):
        open_precomp(tmp_path / folder, "dev")


def test_defects_of_the_files_come_through(tmp_path: Path) -> None:
    write_split(tmp_path)
    captions = tmp_path / "dev_caps.txt"
    captions.write_bytes(captions.read_bytes().replace(b"image 1 caption 2", b"caf\xe9"))
    with pytest.raises(DataError, match=r"dev_caps\.txt, line 8: expected UTF-8"):
        open_precomp(tmp_path, "dev")
    np.save(tmp_path / "dev_ims.npy", np.zeros((3, 2, 3)))
    with pytest.raises(DataError, match=r"dev_ims\.npy.*float64"):
        open_precomp(tmp_path, "dev")


@pytest.mark.parametrize("repeat", [1, 5], ids=["once", "per-caption"])
def test_ids(tmp_path: Path, repeat: int) -> None:
    names = ["b.jpg", "a.jpg", "a.jpg"]
    write_split(tmp_path, ids=[name for name in names for _ in range(repeat)])
    assert open_precomp(tmp_path, "dev").ids == names
    assert open_precomp(tmp_path, "dev", limit_images=2).ids == names[:2]


@pytest.mark.parametrize(
    "ids",
    [["a", "b"], ["a", "b", "c", "d"], [str(number) for number in range(15)]],
    ids=["fewer", "more", "one-per-caption-that-differ"],
)
def test_ids_that_do_not_match(tmp_path: Path, ids: list[str]) -> None:
    write_split(tmp_path, ids=ids)
    with pytest.raises(DataError, match=rf"dev_ids\.txt: expected 3 lines, got {len(ids)}"):
        open_precomp(tmp_path, "dev")


@pytest.mark.parametrize("repeat", [1, 5], ids=["once", "five-fold"])
@pytest.mark.parametrize("limit", [1, 2, 3])
def test_limit_images(tmp_path: Path, limit: int, repeat: int) -> None:
    once = write_split(tmp_path, repeat=repeat)
    opened = open_precomp(tmp_path, "dev", limit_images=limit)
    np.testing.assert_array_equal(opened.regions, once[:limit])
    assert len(opened.captions) == len(opened.image_of_caption) == limit * 5
    assert opened.captions[-1] == f"image {limit - 1} caption 4"


@pytest.mark.parametrize("limit", [-1, 0, 4])
def test_a_limit_out_of_range(tmp_path: Path, limit: int) -> None:
    write_split(tmp_path)
    with pytest.raises(DataError, match=rf"split dev of .*: expected 1 … 3.*got {limit}"):
        open_precomp(tmp_path, "dev", limit_images=limit)


@pytest.mark.parametrize(("images", "kept"), [(3, 3), (1000, 1000), (1014, 1000)])
def test_authors_dev_keeps_5000_captions(tmp_path: Path, images: int, kept: int) -> None:
    write_split(tmp_path, images=images, ids=[str(number) for number in range(images)])
    opened = open_precomp(tmp_path, "dev", authors_dev=True)
    assert opened.images == kept
    assert len(opened.captions) == len(opened.image_of_caption) == kept * 5
    assert opened.ids is not None
    assert len(opened.ids) == kept
    assert open_precomp(tmp_path, "dev").images == images


def test_authors_dev_comes_before_the_limit(tmp_path: Path) -> None:
    write_split(tmp_path, images=1014)
    with pytest.raises(DataError, match=r"1 … 1000.*got 1001"):
        open_precomp(tmp_path, "dev", authors_dev=True, limit_images=1001)


def test_authors_dev_is_for_dev(tmp_path: Path) -> None:
    write_split(tmp_path, "test")
    with pytest.raises(DataError, match="expected the split dev, got test"):
        open_precomp(tmp_path, "test", authors_dev=True)


def test_real_split(shared: Path) -> None:
    folder = shared / "data/f8k_precomp"
    assert list_splits(folder) == ["dev", "train"]
    opened = open_precomp(folder, "dev")
    assert opened.regions.shape == (1000, 36, 256)
    assert opened.regions.dtype == np.float16
    assert len(opened.captions) == 5000
    assert opened.ids is not None
    assert opened.ids[0] == "2090545563_a4e66ec76b.jpg"
    assert opened.captions[0].startswith("the boy laying face down on a skateboard")
