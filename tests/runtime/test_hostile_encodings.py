"""Files of encodings that no program writes: refused before memory is taken for what they claim."""

from __future__ import annotations

import io
import json
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import check_error, holds, naming, refused
from support.scorers import CAPTIONS, Faked

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.runtime import Scorer

pytestmark = pytest.mark.filterwarnings("ignore:.* is deprecated:DeprecationWarning")

MakeFaked = Callable[..., Faked]
Arrays = dict[str, bytes]

HUGE = 10**13


@pytest.fixture
def scorer(faked: MakeFaked) -> Scorer:
    return faked().scorer


@pytest.fixture
def images(scorer: Scorer, regions: NDArray[np.float32], tmp_path: Path) -> Path:
    return scorer.save_encoded(scorer.encode_images(regions), tmp_path / "images.npz")


@pytest.fixture
def captions(scorer: Scorer, tmp_path: Path) -> Path:
    return scorer.save_encoded(scorer.encode_captions(CAPTIONS), tmp_path / "captions.npz")


def arrays_of(path: Path) -> Arrays:
    with zipfile.ZipFile(path) as file:
        return {name.removesuffix(".npy"): file.read(name) for name in file.namelist()}


def write(path: Path, arrays: Arrays, method: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, content in arrays.items():
            file.writestr(f"{name}.npy", content)


def npy(array: NDArray[Any], **header: str) -> bytes:
    """An array's file, its header changed: `shape`, `descr`, `fortran_order`."""
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    magic, old = stream.getvalue()[:10], stream.getvalue()[10:]
    size = int.from_bytes(magic[8:], "little")
    values = {"descr": f"'{array.dtype.str}'", "fortran_order": "False", "shape": f"{array.shape}"}
    text = ", ".join(f"'{name}': {value}" for name, value in (values | header).items())
    return magic + f"{{{text}, }}".ljust(size - 1).encode() + b"\n" + old[size:]


def refusal_of(call: Callable[[], object]) -> DataError:
    tracemalloc.start()
    try:
        with refused(DataError, hint=naming()) as caught:
            call()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20 * 2**20
    assert str(caught.error).isprintable()
    assert len(str(caught.error)) < 700
    assert isinstance(caught.error, DataError)
    return caught.error


def test_the_changes_below_start_from_what_is_read(scorer: Scorer, images: Path) -> None:
    before = images.read_bytes()
    arrays = arrays_of(images)
    whole = np.load(io.BytesIO(arrays["sgr.image_global"]))
    assert npy(whole) == arrays["sgr.image_global"]
    write(images, arrays)
    assert images.read_bytes() != before
    assert len(scorer.load_images(images)) == 9


VALUES = np.zeros((9, 8), np.float32)

HEADERS: dict[str, bytes] = {
    "1e13-rows": npy(VALUES, shape=f"({HUGE}, 8)"),
    "1e13-columns": npy(VALUES, shape=f"(9, {HUGE})"),
    "overflow": npy(VALUES, shape=f"({2**62}, {2**62})"),
    "overflow-to-the-size": npy(VALUES, shape=f"({2**61 + 9}, 8)"),
    "20-digits": npy(VALUES, shape=f"({'9' * 20}, 8)"),
    "5000-digits": npy(VALUES, shape=f"({'9' * 5000}, 8)"),
    "negative": npy(VALUES, shape="(-9, -8)"),
    "true": npy(VALUES, shape="(True, 8)"),
    "float": npy(VALUES, shape="(9.0, 8)"),
    "0-d": npy(np.float32(1)),  # type: ignore[arg-type]  # as good as an array
    "1-d": npy(VALUES[0]),
    "3-d": npy(VALUES[None]),
    "no-shape": npy(VALUES, shape="None"),
    "fewer-rows": npy(VALUES[:8]),
    "more-rows-than-numbers": npy(VALUES[:8], shape="(9, 8)"),
    "fewer-rows-than-numbers": npy(VALUES, shape="(8, 8)"),
    "Fortran": npy(VALUES, fortran_order="True"),
    "big-endian": npy(VALUES.astype(">f4")),
    "float64": npy(VALUES.astype(np.float64)),
    "float16": npy(VALUES.astype(np.float16)),
    "int32": npy(VALUES.astype(np.int32)),
    "object": npy(VALUES.astype(object)),
    "structured": npy(VALUES, descr="[('a', '<f4')]"),
    "void": npy(VALUES, descr="'|V4'"),
    "no-dtype": npy(VALUES, descr="'x'"),
    "huge-dtype": npy(VALUES, descr="'|V999999999'"),
    "code": npy(VALUES, shape="(__import__('os').abort(), 8)"),
    "empty": b"",
    "magic": b"\x93NUMPY",
    "version-2": npy(VALUES).replace(b"\x93NUMPY\x01", b"\x93NUMPY\x02", 1),
    "no-magic": b"dog" * 100,
    "longer-than-it-is": b"\x93NUMPY\x01\x00\xff\xff{",
}


@pytest.mark.parametrize("content", HEADERS.values(), ids=HEADERS)
@pytest.mark.parametrize("name", ["sgr.image_global", "saf.image_global"])
def test_an_array_that_claims_something_else_is_refused(
    scorer: Scorer, images: Path, name: str, content: bytes
) -> None:
    write(images, arrays_of(images) | {name: content})
    error = refusal_of(lambda: scorer.load_images(images))
    if name == "saf.image_global":  # The first one says how many images there are.
        check_error(error, images, name, expected=naming(), got=naming())


@pytest.mark.parametrize("rows", [0, HUGE, 2**62])
def test_a_number_of_images_that_all_arrays_claim_is_refused(
    scorer: Scorer, images: Path, rows: int
) -> None:
    arrays = arrays_of(images)
    for name, content in arrays.items():
        if name != "sgraf_gallery":
            array = np.load(io.BytesIO(content))
            arrays[name] = npy(array, shape=f"{(rows, *array.shape[1:])}")
    write(images, arrays)
    error = refusal_of(lambda: scorer.load_images(images))
    check_error(error, expected=naming(rows * 4 * 8 * 4, f"({rows}, 4, 8)"))


@pytest.mark.parametrize(
    "lengths",
    [
        npy(np.full(7, 2**31 - 1, np.int32)),
        npy(np.full(7, 1, np.int32), shape=f"({HUGE},)"),
        npy(np.array(5, np.int32)),
        npy(np.full((7, 1), 3, np.int32)),
        npy(np.full(7, 0, np.int32)),
        npy(np.full(7, -1, np.int32)),
        npy(np.full(7, 3, np.int64)),
        npy(np.full(7, 3, np.uint32)),
        npy(np.full(0, 3, np.int32)),
        npy(np.full(7, 3, np.float32)),
    ],
    ids=[
        *("overflow", "1e13", "0-d", "2-d", "no-words", "negative", "int64", "uint32", "none"),
        "float",
    ],
)
def test_lengths_that_claim_something_else_are_refused(
    scorer: Scorer, captions: Path, lengths: bytes
) -> None:
    write(captions, arrays_of(captions) | {"lengths": lengths})
    error = refusal_of(lambda: scorer.load_captions(captions))
    assert holds(error.what, "lengths") or holds(error.what, "sgr.word_embeddings")


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA], ids=str
)
def test_what_is_packed_is_refused(scorer: Scorer, images: Path, method: int) -> None:
    arrays = arrays_of(images)
    arrays["sgr.image_global"] = npy(np.zeros((2**17, 8), np.float32))
    write(images, arrays, method)
    error = refusal_of(lambda: scorer.load_images(images))
    with zipfile.ZipFile(images) as file:
        first = file.infolist()[0]
    name = first.filename.removesuffix(".npy")
    check_error(error, name, got=naming(first.file_size, first.compress_size))


def test_arrays_that_share_their_bytes_are_refused(scorer: Scorer, images: Path) -> None:
    """As in archives that unpack to more than they are, by entries that overlap."""
    arrays = arrays_of(images) | {f"more-{row}": b"" for row in range(100)}
    with zipfile.ZipFile(images, "w") as file:
        for name, content in arrays.items():
            file.writestr(f"{name}.npy", content)
        file.writestr("large.npy", bytes(2**16))
        large = file.getinfo("large.npy")
        for entry in file.infolist():
            if entry.filename.startswith("more-"):
                entry.header_offset = large.header_offset
                entry.file_size = entry.compress_size = large.file_size
    error = refusal_of(lambda: scorer.load_images(images))
    check_error(error, expected=naming(images.stat().st_size), got=naming())


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("more", "more"),
        ("sgr.image_globa", "sgr.image_globa"),
        ("", '""'),
        ("a\x1b[2J", "a\\u001b"),
    ],
)
def test_an_array_too_many_is_refused(scorer: Scorer, images: Path, name: str, what: str) -> None:
    write(images, arrays_of(images) | {name: npy(VALUES)})
    assert holds(refusal_of(lambda: scorer.load_images(images)).what, what)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_array_that_is_there_twice_is_refused(scorer: Scorer, images: Path) -> None:
    with zipfile.ZipFile(images, "a") as file:
        file.writestr("sgr.image_global.npy", npy(VALUES))
    refusal_of(lambda: scorer.load_images(images))


def header(**changes: Any) -> Callable[[dict[str, Any]], str]:
    return lambda valid: json.dumps(valid | changes)


def old(**changes: Any) -> Callable[[dict[str, Any]], str]:
    """A header of format 1, changed."""
    first = {"format": 1, "kind": "images", "bundle": "0" * 64, "precision": "fp32"}
    return lambda valid: json.dumps(first | {"executed": "fp32"} | changes)


def encoding(**changes: Any) -> Callable[[dict[str, Any]], str]:
    """The header with a changed encoding."""
    return lambda valid: json.dumps(valid | {"encoding": valid["encoding"] | changes})


TEXTS: dict[str, tuple[Callable[[dict[str, Any]], str], str]] = {
    "no-json": (lambda valid: "a dog", "JSON"),
    "cut": (lambda valid: json.dumps(valid)[:-1], "JSON"),
    "list": (lambda valid: "[1]", "gallery"),
    "number": (lambda valid: "1", "gallery"),
    "deep": (lambda valid: "[" * 60_000, "JSON"),
    "long": (lambda valid: json.dumps(valid).rjust(70_000), "sgraf_gallery"),
    "surrogate": (lambda valid: '"\ud800"', "JSON"),
    "format": (header(format=3), "format"),
    "format-true": (header(format=True), "format"),
    "kind": (old(kind=5), "kind"),
    "unknown-kind": (old(kind="words"), "kind"),
    "bundle": (old(bundle=None), "bundle"),
    "bundle-list": (old(bundle=["a"]), "bundle"),
    "escape": (old(bundle="\x1b[2J" * 1000), "bundle"),
    "precision": (old(precision="int4"), "precision"),
    "executed": (old(executed=[1]), "executed"),
    "more": (header(more=1), "more"),
    "no-encoding": (header(encoding=None), "encoding"),
    "encoding-kind": (encoding(kind="words"), "encoding.kind"),
    "encoding-precision": (encoding(precision=[]), "encoding.precision"),
    "encoding-executed": (encoding(executed=[1]), "encoding.executed"),
    "no-members": (encoding(members={}), "members"),
    "members-list": (encoding(members=["sgr"]), "encoding.members"),
    "members-of-none": (encoding(members={"sgr": {}, "saf": {}}), "embed"),
    "members-of-numbers": (encoding(members={"sgr": {"embed": 8}}), "encoding.members.sgr.embed"),
    "member-escape": (encoding(members={"\x1b[2J": {}}), "members"),
    "missing": (lambda valid: '{"format": 1}', "kind"),
    "infinite": (lambda valid: '{"format": 1e999}', "format"),
}


@pytest.mark.parametrize(("text", "what"), TEXTS.values(), ids=TEXTS)
def test_a_header_that_is_none_is_refused(
    scorer: Scorer, images: Path, text: Callable[[dict[str, Any]], str], what: str
) -> None:
    arrays = arrays_of(images)
    valid = json.loads(str(np.load(io.BytesIO(arrays["sgraf_gallery"]))))
    arrays["sgraf_gallery"] = npy(np.array(text(valid)))
    write(images, arrays)
    assert holds(refusal_of(lambda: scorer.load_images(images)).what, what)


@pytest.mark.parametrize(
    "content",
    [
        npy(np.array("{}"), shape="(1,)"),
        npy(np.array("{}"), descr="'>U2'"),
        npy(np.array("{}"), descr="'<U999999999'"),
        npy(np.array(b"{}")),
        npy(np.array(5)),
        npy(np.array("{}")).replace(b"{\x00\x00\x00}\x00\x00\x00", b"\xff" * 8),
    ],
    ids=["1-d", "big-endian", "huge", "bytes", "integer", "no-characters"],
)
def test_a_header_that_is_no_text_is_refused(scorer: Scorer, images: Path, content: bytes) -> None:
    write(images, arrays_of(images) | {"sgraf_gallery": content})
    refusal_of(lambda: scorer.load_images(images))


@pytest.mark.parametrize("path", [None, 5, b"images", ["images"], "a\0b"], ids=repr)
def test_what_is_no_path_is_refused(scorer: Scorer, path: Any) -> None:
    captions = scorer.encode_captions(CAPTIONS)
    for use in (
        lambda: scorer.load_images(path),
        lambda: scorer.load_captions(path),
        lambda: scorer.save_encoded(captions, path),
    ):
        with refused(InputError, "path", got=naming(type(path).__name__)):
            use()


@pytest.mark.parametrize(
    "given", [None, 5, "images", [], np.zeros((9, 4, 6), np.float32)], ids=type
)
def test_what_was_not_encoded_is_not_saved(scorer: Scorer, tmp_path: Path, given: Any) -> None:
    with refused(InputError, expected=naming("images", "captions"), got=type(given).__name__):
        scorer.save_encoded(given, tmp_path / "images.npz")
    assert list(tmp_path.iterdir()) == []
