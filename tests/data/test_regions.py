from __future__ import annotations

import errno
import io
import os
import random
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.closeness import assert_close
from support.refusals import ANY, holds, naming, refused

from sgraf_deploy.data import regions as module
from sgraf_deploy.data.regions import (
    check_regions,
    conversion_findings,
    open_regions,
    readable,
    region_statistics,
    spread,
)
from sgraf_deploy.errors import DataError


def features(images: int = 4, regions: int = 3, img_dim: int = 5) -> np.ndarray[Any, Any]:
    return np.random.default_rng(7).normal(size=(images, regions, img_dim)).astype(np.float32)


def npy(array: np.ndarray[Any, Any], version: tuple[int, int] | None = None) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)], ids=["v1", "v2", "v3"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_open_regions(tmp_path: Path, dtype: Any, version: tuple[int, int], order: Any) -> None:
    expected = np.asarray(features().astype(dtype), order=order)
    path = tmp_path / "dev_ims.npy"
    path.write_bytes(npy(expected, version))
    opened = open_regions(path)
    assert isinstance(opened, np.memmap)
    assert opened.dtype == dtype
    np.testing.assert_array_equal(opened, expected)
    with pytest.raises(ValueError, match="read-only"):
        opened[0] = 0


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, features())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "got", "hint"),
    [
        pytest.param(npy(features()[0]), "(3, 5)", [], id="two-axes"),
        pytest.param(npy(features()[None]), "(1, 4, 3, 5)", [], id="four-axes"),
        pytest.param(npy(np.array(1, dtype=np.float32)), "()", [], id="scalar"),
        pytest.param(npy(features().astype("<i4")), naming("<i4"), "astype", id="int32"),
        pytest.param(npy(features().astype("<c8")), naming("<c8"), [], id="complex"),
        pytest.param(npy(features().astype(object)), naming("|O"), "tolist", id="objects"),
        pytest.param(npy(features()[:0]), naming("(0, 3, 5)"), None, id="no-images"),
        pytest.param(npy(features()[:, :0]), naming("(4, 0, 5)"), None, id="no-regions"),
        pytest.param(npy(features()[:, :, :0]), naming("(4, 3, 0)"), None, id="no-dimension"),
        pytest.param(npz(), naming(".npz"), "numpy.save", id="npz"),
        pytest.param(b"", ANY, [], id="empty"),
        pytest.param(b"\x80\x04N.", naming("pickle"), "numpy.save", id="pickle"),
        pytest.param(
            npy(features()).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x04"), "4.0", None, id="v4"
        ),
    ],
)
def test_bad_region_files(tmp_path: Path, content: bytes, got: object, hint: Any) -> None:
    path = tmp_path / "dev_ims.npy"
    path.write_bytes(content)
    with refused(DataError, path, got=got, hint=hint):
        open_regions(path)


@pytest.mark.parametrize("cut", [367, 128], ids=["cut", "only-a-header"])
def test_a_file_that_is_too_short_is_named(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "dev_ims.npy"
    path.write_bytes(npy(features())[:cut])
    with refused(DataError, path, expected=naming(368, "(4, 3, 5)"), got=cut):
        open_regions(path)


def test_a_file_that_ends_in_its_header_is_named(tmp_path: Path) -> None:
    path = tmp_path / "dev_ims.npy"
    path.write_bytes(npy(features())[:60])
    with refused(DataError, path, expected=naming(".npy")):
        open_regions(path)


@pytest.mark.parametrize(
    "header",
    ["{[]: 1}", "if x:\n1\n", "  x\n y\n", "(" * 900, "-" * 9000 + "1", "{'descr': '<f4'}", "\x00"],
    ids=["unhashable", "statement", "indented", "nested", "deep", "keys-missing", "nul"],
)
def test_headers_that_do_not_parse(tmp_path: Path, header: str) -> None:
    path = tmp_path / "dev_ims.npy"
    content = header.encode("latin1")
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(content).to_bytes(2, "little") + content)
    with refused(DataError, path, got=repr(content[:60]), hint="numpy.save"):
        open_regions(path)


def test_a_second_array_behind_the_first_is_not_overlooked(tmp_path: Path) -> None:
    path = tmp_path / "dev_ims.npy"
    path.write_bytes(npy(features()) * 2)
    with refused(DataError, path, got=naming(368), hint="numpy.concatenate"):
        open_regions(path)
    path.write_bytes(npy(features()) + b"\0" * 50)
    assert open_regions(path).shape == (4, 3, 5)


@pytest.mark.parametrize(
    ("name", "code"), [("absent.npy", errno.ENOENT), (".", errno.EISDIR)], ids=["missing", "folder"]
)
def test_unreadable_region_files(tmp_path: Path, name: str, code: int) -> None:
    with refused(DataError, tmp_path / name, got=os.strerror(code)):
        open_regions(tmp_path / name)


def test_damaged_headers_are_opened_or_data_errors(tmp_path: Path) -> None:
    whole = npy(features())
    draw = random.Random(3)
    path = tmp_path / "dev_ims.npy"
    errors = 0
    for _ in range(400):
        damaged = bytearray(whole)
        for _ in range(draw.randint(1, 3)):
            damaged[draw.randrange(80)] = draw.randrange(256)
        path.write_bytes(damaged)
        try:
            assert open_regions(path).ndim == 3
        except DataError:
            errors += 1
    assert errors > 300


@pytest.mark.parametrize("dtype", ["<f4", "<f2", "<f8", ">f2", ">f4", ">f8"])
def test_check_accepts_what_fits(dtype: str) -> None:
    array = features().astype(dtype)
    expected = check_regions(array.astype(np.float32), 3, 5, "dev_ims.npy")
    assert check_regions(array, 3, 5, "dev_ims.npy") == expected


@pytest.mark.skipif(sys.byteorder == "big", reason="the other order is little there")
@pytest.mark.parametrize(
    ("dtype", "name"),
    [("<f8", "float64"), (">f8", "float64"), (">f4", "float32"), (">f2", "float16")],
)
def test_what_is_converted_is_noted(tmp_path: Path, dtype: str, name: str) -> None:
    np.save(tmp_path / "dev_ims.npy", features().astype(dtype))
    opened = open_regions(tmp_path / "dev_ims.npy")
    assert opened.dtype == np.dtype(dtype)  # nothing is read yet
    (note,) = conversion_findings(opened, "the regions")
    assert (note.code, note.is_warning) == ("converted-regions", False)
    assert holds(note.message, "the regions")
    assert holds(note.message, name)
    assert holds(note.message, "big-endian") == (dtype[0] == ">")
    assert conversion_findings(readable(opened), "the regions") == ()
    np.testing.assert_array_equal(readable(opened), features().astype(dtype).astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_read_as_it_is_is_not_copied(dtype: Any) -> None:
    array = features().astype(dtype)
    assert readable(array) is array
    assert conversion_findings(array, "the regions") == ()


@pytest.mark.parametrize("value", [1e39, -1e300, np.nan, np.inf])
def test_what_float32_cannot_hold_is_not_finite(value: float) -> None:
    array = features().astype(np.float64)
    array[2, 1, 3] = value
    for look in (lambda: check_regions(array, 3, 5, "f"), lambda: region_statistics(array)):
        with refused(DataError, "image 2", "region 1", got=naming(f"{value:g}")) as found:
            look()
        assert holds(str(found.error.got), "float32") == np.isfinite(value)


def test_statistics_of_what_is_not_finite_name_the_image() -> None:
    array = features(images=50)
    array[49, 0, 0] = np.nan
    with refused(DataError, "image 49", "region 0"):
        region_statistics(array, limit=10)


def test_statistics_are_those_of_what_the_model_reads() -> None:
    array = features(images=9)
    expected = region_statistics(array)
    assert region_statistics(array.astype(">f4")) == expected
    assert region_statistics(array.astype(np.float64)) == expected


@pytest.mark.parametrize(
    "array",
    [features(regions=2), features(img_dim=6), features()[0]],
    ids=["regions", "img-dim", "two-axes"],
)
def test_check_refuses_what_does_not_fit(array: np.ndarray[Any, Any]) -> None:
    with refused(DataError, "dev_ims.npy", expected=naming(3, 5), got=array.shape):
        check_regions(array, 3, 5, "dev_ims.npy")


def test_check_refuses_no_images_and_integers() -> None:
    with refused(DataError, "dev_ims.npy", "images", got=naming("(0, 3, 5)")):
        check_regions(features()[:0], 3, 5, "dev_ims.npy")
    with refused(DataError, "dev_ims.npy", got=naming("<i8"), hint="astype"):
        check_regions(features().astype("<i8"), 3, 5, "dev_ims.npy")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["nan", "inf", "minus-inf"])
@pytest.mark.parametrize("image", [0, 2, 6, 9], ids=lambda image: f"image-{image}")
def test_check_names_the_first_bad_image(
    monkeypatch: pytest.MonkeyPatch, dtype: Any, value: float, image: int
) -> None:
    # Chunks of three images: the row must count from the start of the array.
    monkeypatch.setattr(module, "CHUNK_BYTES", 3 * 3 * 5 * np.dtype(dtype).itemsize)
    array = features(images=10).astype(dtype)
    array[image, 1, 4] = value
    array[9, 2, 0] = np.nan
    with refused(DataError, "f", f"image {image}", "region 1"):
        check_regions(array, 3, 5, "f")


def test_check_accepts_a_view_of_every_fifth_row() -> None:
    array = features(images=10)
    array[6] = np.nan
    check_regions(array[::5], 3, 5, "f")
    array[5] = np.nan
    with refused(DataError, "image 1"):
        check_regions(array[::5], 3, 5, "f")


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8"])
def test_memory_of_check_and_statistics_is_bounded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: str
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 2**16)
    path = tmp_path / "big_ims.npy"
    np.save(path, np.ones((2000, 8, 64), dtype=dtype))
    opened = open_regions(path)
    tracemalloc.start()
    check_regions(opened, 8, 64, "f")
    region_statistics(opened, limit=2000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert opened.nbytes > 60 * 2**16
    assert peak < 10 * 2**16


@pytest.mark.parametrize("chunk", [1, 700, 2**25], ids=["row-by-row", "some-rows", "one-chunk"])
def test_statistics(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    array = (features(images=9) + 3).astype(np.float16)
    exact = array.astype(np.float64)
    found = region_statistics(array)
    for name, values in (("mean", exact.mean(axis=(0, 1))), ("std", exact.std(axis=(0, 1)))):
        assert found.pop(f"channel_{name}") == pytest.approx(values, rel=1e-5)
    assert found == pytest.approx(
        {
            "images": 9,
            "mean": exact.mean(),
            "std": exact.std(),
            "mean_norm": np.linalg.norm(exact, axis=2).mean(),
            "min": exact.min(),
            "max": exact.max(),
        },
        rel=1e-12,
    )
    assert [type(value) for value in found.values()] == [int, *[float] * 5]


@pytest.mark.parametrize(
    ("length", "limit", "indices"),
    [
        (1, 5, [0]),
        (5, 5, [0, 1, 2, 3, 4]),
        (5, 9, [0, 1, 2, 3, 4]),
        (11, 3, [0, 5, 10]),
        (10, 4, [0, 3, 6, 9]),
        (10, 1, [0]),
        (10, 0, [0]),
    ],
)
def test_spread(length: int, limit: int, indices: list[int]) -> None:
    assert spread(length, limit).tolist() == indices


def test_statistics_look_at_evenly_spread_images() -> None:
    array = np.arange(11, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), dtype=np.float32)
    found = region_statistics(array, limit=3)
    assert (found["images"], found["min"], found["max"]) == (3, 0.0, 10.0)
    assert found["mean"] == pytest.approx(5.0)


def test_real_features(shared: Path) -> None:
    opened = open_regions(shared / "data/f8k_precomp/dev_ims.npy")
    assert opened.shape == (1000, 36, 256)
    check_regions(opened, 36, 256, "dev_ims.npy")
    found = region_statistics(opened, limit=100)
    assert found["images"] == 100
    assert_close(found["mean_norm"], 4.0, depth=1, dtype=np.float16)  # rows were scaled to norm 4
