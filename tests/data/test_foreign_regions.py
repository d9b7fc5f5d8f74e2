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
from support.hinted import type_python
from support.refusals import check_error, naming, refused

from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.data.regions import open_regions
from sgraf_deploy.errors import DataError, SgrafDeployError
from sgraf_deploy.formats import recognise

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


REMEDIES: dict[str, tuple[Write, naming]] = {
    "npz": (npz(), naming(".npz", "'features'", "(4, 3, 5)", "<f4")),
    "npz-compressed": (compressed_npz, naming(".npz", "'arr_0'")),
    "npz-with-boxes": (npz(boxes=np.zeros((4, 3, 4))), naming("'boxes'", "(4, 3, 4)", "<f8")),
    "npz-with-ids": (npz(ids=np.arange(4)), naming("'ids'", "(4,)", "<i8")),
    "pytorch": (pytorch, naming("PyTorch")),
    "pytorch-of-old": (old_pytorch, naming("PyTorch")),
    "safetensors": (safetensors, naming("safetensors")),
}


@pytest.mark.parametrize("named", ["npy", "own"])
@pytest.mark.parametrize(("write", "got"), REMEDIES.values(), ids=REMEDIES)
def test_a_container_is_named_and_unpacked(
    tmp_path: Path, write: Write, got: naming, named: str
) -> None:
    target = tmp_path / "dev_ims.npy"
    source = target if named == "npy" else tmp_path / "dev_ims.data"
    write(source, FEATURES)
    (tmp_path / "dev_caps.txt").write_text("a caption\n" * 20)

    place = target if named == "npy" else tmp_path
    with refused(DataError, place, got=got, hint=[source.name, target.name]) as found:
        open_precomp(tmp_path, "dev", model=MODEL)

    if source != target:
        check_error(found.error, expected=target.name, got=naming(source.name))
    type_python(found.error)
    np.testing.assert_array_equal(open_precomp(tmp_path, "dev", model=MODEL).regions, FEATURES)


def test_a_container_of_transposed_regions_is_put_right_too(tmp_path: Path) -> None:
    path = tmp_path / "dev_ims.npy"
    npz()(path, FEATURES.transpose(0, 2, 1))
    with refused(DataError, path) as found:
        open_regions(path, MODEL)
    type_python(found.error)
    np.testing.assert_array_equal(open_regions(path, MODEL), FEATURES)


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_features_in_base64_are_named_and_decoded(tmp_path: Path) -> None:
    path = tmp_path / "dev  ims.npy"  # two spaces, which a message would make one of
    bottom_up(path, FEATURES)
    with refused(DataError, got=naming("base64")) as found:
        open_regions(path, (3, 60))
    type_python(found.error)
    assert open_regions(path, (3, 60)).shape == (4, 3, 60)
    bottom_up(path, FEATURES)
    with refused(DataError, got=naming("base64"), hint=["float32", path.name, "numpy.save"]):
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
    with refused(DataError, path) as found:
        open_regions(path, MODEL)
    type_python(found.error)
    assert open_regions(path, MODEL).shape == FEATURES.shape


def test_images_of_different_numbers_of_regions_are_filled_up(tmp_path: Path) -> None:
    several = np.empty(2, dtype=object)
    several[0], several[1] = FEATURES[0, :2], np.concatenate([FEATURES[1], FEATURES[2]])
    path = tmp_path / "dev_ims.npy"
    np.save(path, several, allow_pickle=True)
    error = open_error(path)
    check_error(error, expected=naming(3), got=naming("|O"), hint="allow_pickle")
    type_python(error)
    opened = open_regions(path, MODEL)
    np.testing.assert_array_equal(opened[1], FEATURES[1])
    np.testing.assert_array_equal(opened[0], [*FEATURES[0, :2], np.zeros(5)])


def open_error(path: Path) -> SgrafDeployError:
    with refused(DataError, path) as found:
        open_regions(path, MODEL)
    assert str(found.error).isprintable()
    assert found.error.hint
    return found.error


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


NOISE = b"\xfe\x01\x02\x03" * 50

NAMED: dict[str, tuple[bytes, list[object], list[str]]] = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid x\n", ["Git LFS"], ["git lfs pull"]),
    "html": (b"<!DOCTYPE html><html>Google Drive", ["HTML"], []),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 50, ["HDF5"], ["h5py.File"]),
    "matlab": (b"MATLAB 5.0 MAT-file, Platform" + b"\0" * 99, ["MATLAB"], ["scipy.io"]),
    "gzip": (gzip.compress(b"\x93NUMPY" * 9), ["gzip"], ["gzip", "dev_ims.npy"]),
    "tar": (tar(b"\x93NUMPY"), ["tar"], ["tar", "dev_ims.npy"]),
    "zip": (zipped("dev/readme.txt", b"text"), ["zip", "dev/readme.txt"], ["dev_ims.npy"]),
    "zip-damaged": (b"PK\x03\x04" + b"x" * 50, ["zip"], []),
    "npz-damaged": (zipped("a.npy", b"\x93NUM"), ["zip"], []),
    "npz-empty": (zipped("a.txt", b"")[-22:], ["zip"], []),
    "pickle": (pickle.dumps(FEATURES), ["pickle"], ["numpy.save"]),
    "pickle-of-python-2": (pickle.dumps(FEATURES, 0), ["pickle"], ["numpy.save"]),
    "onnx": (b"\x08\x07\x12\x07pytorch", ["ONNX"], ["numpy.save"]),
    "picture": (b"\xff\xd8\xff\xe0", ["JPEG"], ["numpy.save"]),
    "text": (b"0.1 0.2 0.3\n", [repr(b"0.1 0.2 0.3")], ["numpy.save"]),
    "noise": (NOISE, [repr(NOISE[:40])], ["numpy.save"]),
    "cut-magic": (b"\x93NUM", [repr(b"\x93NUM")], ["numpy.save"]),
}


@pytest.mark.parametrize("model", [MODEL, None], ids=["model", "any"])
@pytest.mark.parametrize(("content", "names", "hint"), NAMED.values(), ids=NAMED)
def test_what_is_no_array_is_named(
    tmp_path: Path,
    content: bytes,
    names: list[object],
    hint: list[str],
    model: tuple[int, int] | None,
) -> None:
    path = tmp_path / "dev_ims.npy"
    path.write_bytes(content)
    with refused(DataError, path, got=naming(*names), hint=hint) as found:
        open_regions(path, model)
    assert str(found.error).isprintable()
    assert hint or "numpy.save" not in str(found.error.hint)  # a copy would be as damaged


@pytest.mark.parametrize("content", [b"", bytes(300)], ids=["empty", "zeros"])
def test_a_file_of_nothing_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dev_ims.npy"
    path.write_bytes(content)
    known = recognise(content)
    assert known is not None
    with refused(DataError, path, got=known.name, hint=[]):
        open_regions(path, MODEL)


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
