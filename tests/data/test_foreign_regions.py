"""Files in place of region features are named, and what the hint says to type puts them right."""

from __future__ import annotations

import base64
import gzip
import io
import pickle
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.hinted import type_python

from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.data.regions import open_regions
from sgraf_deploy.errors import DataError

MODEL = (3, 5)
FEATURES = np.random.default_rng(7).standard_normal((4, *MODEL), dtype=np.float32)

Write = Callable[[Path, np.ndarray[Any, Any]], object]


def npz(**others: Any) -> Write:
    def write(path: Path, features: np.ndarray[Any, Any]) -> None:
        with path.open("wb") as file:
            np.savez(file, features=features, **others)

    return write


def compressed_npz(path: Path, features: np.ndarray[Any, Any]) -> None:
    with path.open("wb") as file:
        np.savez_compressed(file, features)


def pytorch(path: Path, features: np.ndarray[Any, Any]) -> None:
    import torch

    torch.save(torch.from_numpy(features.copy()), path)


def old_pytorch(path: Path, features: np.ndarray[Any, Any]) -> None:
    import torch

    tensor = torch.from_numpy(features.copy())
    torch.save(tensor, path, _use_new_zipfile_serialization=False)


def safetensors(path: Path, features: np.ndarray[Any, Any]) -> None:
    from safetensors.numpy import save_file

    save_file({"NAME": np.ascontiguousarray(features)}, path)


def bottom_up(path: Path, features: np.ndarray[Any, Any]) -> None:
    """As bottom-up attention writes them: id, width, height, number, boxes, features."""
    wide = np.concatenate([features] * 12, axis=2) if features.shape[2] < 60 else features
    rows = (
        b"\t".join([b"%d" % row, b"640", b"480", b"3", base64.b64encode(boxes), text])
        for row, image in enumerate(wide)
        for boxes, text in [(np.zeros((3, 4), np.float32).tobytes(), base64.b64encode(image))]
    )
    path.write_bytes(b"\n".join(rows) + b"\n")


MENDED: dict[str, tuple[Write, str]] = {
    "npz": (npz(), "an .npz archive of 'features' (4, 3, 5) <f4"),
    "npz-compressed": (compressed_npz, "an .npz archive of 'arr_0'"),
    "npz-with-boxes": (npz(boxes=np.zeros((4, 3, 4))), "'boxes' (4, 3, 4) <f8"),
    "npz-with-ids": (npz(ids=np.arange(4)), "'ids' (4,) <i8"),
    "pytorch": (pytorch, "a PyTorch file"),
    "pytorch-of-old": (old_pytorch, "a PyTorch file"),
    "safetensors": (safetensors, "a safetensors file"),
}


@pytest.mark.parametrize("named", ["npy", "own"])
@pytest.mark.parametrize(("write", "name"), MENDED.values(), ids=MENDED)
def test_a_container_is_named_and_unpacked(
    tmp_path: Path, write: Write, name: str, named: str
) -> None:
    target = tmp_path / "dev_ims.npy"
    source = target if named == "npy" else tmp_path / "dev_ims.data"
    write(source, FEATURES)
    (tmp_path / "dev_caps.txt").write_text("a caption\n" * 20)

    with pytest.raises(DataError, match=r"dev_ims\.npy") as caught:
        open_precomp(tmp_path, "dev", model=MODEL)

    assert name in caught.value.reason
    assert source.name in str(caught.value)
    mend = (caught.value.mend or "").partition(", NAME being")[0]
    type_python(DataError("", mend=mend))
    np.testing.assert_array_equal(open_precomp(tmp_path, "dev", model=MODEL).regions, FEATURES)


def test_a_container_of_transposed_regions_is_put_right_too(tmp_path: Path) -> None:
    path = tmp_path / "dev_ims.npy"
    npz()(path, FEATURES.transpose(0, 2, 1))
    with pytest.raises(DataError) as caught:
        open_regions(path, MODEL)
    type_python(caught.value)
    np.testing.assert_array_equal(open_regions(path, MODEL), FEATURES)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_features_in_base64_are_named_and_decoded(tmp_path: Path) -> None:
    path = tmp_path / "dev  ims.npy"  # two spaces, which a message would make one of
    bottom_up(path, FEATURES)
    with pytest.raises(DataError, match="a table with features in base64") as caught:
        open_regions(path, (3, 60))
    type_python(caught.value)
    assert open_regions(path, (3, 60)).shape == (4, 3, 60)
    bottom_up(path, FEATURES)
    with pytest.raises(DataError, match=r"in base64.*float32 of shape"):
        open_regions(path)


@pytest.mark.parametrize(
    "array",
    [
        FEATURES.transpose(0, 2, 1),
        FEATURES.astype(">f8").transpose(0, 2, 1),
        FEATURES[:, :, None],
        FEATURES.reshape(4, -1),
        np.round(FEATURES).astype(np.int16),
        np.asfortranarray(np.round(FEATURES).astype(np.int64)),
        FEATURES > 0,
    ],
    ids=["transposed", "big-endian", "axis-of-one", "in-a-row", "int16", "int64", "booleans"],
)
def test_the_line_of_the_hint_puts_a_file_in_order(
    tmp_path: Path, array: np.ndarray[Any, Any]
) -> None:
    path = tmp_path / "it's dev_ims.npy"
    np.save(path, array)
    with pytest.raises(DataError, match=r"dev_ims\.npy") as caught:
        open_regions(path, MODEL)
    type_python(caught.value)
    assert open_regions(path, MODEL).shape == FEATURES.shape


def test_images_of_different_numbers_of_regions_are_filled_up(tmp_path: Path) -> None:
    several = np.empty(2, dtype=object)
    several[0], several[1] = FEATURES[0, :2], np.concatenate([FEATURES[1], FEATURES[2]])
    path = tmp_path / "dev_ims.npy"
    np.save(path, several, allow_pickle=True)
    error = open_error(path)
    assert "Python objects" in error.reason
    assert "3 regions of each image" in error.reason
    assert "if you trust" in (error.mend or "")
    type_python(error)
    opened = open_regions(path, MODEL)
    np.testing.assert_array_equal(opened[1], FEATURES[1])
    np.testing.assert_array_equal(opened[0], [*FEATURES[0, :2], np.zeros(5)])


def open_error(path: Path) -> DataError:
    with pytest.raises(DataError) as caught:
        open_regions(path, MODEL)
    message = str(caught.value)
    assert message.isprintable()
    assert path.name in message
    assert caught.value.mend
    return caught.value


def tar(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        information = tarfile.TarInfo("dev_ims.npy")
        information.size = len(content)
        archive.addfile(information, io.BytesIO(content))
    return buffer.getvalue()


def zipped(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


NAMED: dict[str, tuple[bytes, str, str]] = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid x\n", "a Git LFS pointer", "lfs"),
    "html": (b"<!DOCTYPE html><html>Google Drive", "an HTML page", "download it again"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, "an HDF5 file", "h5py.File("),
    "matlab": (b"MATLAB 5.0 MAT-file, Platform" + b"\0" * 99, "a MATLAB file", "scipy.io"),
    "gzip": (gzip.compress(b"\x93NUMPY" * 9), "compressed with gzip", "named dev_ims.npy"),
    "tar": (tar(b"\x93NUMPY"), "a tar archive", "named dev_ims.npy"),
    "zip": (zipped("dev/readme.txt", b"text"), "a zip archive of dev/readme.txt", "unpack"),
    "zip-damaged": (b"PK\x03\x04" + b"x" * 50, "a damaged zip archive", "again"),
    "npz-damaged": (zipped("a.npy", b"\x93NUM"), "a damaged zip archive", "again"),
    "npz-empty": (zipped("a.txt", b"")[-22:], "a damaged zip archive", "again"),
    "pickle": (pickle.dumps(FEATURES), "a pickle, which is not read", "numpy.save"),
    "pickle-of-python-2": (pickle.dumps(FEATURES, 0), "a pickle, which is not read", "numpy.save"),
    "onnx": (b"\x08\x07\x12\x07pytorch", "an ONNX model", "numpy.save"),
    "picture": (b"\xff\xd8\xff\xe0", "a picture (JPEG)", "numpy.save"),
    "text": (b"0.1 0.2 0.3\n", "text that begins", "numpy.save"),
    "empty": (b"", "an empty file", "again"),
    "zeros": (bytes(300), "a file of zero bytes", "again"),
    "noise": (b"\xfe\x01\x02\x03" * 50, "bytes that begin", "numpy.save"),
    "cut-magic": (b"\x93NUM", "bytes that begin", "numpy.save"),
}


@pytest.mark.parametrize("model", [MODEL, None], ids=["model", "any"])
@pytest.mark.parametrize(("content", "name", "mend"), NAMED.values(), ids=NAMED)
def test_what_is_no_array_is_named(
    tmp_path: Path, content: bytes, name: str, mend: str, model: tuple[int, int] | None
) -> None:
    path = tmp_path / "dev_ims.npy"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"dev_ims\.npy is not a \.npy file") as caught:
        open_regions(path, model)
    assert f"got {name}" in caught.value.reason or name in caught.value.reason
    assert mend in (caught.value.mend or "")
    assert str(caught.value).isprintable()


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[object, ...]:
            return exec, ("raise AssertionError('it ran')",)

    several = np.empty(1, dtype=object)
    several[0] = Hostile()
    path = tmp_path / "dev_ims.npy"
    path.write_bytes(pickle.dumps(Hostile()))
    open_error(path)
    np.save(path, several, allow_pickle=True)
    open_error(path)
    npz(more=several)(path, FEATURES)
    open_error(path)
    npz()(path, several)
    open_error(path)
