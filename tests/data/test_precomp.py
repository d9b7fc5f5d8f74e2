from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.located import line_of
from support.refusals import holds, naming, refused

from sgraf_deploy.data.precomp import list_splits, open_images, open_precomp
from sgraf_deploy.errors import DataError, InputError


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
    per_image: int = 5,
) -> np.ndarray[Any, Any]:
    """Write a split and return its features, each image once."""
    once = image_features(images)
    np.save(folder / f"{split}_ims.npy", np.repeat(once, repeat, axis=0))
    number = captions or images * per_image
    lines = [f"image {i // per_image} caption {i % per_image}" for i in range(number)]
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
    files = tmp_path / "dev_ims.npy", tmp_path / "dev_caps.txt"
    with refused(DataError, *files, 150, expected=naming(5), got=naming(row, first)):
        open_precomp(tmp_path, "dev")


def test_one_image_per_caption_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, images=500, captions=500)
    with refused(DataError, expected=naming(5), got=naming(1, 0), hint="--captions-per-image 1"):
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
    files = tmp_path / "dev_ims.npy", tmp_path / "dev_caps.txt"
    with refused(DataError, *files, got=naming(images, captions)):
        open_precomp(tmp_path, "dev")


def test_a_missing_split_lists_those_that_exist(tmp_path: Path) -> None:
    for split in ("train", "dev", "testall"):
        write_split(tmp_path, split)
    (tmp_path / "half_ims.npy").touch()
    assert list_splits(tmp_path) == ["dev", "testall", "train"]
    got = naming("dev", "testall", "train")
    with refused(DataError, tmp_path, "'test'", got=got, hint="testall"):
        open_precomp(tmp_path, "test")


@pytest.mark.parametrize("missing", ["dev_ims.npy", "dev_caps.txt"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    write_split(tmp_path, "dev")
    (tmp_path / missing).unlink()
    with refused(DataError, tmp_path, "'dev'", expected=missing, hint=None):
        open_precomp(tmp_path, "dev")


def test_a_split_outside_the_folder_is_refused(tmp_path: Path) -> None:
    write_split(tmp_path, "dev")
    (tmp_path / "sub").mkdir()
    with refused(DataError, "'../dev'", expected=naming(tmp_path / "sub")):
        open_precomp(tmp_path / "sub", "../dev")


@pytest.mark.parametrize(
    ("folder", "code"), [("absent", errno.ENOENT), ("file", errno.ENOTDIR)], ids=["absent", "file"]
)
def test_a_folder_that_is_none(tmp_path: Path, folder: str, code: int) -> None:
    (tmp_path / "file").touch()
    files, got = naming("SPLIT_ims.npy", "SPLIT_caps.txt"), os.strerror(code)
    with refused(DataError, tmp_path / folder, expected=files, got=got):
        open_precomp(tmp_path / folder, "dev")


def test_defects_of_the_files_come_through(tmp_path: Path) -> None:
    write_split(tmp_path)
    captions = tmp_path / "dev_caps.txt"
    captions.write_bytes(captions.read_bytes().replace(b"image 1 caption 2", b"caf\xe9"))
    with refused(DataError, captions, expected="UTF-8") as found:
        open_precomp(tmp_path, "dev")
    assert line_of(found.error, captions) == 8
    np.save(tmp_path / "dev_ims.npy", np.zeros((3, 2, 3), dtype=np.int64))
    with refused(DataError, tmp_path / "dev_ims.npy", got=naming("<i8")):
        open_precomp(tmp_path, "dev")


@pytest.mark.parametrize("repeat", [1, 5], ids=["once", "per-caption"])
def test_ids(tmp_path: Path, repeat: int) -> None:
    names = ["b.jpg", "a.jpg", "a.jpg"]
    write_split(tmp_path, ids=[name for name in names for _ in range(repeat)])
    assert open_precomp(tmp_path, "dev").ids == names
    assert open_precomp(tmp_path, "dev", limit_images=2).ids == names[:2]


BAD_NAMES: dict[str, tuple[bytes, list[object]]] = {
    "fewer": (b"a\nb\n", [3, 2]),
    "more": (b"a\nb\nc\nd\n", [3, 4]),
    "one-per-caption": (b"".join(b"%d\n" % row for row in range(15)), [3, 15]),
    "blank-line": (b"a\n\nc\n", [2]),
    "utf-16": ("a\nb\nc\n".encode("utf-16"), ["UTF-16"]),
    "latin-1": (b"a\nb\xe9\nc\n", [2, "UTF-8", "0xe9"]),
    "empty": (b"", []),
}


@pytest.mark.parametrize(("content", "names"), BAD_NAMES.values(), ids=BAD_NAMES)
def test_names_that_do_not_match_are_left_out(
    tmp_path: Path, content: bytes, names: list[object]
) -> None:
    write_split(tmp_path)
    file = tmp_path / "dev_ids.txt"
    file.write_bytes(content)

    opened = open_precomp(tmp_path, "dev", limit_images=2)

    assert opened.ids is None
    (warning,) = opened.findings
    assert (warning.code, warning.is_warning) == ("names-left-out", True)
    assert holds(warning.message, file)
    said = warning.message.replace(str(file), "")
    assert [name for name in names if not holds(said, name)] == []
    assert open_images(tmp_path, "dev").findings == opened.findings


def test_names_that_match_are_not_spoken_of(tmp_path: Path) -> None:
    write_split(tmp_path, ids=["a", "b", "c", ""])
    assert open_precomp(tmp_path, "dev").findings == ()


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
    with refused(DataError, "dev", tmp_path, expected=naming(1, 3), got=limit):
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
    with refused(DataError, "dev", expected=naming(1, 1000), got=1001):
        open_precomp(tmp_path, "dev", authors_dev=True, limit_images=1001)


def test_authors_dev_is_for_dev(tmp_path: Path) -> None:
    write_split(tmp_path, "test")
    with refused(DataError, expected=naming("dev"), got="test"):
        open_precomp(tmp_path, "test", authors_dev=True)


PER_IMAGE = [1, 2, 3, 7]


@pytest.mark.parametrize("stored", ["once", "per-caption"])
@pytest.mark.parametrize("per_image", PER_IMAGE)
def test_any_number_of_captions_per_image(tmp_path: Path, per_image: int, stored: str) -> None:
    repeat = per_image if stored == "per-caption" else 1
    names = [f"{row}.jpg" for row in range(4) for _ in range(repeat)]
    once = write_split(tmp_path, images=4, repeat=repeat, per_image=per_image, ids=names)

    opened = open_precomp(tmp_path, "dev", captions_per_image=per_image)

    assert (opened.images, opened.captions_per_image) == (4, per_image)
    np.testing.assert_array_equal(opened.regions, once)
    assert opened.image_of_caption.tolist() == np.repeat(range(4), per_image).tolist()
    assert opened.ids == ["0.jpg", "1.jpg", "2.jpg", "3.jpg"]
    first = open_precomp(tmp_path, "dev", captions_per_image=per_image, limit_images=2)
    assert first.captions[-1] == f"image 1 caption {per_image - 1}"
    assert len(first.captions) == 2 * per_image


@pytest.mark.parametrize("given", [5, 4, 1, 2])
@pytest.mark.parametrize("per_image", [1, 2, 3, 7])
def test_the_number_that_fits_is_named(tmp_path: Path, per_image: int, given: int) -> None:
    if given == per_image:
        return
    write_split(tmp_path, images=4, per_image=per_image)
    files = tmp_path / "dev_ims.npy", tmp_path / "dev_caps.txt"
    with refused(DataError, *files, hint=f"--captions-per-image {per_image}") as found:
        open_precomp(tmp_path, "dev", captions_per_image=given)
    assert holds(found.error.reason.replace(str(tmp_path), ""), 4 * per_image)


@pytest.mark.parametrize("given", [5, 4, 1, 3])
@pytest.mark.parametrize("images", [1, 2, 6])
def test_the_number_of_rows_of_an_image_is_named(tmp_path: Path, images: int, given: int) -> None:
    write_split(tmp_path, images=images, repeat=2, per_image=2)
    if images == 1 and given == 1:
        return  # two rows that are one image, or two images alike
    per_image = 1 if images == 1 else 2  # all rows alike tell nothing
    with refused(DataError, hint=f"--captions-per-image {per_image}"):
        open_precomp(tmp_path, "dev", captions_per_image=given)


@pytest.mark.parametrize("given", [5, 4, 1, 3])
@pytest.mark.parametrize(("images", "times"), [(4, 5), (3, 4), (10, 2), (7, 3)])
def test_rows_that_are_repeated_as_a_whole_are_refused(
    tmp_path: Path, images: int, times: int, given: int
) -> None:
    once = write_split(tmp_path, images=images, per_image=times)
    np.save(tmp_path / "dev_ims.npy", np.concatenate([once] * times))
    told = given == 1 or images * times % given == 0 or given == times
    with refused(DataError, hint=[0, images - 1, times] if told else []) as found:
        open_precomp(tmp_path, "dev", captions_per_image=given)
    assert "--captions-per-image" not in str(found.error.hint)


def test_rows_beyond_the_captions_are_told_to_be_repeated(tmp_path: Path) -> None:
    write_split(tmp_path, images=6, repeat=4, captions=6)
    with refused(DataError, got=naming(24, 6), hint=4):
        open_precomp(tmp_path, "dev", captions_per_image=1)


def test_a_folder_in_place_of_the_features_is_named(tmp_path: Path) -> None:
    write_split(tmp_path)
    (tmp_path / "dev_ims.npy").unlink()
    (tmp_path / "dev_ims").mkdir()
    with refused(DataError, expected="dev_ims.npy", got=naming("dev_ims"), hint="dev_ims.npy"):
        open_precomp(tmp_path, "dev")


def test_equal_images_beside_others_are_images(tmp_path: Path) -> None:
    once = write_split(tmp_path, images=6, per_image=1)
    once[1] = once[0]
    once[5] = once[2]
    np.save(tmp_path / "dev_ims.npy", once)
    assert open_precomp(tmp_path, "dev", captions_per_image=1).images == 6


def test_zeros_are_not_taken_for_repeated_rows(tmp_path: Path) -> None:
    write_split(tmp_path, images=10, per_image=1)
    np.save(tmp_path / "dev_ims.npy", np.zeros((10, 2, 3), np.float32))
    assert open_precomp(tmp_path, "dev", captions_per_image=1).images == 10
    assert open_images(tmp_path, "dev").images == 10


@pytest.mark.parametrize("given", [0, -1])
def test_no_captions_per_image_are_refused(tmp_path: Path, given: int) -> None:
    write_split(tmp_path)
    with refused(InputError, expected=naming(1), got=given):
        open_precomp(tmp_path, "dev", captions_per_image=given)


@pytest.mark.parametrize(("per_image", "kept"), [(1, 1014), (5, 1000), (8, 625), (9, 555)])
def test_authors_dev_keeps_whole_images(tmp_path: Path, per_image: int, kept: int) -> None:
    write_split(tmp_path, images=1014, per_image=per_image, ids=[*map(str, range(1014))])
    opened = open_precomp(tmp_path, "dev", captions_per_image=per_image, authors_dev=True)
    assert (opened.images, len(opened.captions)) == (kept, kept * per_image)
    assert opened.ids == [str(number) for number in range(kept)]
    assert opened.findings == ()


@pytest.mark.parametrize("repeat", [1, 5], ids=["once", "five-fold"])
@pytest.mark.parametrize("captions", [None, b"", b"one\n", b"\xff\xfe"], ids=repr)
def test_images_need_no_captions(tmp_path: Path, captions: bytes | None, repeat: int) -> None:
    names = [f"{row}.jpg" for row in range(4) for _ in range(repeat)]
    once = write_split(tmp_path, images=4, repeat=repeat, ids=names)
    (tmp_path / "dev_caps.txt").unlink()
    if captions is not None:
        (tmp_path / "dev_caps.txt").write_bytes(captions)

    opened = open_images(tmp_path, "dev", limit_images=3)

    np.testing.assert_array_equal(opened.regions, once[:3])
    assert opened.ids == ["0.jpg", "1.jpg", "2.jpg"]
    assert (opened.captions, opened.image_of_caption.tolist()) == ([], [])
    with refused(DataError):
        open_precomp(tmp_path, "dev")
    with refused(DataError, "'test'", got=naming("dev")):
        open_images(tmp_path, "test")


@pytest.mark.parametrize(
    ("asked", "there", "likely"),
    [
        ("dev", ["val", "test"], "val"),
        ("val", ["dev", "train"], "dev"),
        ("validation", ["test", "val"], "val"),
        ("test", ["testall", "train"], "testall"),
        ("Test", ["dev", "test"], "test"),
        ("tset", ["dev", "test"], "test"),
        ("train", ["train_half", "dev"], "train_half"),
        ("zebra", ["dev", "test"], None),
        ("dev", [], None),
    ],
)
def test_the_split_that_was_meant_is_named(
    tmp_path: Path, asked: str, there: list[str], likely: str | None
) -> None:
    for split in there:
        write_split(tmp_path, split)
    with refused(DataError, repr(asked), got=naming(*there), hint=likely) as found:
        open_precomp(tmp_path, asked)
    others = [split for split in there if split != likely]
    assert not any(holds(str(found.error.hint), split) for split in others)


def test_features_that_do_not_fit_the_model_are_refused_at_once(tmp_path: Path) -> None:
    write_split(tmp_path)
    assert open_precomp(tmp_path, "dev", model=(2, 3)).images == 3
    path = tmp_path / "dev_ims.npy"
    got, hint = (3, 2, 3), "transpose(0, 2, 1)"
    with refused(DataError, path, expected=naming(3, 2), got=got, hint=hint):
        open_precomp(tmp_path, "dev", model=(3, 2))
    with refused(DataError, path, expected=naming(4, 3), got=got):
        open_images(tmp_path, "dev", model=(4, 3))


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
