"""Encoded galleries on disk come back as they were, and only to the bundle that made them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.onnx_bundles import write_bundle
from support.refusals import ANY, naming, refused
from support.scorers import CAPTIONS, Faked, assert_similarities

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.runtime import Scorer, load

pytestmark = pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")

MakeFaked = Callable[..., Faked]


def rewrite(path: Path, **changes: Any) -> None:
    """Write a gallery file again with some arrays changed, left out (None) or added."""
    with np.load(path) as file:
        arrays = {**file, **changes}
    with path.open("wb") as target:
        np.savez(target, **{name: a for name, a in arrays.items() if a is not None})


def header_of(path: Path) -> dict[str, Any]:
    with np.load(path) as file:
        found: dict[str, Any] = json.loads(str(file["sgraf_gallery"]))
    return found


def test_what_was_saved_scores_the_same(
    scorer: Scorer, regions: NDArray[np.float32], tmp_path: Path
) -> None:
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    one = scorer.load_images(scorer.save_encoded(images, tmp_path / "images"))
    two = scorer.load_captions(scorer.save_encoded(captions, tmp_path / "captions.npz"))
    assert sorted(os.listdir(tmp_path)) == ["captions.npz", "images"]
    assert (len(one), len(two)) == (9, 7)
    assert (one.nbytes, two.nbytes) == (images.nbytes, captions.nbytes)
    assert np.array_equal(scorer.score(one, two), scorer.score(images, captions))


def test_a_part_is_saved_alone(
    faked: MakeFaked, regions: NDArray[np.float32], tmp_path: Path
) -> None:
    scorer = faked().scorer
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    one = scorer.load_images(scorer.save_encoded(images[2:4], tmp_path / "images"))
    two = scorer.load_captions(scorer.save_encoded(captions[[3, 1]], tmp_path / "captions"))
    assert two.padding_row == captions.lengths[[3, 1]].sum()
    expected = scorer.score(images, captions)[2:4, [3, 1]]
    assert_similarities(scorer.score(one, two), expected)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_another_engine_reads_it(
    faked: MakeFaked,
    bundle: Bundle,
    regions: NDArray[np.float32],
    tmp_path: Path,
    precision: Any,
) -> None:
    made = faked(precision=precision)
    path = made.scorer.save_encoded(made.scorer.encode_images(regions), tmp_path / "images")
    assert header_of(path)["encoding"]["executed"] == made.engine.executed
    with load(bundle, engine="ort", precision=precision) as other:
        found = other.score(other.load_images(path), CAPTIONS)
    assert_similarities(found, made.scorer.score(regions, CAPTIONS), precision)


def test_an_empty_gallery_is_one(faked: MakeFaked, tmp_path: Path) -> None:
    scorer = faked().scorer
    images = scorer.encode_images(np.zeros((0, 4, 6), np.float32))
    assert len(scorer.load_images(scorer.save_encoded(images, tmp_path / "none"))) == 0
    captions = scorer.encode_captions([])
    assert len(scorer.load_captions(scorer.save_encoded(captions, tmp_path / "none"))) == 0


def test_another_bundle_of_the_same_encoders_reads_it(
    faked: MakeFaked, bundle: Bundle, regions: NDArray[np.float32], tmp_path: Path
) -> None:
    scorer = faked().scorer
    path = scorer.save_encoded(scorer.encode_images(regions), tmp_path / "images")
    other = faked(of=write_bundle(tmp_path / "other.sgraf", name="other")).scorer
    assert other.bundle.sha256 != bundle.sha256
    found = other.score(other.load_images(path), CAPTIONS)
    assert np.array_equal(found, scorer.score(regions, CAPTIONS))


def test_other_encoders_and_precisions_are_refused(
    faked: MakeFaked, regions: NDArray[np.float32], tmp_path: Path
) -> None:
    scorer = faked().scorer
    path = scorer.save_encoded(scorer.encode_images(regions), tmp_path / "images")
    header = header_of(path)
    header["encoding"]["members"]["saf"]["image_norm"] = "false"
    rewrite(tmp_path / "images", sgraf_gallery=np.array(json.dumps(header)))
    with refused(DataError, path, "image_norm", "saf", expected="true", got="false", hint="images"):
        scorer.load_images(path)
    scorer.save_encoded(scorer.encode_images(regions), path)
    with refused(DataError, path, "precision", expected="fp16", got="fp32", hint="images"):
        faked(precision="fp16").scorer.load_images(path)
    with refused(DataError, path, "kind", expected="captions", got="images"):
        scorer.load_captions(path)


@pytest.mark.parametrize("kind", ["images", "captions"])
def test_a_file_of_format_1_is_read_by_its_bundle_alone(
    faked: MakeFaked, regions: NDArray[np.float32], bundle: Bundle, tmp_path: Path, kind: str
) -> None:
    scorer = faked().scorer
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    path = scorer.save_encoded(images if kind == "images" else captions, tmp_path / "old")
    old = {"format": 1, "kind": kind, "bundle": bundle.sha256, "precision": "fp32"}
    rewrite(path, sgraf_gallery=np.array(json.dumps(old | {"executed": "another"})))
    right = scorer.score(images, captions)
    if kind == "images":
        assert np.array_equal(scorer.score(scorer.load_images(path), captions), right)
    else:
        assert np.array_equal(scorer.score(images, scorer.load_captions(path)), right)
    assert scorer.read_saved(path).encoding.executed == "another"
    other = write_bundle(tmp_path / "other.sgraf", name="other")
    with refused(DataError, path, "bundle", expected=other.sha256, got=naming(bundle.sha256)):
        faked(of=other).scorer.read_saved(path)


def test_rows_are_read_for_another_store(
    faked: MakeFaked, regions: NDArray[np.float32], tmp_path: Path
) -> None:
    scorer = faked().scorer
    images, captions = scorer.encode_images(regions), scorer.encode_captions(CAPTIONS)
    saved = scorer.read_saved(scorer.save_encoded(images, tmp_path / "images"))
    assert (saved.encoding, saved.lengths) == (images.encoding, None)
    texts = scorer.read_saved(scorer.save_encoded(captions, tmp_path / "captions"))
    assert texts.encoding == captions.encoding
    assert texts.lengths is not None
    assert np.array_equal(texts.lengths, captions.lengths)
    for found, made in (saved.arrays, images.to_host()), (texts.arrays, captions.to_host()):
        assert {member: set(arrays) for member, arrays in found.items()} == {
            member: set(arrays) for member, arrays in made.items()
        }
        for member, arrays in made.items():
            for name, array in arrays.items():
                assert np.array_equal(found[member][name], array), (member, name)


@pytest.mark.filterwarnings("error::DeprecationWarning")
def test_the_old_methods_are_deprecated(
    faked: MakeFaked, regions: NDArray[np.float32], tmp_path: Path
) -> None:
    scorer = faked().scorer
    for encoded, load_again in (
        (scorer.encode_images(regions), scorer.load_images),
        (scorer.encode_captions(CAPTIONS), scorer.load_captions),
    ):
        with pytest.warns(DeprecationWarning, match="--from-npz") as warned:
            path = scorer.save_encoded(encoded, tmp_path / "saved")
        assert warned[0].filename == __file__
        with pytest.warns(DeprecationWarning, match="--from-npz") as warned:
            load_again(path)
        assert warned[0].filename == __file__
        scorer.read_saved(path)


F32 = np.float32

FOREIGN: list[tuple[dict[str, Any], str, Any, Any]] = [
    ({"sgr.image_global": np.zeros((9, 8))}, "sgr.image_global", naming("(9, 8)"), ANY),
    (
        {"sgr.image_global": np.zeros((8, 8), F32)},
        "sgr.image_global",
        naming("(9, 8)"),
        naming("float32", "(8, 8)"),
    ),
    (
        {"saf.image_global": np.zeros((9, 8), F32)},
        "saf.image_global",
        naming("(9, 9)"),
        naming("float32", "(9, 8)"),
    ),
    ({"saf.image_global": None}, "saf.image_global", naming(), naming()),
    (
        {"saf.image_global": np.array([{}], dtype=object)},
        "saf.image_global",
        naming("(9, 9)"),
        naming("object", "(1,)"),
    ),
    ({"sgraf_gallery": None}, "sgraf_gallery", naming(), naming()),
    ({"sgraf_gallery": np.array("dog")}, "JSON", naming("UTF-8"), naming("line 1")),
    ({"sgraf_gallery": np.array("[1]")}, "gallery", naming(), "[1]"),
    ({"sgraf_gallery": np.array("{}")}, "format", None, None),
    ({"sgraf_gallery": np.array('{"format": 3}')}, "format", naming(1, 2), 3),
]
"""What is changed, what the error names, and what was expected and got."""


@pytest.mark.parametrize(
    ("change", "name", "expected", "got"), FOREIGN, ids=[next(iter(row[0])) for row in FOREIGN]
)
def test_a_foreign_file_is_refused(
    faked: MakeFaked,
    regions: NDArray[np.float32],
    tmp_path: Path,
    change: dict[str, Any],
    name: str,
    expected: Any,
    got: Any,
) -> None:
    scorer = faked().scorer
    path = scorer.save_encoded(scorer.encode_images(regions), tmp_path / "images")
    rewrite(path, **change)
    with refused(DataError, path, name, expected=expected, got=got, hint="save_encoded") as caught:
        scorer.load_images(path)
    assert "\n" not in str(caught.error)


@pytest.mark.parametrize(
    ("lengths", "name", "expected", "got"),
    [
        (np.array([3, 0], np.int32), "lengths", naming(1), 0),
        (np.array([3, 4], np.int64), "lengths", naming("int32", "(2,)"), naming("int64")),
        (np.array([[3, 4]], np.int32), "lengths", naming("int32", "(1,)"), naming("(1, 2)")),
        (np.array([3, 5], np.int32), "sgr.word_embeddings", naming("(9, 8)"), naming("(8, 8)")),
    ],
    ids=["empty", "int64", "two-dimensional", "too-long"],
)
def test_wrong_lengths_are_refused(
    faked: MakeFaked, tmp_path: Path, lengths: Any, name: str, expected: Any, got: Any
) -> None:
    scorer = faked().scorer
    path = scorer.save_encoded(scorer.encode_captions([[1, 2, 3], [4, 5, 6, 7]]), tmp_path / "c")
    rewrite(path, lengths=lengths)
    with refused(DataError, path, name, expected=expected, got=got):
        scorer.load_captions(path)


@pytest.mark.parametrize("content", [b"", b"dog", b"PK\x03\x04dog"], ids=["empty", "text", "torn"])
def test_a_file_of_something_else_is_refused(
    faked: MakeFaked, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "images"
    path.write_bytes(content)
    with refused(DataError, path, got=naming("BadZipFile")):
        faked().scorer.load_images(path)


def test_an_array_file_is_refused(faked: MakeFaked, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", np.zeros(3))
    with refused(DataError, tmp_path / "images.npy", got=naming("BadZipFile")):
        faked().scorer.load_images(tmp_path / "images.npy")


def test_a_flipped_bit_is_noticed(
    faked: MakeFaked, regions: NDArray[np.float32], tmp_path: Path
) -> None:
    scorer = faked().scorer
    path = scorer.save_encoded(scorer.encode_images(regions), tmp_path / "images")
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with refused(DataError, path, got=naming("BadZipFile", "CRC-32")):
        scorer.load_images(path)


def test_a_missing_file_is_named(faked: MakeFaked, tmp_path: Path) -> None:
    with refused(DataError, tmp_path / "nothing", got=None, hint="save_encoded"):
        faked().scorer.load_captions(tmp_path / "nothing")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(
    faked: MakeFaked, regions: NDArray[np.float32], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = faked().scorer
    images = scorer.encode_images(regions)
    path = scorer.save_encoded(images[:2], tmp_path / "images")
    before = path.read_bytes()

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", fail)
    with refused(InputError, path, got="No space left on device"):
        scorer.save_encoded(images, path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["images"]


def test_a_gallery_takes_the_place_of_files_alone(faked: MakeFaked, tmp_path: Path) -> None:
    scorer = faked().scorer
    captions = scorer.encode_captions(CAPTIONS)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("file")
    with refused(InputError, tmp_path / "pipe", got=naming("pipe")):
        scorer.save_encoded(captions, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    scorer.save_encoded(captions, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert sorted(os.listdir(tmp_path)) == ["file", "link", "pipe"]


def test_a_reader_of_the_old_file_is_not_disturbed(faked: MakeFaked, tmp_path: Path) -> None:
    scorer = faked().scorer
    path = scorer.save_encoded(scorer.encode_captions(CAPTIONS), tmp_path / "captions")
    before = path.read_bytes()
    with path.open("rb") as reader:
        scorer.save_encoded(scorer.encode_captions(CAPTIONS[:2]), path)
        assert reader.read() == before
    assert len(scorer.load_captions(path)) == 2


def test_a_folder_that_is_not_there_is_an_error(faked: MakeFaked, tmp_path: Path) -> None:
    scorer = faked().scorer
    path = tmp_path / "none" / "captions"
    with refused(InputError, path, got=naming(path.parent)):
        scorer.save_encoded(scorer.encode_captions(CAPTIONS), path)


def test_another_scorers_gallery_is_not_saved(faked: MakeFaked, tmp_path: Path) -> None:
    captions = faked().scorer.encode_captions(CAPTIONS)
    with refused(InputError, "captions", expected=None, hint=naming()):
        faked().scorer.save_encoded(captions, tmp_path / "captions")
