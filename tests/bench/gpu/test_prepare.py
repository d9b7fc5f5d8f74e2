"""What is prepared comes back whole, and nothing else does."""

from __future__ import annotations

import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.cli_world import captions_of
from support.small_models import SGR, random_regions

from sgraf_deploy.bench.gpu.prepare import Contents, prepare
from sgraf_deploy.bench.gpu.unpack import INDEX, PACKAGES, SPARE, read_data, read_index, unpack
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.data.precomp import PrecompSplit
from sgraf_deploy.errors import InputError

IMAGES = 5
PART = 60_000


@pytest.fixture
def contents(exported: Bundle, tmp_path: Path) -> Contents:
    """A bundle, a split in float16, and a package."""
    regions = random_regions(SGR, IMAGES).astype(np.float16)
    owners = np.arange(5 * IMAGES, dtype=np.int32) // 5
    split = PrecompSplit("dev", regions, captions_of(IMAGES), owners)
    packages = tmp_path / "site"
    (packages / "deep" / "__pycache__").mkdir(parents=True)
    (packages / "deep" / "a.py").write_text("A = 1\n", encoding="utf-8")
    (packages / "deep" / "__pycache__" / "a.pyc").write_bytes(b"old")
    return Contents(exported, split, packages)


def test_what_is_unpacked_is_what_was_prepared(contents: Contents, tmp_path: Path) -> None:
    index = prepare(contents, tmp_path / "p", part_bytes=PART)

    files = sorted(path.name for path in (tmp_path / "p").iterdir())
    assert files == [*(part.file for part in index.parts), INDEX]
    assert len(index.parts) > 2
    assert max((tmp_path / "p" / name).stat().st_size for name in files) <= PART
    assert (index.content["regions_dtype"], index.content["images"]) == ("float16", IMAGES)
    unpack(tmp_path / "p", tmp_path / "there" / "data")
    data = read_data(tmp_path / "there" / "data")
    assert data.bundle.sha256 == contents.bundle.sha256
    assert data.regions.dtype == np.float16
    assert np.array_equal(data.regions, contents.split.regions)
    assert len(data.token_ids) == 5 * IMAGES
    assert data.captions_per_image == 5
    assert {ids[0] for ids in data.token_ids} == {1}, "every caption begins with <start>"
    packages = tmp_path / "there" / "data" / PACKAGES
    assert [path.name for path in packages.rglob("*") if path.is_file()] == ["a.py"]
    assert (packages.parent / SPARE / "safetensors" / "safetensors" / "numpy.py").is_file()


def test_the_same_content_has_the_same_index(contents: Contents, tmp_path: Path) -> None:
    for name in ("a", "b"):
        prepare(contents, tmp_path / name, part_bytes=PART)
    assert read_index(tmp_path / "a") == read_index(tmp_path / "b")
    prepare(Contents(contents.bundle, contents.split.first(2)), tmp_path / "c", part_bytes=PART)
    assert read_index(tmp_path / "c")[1] != read_index(tmp_path / "a")[1]


def test_engines_stay_behind(contents: Contents, tmp_path: Path) -> None:
    """They are built where they run, and are large."""
    import shutil

    copy = shutil.copytree(contents.bundle.path, tmp_path / "copy.sgraf")
    (copy / "engines").mkdir()
    (copy / "engines" / "a.plan").write_bytes(bytes(1000))
    prepare(Contents(Bundle.open(copy), contents.split), tmp_path / "p")
    unpack(tmp_path / "p", tmp_path / "data")
    assert not (tmp_path / "data" / "model.sgraf" / "engines").exists()


def last_byte(part: Path) -> None:
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)


@pytest.mark.parametrize("damage", [Path.unlink, last_byte], ids=["missing", "changed"])
@pytest.mark.parametrize("which", [0, 1, -1], ids=["first", "middle", "last"])
def test_a_part_that_is_not_itself_is_refused(
    contents: Contents, tmp_path: Path, damage: Callable[[Path], None], which: int
) -> None:
    index = prepare(contents, tmp_path / "p", part_bytes=PART)
    damage(tmp_path / "p" / index.parts[which].file)
    with pytest.raises(InputError) as caught:
        unpack(tmp_path / "p", tmp_path / "data")
    assert index.parts[which].file in caught.value.reason
    assert not (tmp_path / "data").exists()


def link() -> tarfile.TarInfo:
    entry = tarfile.TarInfo("link")
    entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
    return entry


@pytest.mark.parametrize(
    "entry",
    [tarfile.TarInfo("../outside"), tarfile.TarInfo("/outside"), link()],
    ids=["above", "absolute", "link"],
)
def test_an_archive_that_leads_elsewhere_is_refused(
    contents: Contents, tmp_path: Path, entry: tarfile.TarInfo
) -> None:
    """The index vouches for bytes, and not for who made them."""
    import hashlib
    import io
    import json

    prepare(contents, tmp_path / "p")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:xz") as archive:
        archive.addfile(entry)
    content = stream.getvalue()
    (tmp_path / "p" / "part-00").write_bytes(content)
    part = {"file": "part-00", "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    index = {"schema": 1, "parts": [part], "content": {}}
    (tmp_path / "p" / INDEX).write_text(json.dumps(index), encoding="utf-8")
    with pytest.raises(InputError):
        unpack(tmp_path / "p", tmp_path / "deep" / "data")
    assert not (tmp_path / "deep" / "outside").exists()
    assert not (tmp_path / "outside").exists()


def test_only_what_was_prepared_is_replaced(contents: Contents, tmp_path: Path) -> None:
    few = Contents(contents.bundle, contents.split.first(1))
    prepare(contents, tmp_path / "p")
    with pytest.raises(InputError):
        prepare(few, tmp_path / "p")
    prepare(few, tmp_path / "p", force=True)
    assert read_index(tmp_path / "p")[0].content["images"] == 1
    (tmp_path / "p" / "mine.txt").touch()
    with pytest.raises(InputError) as caught:
        prepare(few, tmp_path / "p", force=True)
    assert "mine.txt" in caught.value.reason
    (tmp_path / "other").mkdir()
    with pytest.raises(InputError):
        prepare(few, tmp_path / "other", force=True)


def test_packages_that_are_not_there_are_refused(contents: Contents, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        prepare(Contents(contents.bundle, contents.split, tmp_path / "no"), tmp_path / "p")
    assert "--packages" in caught.value.reason
    assert not (tmp_path / "p").exists()


def test_a_damaged_folder_is_one_error(tmp_path: Path, exported: Bundle) -> None:
    for folder in (tmp_path, exported.path):
        with pytest.raises(InputError):
            read_index(folder)
        with pytest.raises(InputError):
            read_data(folder)


def test_values_need_no_tokenizer(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bare machine has no NLTK."""
    from sgraf_deploy.bench.gpu.values import _read, compare_engine, keep_reference

    prepare(contents, tmp_path / "p")
    unpack(tmp_path / "p", tmp_path / "data")
    for name in [name for name in sys.modules if name.partition(".")[0] == "nltk"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nltk", None)
    data = read_data(tmp_path / "data")

    reference = keep_reference(data, tmp_path / "reference.npz")
    assert reference["failed"] == []
    assert reference["yardstick"]["below_float32"] == []
    found = compare_engine(data, "ort", "fp32", _read(tmp_path / "reference.npz"))

    assert list(reference["recall"]) == ["SGR", "SAF", "SGRAF"]
    assert reference["captions"] == 5 * IMAGES
    assert [parity["model"] for parity in found["parity"]] == ["SGR", "SAF", "SGRAF"]
    assert found["failed"] == []
    assert found["parity"][2]["recall"] == reference["recall"]["SGRAF"]


def test_an_engine_that_misses_a_bound_says_which(contents: Contents, tmp_path: Path) -> None:
    from sgraf_deploy.bench.gpu.values import _read, compare_engine, keep_reference

    prepare(contents, tmp_path / "p")
    unpack(tmp_path / "p", tmp_path / "data")
    data = read_data(tmp_path / "data")
    keep_reference(data, tmp_path / "reference.npz")
    expected = _read(tmp_path / "reference.npz")
    expected["sgr"][0, 0] += 1.0
    failed = compare_engine(data, "ort", "fp32", expected)["failed"]
    assert any(one.startswith("SGR: logits") for one in failed)
    assert not any(one.startswith("SAF: ") for one in failed)
    with pytest.raises(InputError):
        _read(tmp_path / "nothing.npz")


def test_a_reference_below_float32_is_a_failure(
    contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sgraf_deploy.bench.gpu.values import keep_reference
    from sgraf_deploy.engines.torch.literal import LiteralLoop, Yardstick

    seen = Yardstick("float32", ("cuda rnn tf32",), True, "cuda:0", "a GPU")
    monkeypatch.setattr(LiteralLoop, "yardstick", property(lambda _: seen))
    prepare(contents, tmp_path / "p")
    unpack(tmp_path / "p", tmp_path / "data")
    found = keep_reference(read_data(tmp_path / "data"), tmp_path / "reference.npz")
    assert len(found["failed"]) == 1
    assert found["yardstick"]["tf32"]
