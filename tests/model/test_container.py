"""Files that are no checkpoint, or no longer one, are named for what they are."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import pickle
import re
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.authors_checkpoint import SGR, authors_payload
from support.refusals import check_error, holds, naming
from support.refusing import is_damaged, refusal

from sgraf_deploy.model.checkpoint import read_checkpoint


def checkpoint_bytes(**options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(authors_payload(SGR), buffer, **options)
    return buffer.getvalue()


def zip_of(members: dict[str, bytes], packed: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packed) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def members_of(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def tar_of(content: bytes, name: str = "run/model_best.pth.tar", **options: Any) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", **options) as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def old_tar() -> bytes:
    """Without a magic number, as tar wrote before POSIX."""
    content = bytearray(tar_of(b"x" * 600, format=tarfile.USTAR_FORMAT))
    content[257:265] = bytes(8)
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    return bytes(content)


def safetensors_bytes() -> bytes:
    from safetensors.numpy import save

    return save({"fc.weight": np.zeros(3, np.float32)})


def onnx_bytes() -> bytes:
    import onnx

    graph = onnx.helper.make_graph([], "empty", [], [])
    model = onnx.helper.make_model(graph, producer_name="pytorch")
    return bytes(model.SerializeToString())


def npy_bytes(save: Callable[..., None], *arrays: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    save(buffer, *arrays)
    return buffer.getvalue()


def torchscript_bytes() -> bytes:
    members = {"m/data.pkl": b"\x80\x02N.", "m/constants.pkl": b"\x80\x02)."}
    return zip_of({**members, "m/code/__torch__.py": b""}, zipfile.ZIP_STORED)


def with_password() -> bytes:
    content = bytearray(zip_of({"model.pth": b"x" * 50}))
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)
QUOTA = (
    b"\n<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title></head><body>"
)

OTHER_FILES: dict[str, tuple[Callable[[], bytes], tuple[object, ...], object]] = {
    "empty": (lambda: b"", (0,), naming()),
    "zero-bytes": (lambda: bytes(9000), ("zero",), naming()),
    "html": (lambda: QUOTA, ("HTML",), naming()),
    "html-with-bom": (lambda: b"\xef\xbb\xbf<HTML>\n404", ("HTML",), naming()),
    "html-as-xml": (
        lambda: b'<?xml version="1.0"?>\n<html xmlns="x"><p>sign in',
        ("HTML",),
        naming(),
    ),
    "html-part": (lambda: b"<div>too many requests</div>", ("HTML",), naming()),
    "long-names-in-a-zip": (
        lambda: zip_of({f"{row}{'x' * 5000}.txt": b"" for row in range(9)}),
        ("zip", 4),
        None,
    ),
    "xml": (lambda: b"<?xml version='1.0'?><Error>NoSuchKey", ("XML",), naming()),
    "tar": (lambda: tar_of(checkpoint_bytes()), ("tar",), "tar -xf FILE"),
    "old-tar": (old_tar, ("tar",), "tar -xf FILE"),
    "tar-gz": (lambda: gzip.compress(tar_of(b"x" * 99)), ("tar", "gzip"), "tar -xzf FILE"),
    "tar-bz2": (lambda: bz2.compress(tar_of(b"x" * 99)), ("tar", "bzip2"), "tar -xjf FILE"),
    "tar-xz": (lambda: lzma.compress(tar_of(b"x" * 99)), ("tar", "xz"), "tar -xJf FILE"),
    "gzip": (lambda: gzip.compress(checkpoint_bytes()), ("gzip",), "gzip -dc FILE"),
    "bzip2": (lambda: bz2.compress(checkpoint_bytes()), ("bzip2",), "bzip2 -dc FILE"),
    "xz": (lambda: lzma.compress(checkpoint_bytes()), ("xz",), "xz -dc FILE"),
    "gzip-cut-short": (
        lambda: gzip.compress(checkpoint_bytes())[:30],
        ("gzip",),
        "gzip -dc FILE",
    ),
    "zstd": (lambda: b"(\xb5/\xfd\x04\x58" + bytes(range(99)), (), "zstd -d FILE"),
    "lz4": (lambda: b"\x04\x22\x4d\x18" + bytes(range(99)), (), "lz4 -d FILE"),
    "7z": (lambda: b"7z\xbc\xaf'\x1c\0\x04" + bytes(range(99)), ("7-Zip",), "7z x FILE"),
    "rar": (lambda: b"Rar!\x1a\x07\x01\0" + bytes(range(99)), ("RAR",), "unrar x FILE"),
    "zip-of-a-checkpoint": (
        lambda: zip_of({"run/model_best.pth.tar": checkpoint_bytes()}),
        ("zip", "run/model_best.pth.tar"),
        "unzip odd.pth.tar -d FOLDER",
    ),
    "other-zip": (
        lambda: zip_of({"[Content_Types].xml": b"1", "word/document.xml": b"2"}),
        ("zip", "[Content_Types].xml", "word/document.xml"),
        None,
    ),
    "empty-zip": (lambda: zip_of({}), ("zip",), None),
    "zip-with-a-password": (with_password, ("zip", "password"), "password"),
    "zipped-again-with-compression": (
        lambda: zip_of(members_of(checkpoint_bytes())),
        (),
        "zip -0 -r again.pth.tar NAME",
    ),
    "zipped-again-without-its-folder": (
        lambda: zip_of(
            {
                name.partition("/")[2]: content
                for name, content in members_of(checkpoint_bytes()).items()
            },
            zipfile.ZIP_STORED,
        ),
        (),
        "zip -0 -r again.pth.tar NAME",
    ),
    "torchscript": (torchscript_bytes, ("TorchScript",), naming()),
    "npz": (lambda: npy_bytes(np.savez, np.zeros(3), np.ones(2)), ("NumPy", ".npz"), None),
    "npy": (lambda: npy_bytes(np.save, np.zeros(3)), ("NumPy", ".npy"), None),
    "hdf5": (lambda: b"\x89HDF\r\n\x1a\n" + bytes(99), ("HDF5",), None),
    "matlab": (lambda: b"MATLAB 5.0 MAT-file, Platform: GLNXA64", ("MATLAB",), None),
    "safetensors": (safetensors_bytes, ("safetensors",), "torch.save"),
    "onnx": (onnx_bytes, ("ONNX",), naming()),
    "git-lfs": (lambda: LFS, ("Git LFS",), "git lfs pull"),
    "git-annex": (
        lambda: b"/annex/objects/SHA256E-s1--ab.tar\n",
        ("git-annex",),
        "git annex get",
    ),
    "dvc": (
        lambda: b"outs:\n- md5: a304afb96060aad90176268345e10355\n  path: model.pth\n",
        ("DVC",),
        "dvc pull",
    ),
    "text": (lambda: b"epoch: 12\nrsum: 500\n", ("text", "b'epoch: 12"), None),
    "text-like-a-pickle": (lambda: b"config\nof a model\nand more\n", ("text", "b'config"), None),
    "one-letter": (lambda: b"P", ("text", "b'P'"), None),
    "cut-character": (lambda: ("x" + "é" * 3000).encode()[:4096], ("text", "b'x"), None),
    "utf-16": (lambda: "epoch: 12".encode("utf-16"), ("text", "UTF-16"), "iconv"),
    "json": (lambda: json.dumps({"model": [1, 2]}).encode(), ("JSON",), None),
    "jpeg": (lambda: b"\xff\xd8\xff\xe0" + bytes(range(99)), ("JPEG",), None),
    "binary": (lambda: bytes(range(1, 200)), (r"b'\x01\x02",), None),
    "plain-pickle": (lambda: pickle.dumps({"word2idx": {"a": 1}}), ("pickle",), "pickle.loads"),
    "oldest-pickle": (
        lambda: pickle.dumps({"a": [1, 2], "b": "c"}, protocol=0),
        ("pickle",),
        "pickle.loads",
    ),
    "vocabulary-pickle": (
        lambda: b"\x80\x02cvocab\nVocabulary\n)\x81}X\x03\x00\x00\x00idxK\x01sb.",
        ("pickle", "vocab.Vocabulary"),
        "pickle.loads",
    ),
}
"""What is in the file, what the error calls it, and the command that its hint names."""


@pytest.mark.parametrize(("write", "names", "hint"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_a_file_that_is_no_checkpoint_is_named(
    tmp_path: Path, write: Callable[[], bytes], names: tuple[object, ...], hint: object
) -> None:
    path = tmp_path / "odd.pth.tar"
    path.write_bytes(write())
    error = refusal(path)
    check_error(error, expected=naming("torch.save"), got=naming(*names), hint=hint)
    assert not is_damaged(error, path)
    assert len(str(error)) < 2000


@pytest.mark.parametrize(
    ("zipped", "kept"), [(False, 9), (False, -100), (True, -300)], ids=["head", "legacy", "zip"]
)
def test_a_checkpoint_that_was_cut_short_is_told_apart(
    tmp_path: Path, zipped: bool, kept: int
) -> None:
    path = tmp_path / "odd.pth.tar"
    path.write_bytes(checkpoint_bytes(_use_new_zipfile_serialization=zipped)[:kept])
    assert is_damaged(refusal(path), path)


def unpacked(folder: Path, name: str = "model_best.pth") -> Path:
    """A checkpoint unpacked as unzip does."""
    with zipfile.ZipFile(io.BytesIO(checkpoint_bytes())) as archive:
        archive.extractall(folder)
    return (folder / "archive").rename(folder / name)


@pytest.mark.parametrize("piece", ["", "..", "data.pkl", "version", "data/0"])
def test_an_unpacked_checkpoint_is_named_with_the_way_back(tmp_path: Path, piece: str) -> None:
    root = unpacked(tmp_path / "my runs")
    error = refusal(tmp_path / "my runs" if piece == ".." else root / piece)
    assert error.hint is not None
    found = re.search(r"cd '.*/my runs' && zip -0 -r again\.pth\.tar model_best\.pth$", error.hint)
    assert found is not None
    if shutil.which("zip") is None:  # pragma: no cover
        pytest.skip("no zip to follow the advice with")
    subprocess.run(found[0], shell=True, check=True, capture_output=True)
    assert read_checkpoint(tmp_path / "my runs" / "again.pth.tar").config == SGR


def test_a_checkpoint_inside_an_unpacked_one_is_read(tmp_path: Path) -> None:
    root = unpacked(tmp_path)
    (root / "again.pth").write_bytes(checkpoint_bytes())
    assert read_checkpoint(root / "again.pth").config == SGR


def test_a_folder_is_named_with_the_checkpoints_in_it(tmp_path: Path) -> None:
    check_error(refusal(tmp_path), got=naming("folder"), hint=naming())
    for name in ("b.pth.tar", "a.pth", "notes.txt"):
        (tmp_path / name).touch()
    error = refusal(tmp_path)
    check_error(error, got=naming("folder"), hint="a.pth, b.pth.tar")
    assert not holds(str(error.hint), "notes.txt")
    (tmp_path / "manifest.json").touch()
    check_error(refusal(tmp_path), got=naming("bundle"), hint=["eval", "bench", "rerank"])


def test_a_missing_file_is_said_to_be(tmp_path: Path) -> None:
    check_error(refusal(tmp_path / "absent.pth"), expected=None, got=None)
    (tmp_path / "broken.pth").symlink_to(tmp_path / "absent.pth")
    check_error(refusal(tmp_path / "broken.pth"), expected=None, got=None)
