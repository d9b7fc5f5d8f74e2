"""Precomp folders as people have them: each behaves as its README says."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_world import Ran, done, error_line, line_naming, lines_with, refused_line, run
from support.hinted import type_python
from support.refusals import holds, naming

from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.demo import assets
from sgraf_deploy.errors import DataError

SAME = {
    "21-ids-per-caption": 20,
    "24b-trailing-blank": 20,
    "27d-float64": 8,
    "27e-big-endian": 8,
    "27f-fortran": 20,
    "31c-crlf-bom": 20,
    "37-good": 20,
}
"""Folders with the figures of `37-good`, or of as many of its images."""

SAID: dict[str, tuple[str, tuple[object, ...]]] = {
    "21-ids-per-caption": ("names-left-out", (100, 20)),
    "27d-float64": ("converted-regions", ("float64",)),
    "27e-big-endian": ("converted-regions", ("float32", "big-endian")),
}
"""The code and names of what is said of some of those, once; nothing is of the others."""

BOTH = ("test_ims.npy", "test_caps.txt")
SHAPE = naming("(any, 36, 64)")

REFUSED: dict[str, tuple[tuple[object, ...], dict[str, Any]]] = {
    "20-one-caption-per-image": ((*BOTH, 20), {"hint": "--captions-per-image 1"}),
    "23-rows-tiled": ((*BOTH, 20), {"got": naming(1, 0), "hint": [0, 3, 5]}),
    "24-caps-missing-last": (BOTH, {"got": naming(20, 99)}),
    "26-object-array": (
        ("test_ims.npy",),
        {"expected": naming(36), "got": naming("|O", "(20,)"), "hint": [36, "allow_pickle=True"]},
    ),
    "27-global-2d": (("test_ims.npy",), {"expected": SHAPE, "got": (20, 64), "hint": [36, 64]}),
    "27b-channels-first": (
        ("test_ims.npy",),
        {"expected": SHAPE, "got": (20, 64, 36), "hint": "x.transpose(0, 2, 1)"},
    ),
    "27c-grid": (
        ("test_ims.npy",),
        {"expected": SHAPE, "got": (20, 6, 6, 64), "hint": "x.reshape(len(x), 36, 64)"},
    ),
    "27g-36-vs-49": (("test_ims.npy",), {"expected": SHAPE, "got": (8, 49, 64), "hint": 36}),
    "28-npz": (
        ("28-npz", "'test'"),
        {"expected": "test_ims.npy", "got": naming("test_ims.npz"), "hint": "numpy.save("},
    ),
    "31-latin1": (("test_caps.txt", "line 100"), {"expected": "UTF-8", "hint": "iconv"}),
    "31d-cr-only": (
        ("test_caps.txt",),
        {"expected": naming("LF", "CRLF"), "got": naming("CR", 100), "hint": "tr '\\r' '\\n'"},
    ),
    "32-blank-caption": (("test_caps.txt", "line 38"), {"hint": naming()}),
    "32c-long-caption": (("caption 3",), {"got": "11,999", "hint": "--max-caption-words"}),
    "33-dev-named-val": (("33-dev-named-val", "'dev'"), {"got": naming("val"), "hint": "val"}),
    "34-tsv": (
        ("34-tsv", "'test'"),
        {
            "expected": "test_caps.txt",
            "got": naming("test_caps.tsv", "TSV"),
            "hint": "import pathlib",
        },
    ),
    "35-nan-features": (("test", "image 5", "region 3"), {"got": "nan"}),
    "36-truncated-npy": (
        ("test_ims.npy",),
        {"expected": naming(92288, "(20, 36, 64)"), "got": 46144, "hint": naming()},
    ),
}
"""Folder -> the names in what is wrong, and the fields."""

MENDED = {"26-object-array", "27b-channels-first", "27c-grid", "28-npz", "34-tsv"}
"""Those whose hint is Python that puts them right."""

WARNED: dict[str, tuple[str, tuple[object, ...]]] = {
    "25-shuffled": ("at-chance", ("SGR", "SAF", "SGRAF")),
    "29-zero-padded": ("zero-regions", (320, 720)),
    "30-foreign-features": ("foreign-regions", (40,)),
    "30b-all-zero": ("zero-images", (20,)),
    "31e-flickr-token": ("caption-form", (100, r"'1000.jpg#0\tto")),
    "31f-py3-bytes-repr": ("caption-form", (100, "\"b'to")),
    "32b-punct-caption": ("unknown-captions", (3, 100)),
}
"""Folder -> the code of what is said of it, and the names in it."""

_NUMBERS = {str(number) for number in range(20, 38)}

OTHERWISE = {"22-rows-repeated", "32d-duplicate-captions"}
"""Those that have a test of their own."""


@dataclass(frozen=True)
class Field:
    """The demo's bundle, and the folders to evaluate it on."""

    bundle: Path
    folders: Path

    def evaluate(self, folder: Path, *more: object) -> tuple[dict[str, Any], Ran]:
        """R@K by model, and what was printed."""
        report = self.bundle.parent / "report.json"
        split = ("--data", folder, "--split", "test", "--json", report)
        result = done("eval", self.bundle, *split, *more)
        return json.loads(report.read_text("utf-8"))["reports"], result

    def copy(self, name: str, target: Path) -> Path:
        """A copy of a folder, to be put right."""
        return shutil.copytree(self.folders / name, target, copy_function=shutil.copyfile)


@pytest.fixture(scope="module")
def field(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Field:
    demo = tmp_path_factory.mktemp("field") / "demo"
    assets.lay_out(demo)
    gate = ("--gate-data", demo / assets.DATA, "--gate-split", assets.SPLIT)
    files = [demo / name for name in assets.CHECKPOINTS]
    words = ("--vocab", demo / assets.VOCABULARY)
    done("export", *files, *words, *gate, "--precision", "fp32", "-o", demo / assets.BUNDLE)
    return Field(demo / assets.BUNDLE, shared / "field")


@pytest.fixture(scope="module")
def good(field: Field) -> dict[int, dict[str, Any]]:
    """The figures of the good split by how many of its images are taken."""
    folder = field.folders / "37-good"
    return {
        images: field.evaluate(folder, "--limit-images", images)[0] for images in (4, 8, 19, 20)
    }


def test_every_folder_has_a_test(shared: Path) -> None:
    there = {path.name for path in (shared / "field").iterdir() if path.name[:2] in _NUMBERS}
    assert there == set(SAME) | set(REFUSED) | set(WARNED) | OTHERWISE


@pytest.mark.parametrize("name", SAME)
def test_the_same_figures(field: Field, good: dict[int, dict[str, Any]], name: str) -> None:
    reports, result = field.evaluate(field.folders / name)

    line_naming(result.stdout, SAME[name], 5 * SAME[name])
    assert reports == good[SAME[name]]
    assert len(result.stderr.splitlines()) == len(result.warned)
    code, names = SAID.get(name, (None, ()))
    assert [*result.noted, *result.warned] == ([code] if code else [])
    line_naming(result.output, *names)


@pytest.mark.parametrize("name", REFUSED)
def test_an_error_says_what_is_wrong_and_what_to_do(field: Field, name: str) -> None:
    split = "dev" if name == "33-dev-named-val" else "test"

    result = run("eval", field.bundle, "--data", field.folders / name, "--split", split)

    names, fields = REFUSED[name]
    refused_line(result, DataError, *names, **fields)


@pytest.mark.parametrize("name", sorted(MENDED))
def test_the_python_of_the_hint_puts_it_right(
    field: Field, good: dict[int, dict[str, Any]], name: str, tmp_path: Path
) -> None:
    folder = field.copy(name, tmp_path / "data")
    with pytest.raises(DataError) as caught:
        open_precomp(folder, "test", model=(36, 64))

    type_python(caught.value)

    reports, result = field.evaluate(folder)
    line_naming(result.stdout, 20, 100)
    if name != "26-object-array":
        assert reports == good[20]


@pytest.mark.parametrize("name", WARNED)
def test_it_is_evaluated_with_a_word(field: Field, name: str) -> None:
    reports, result = field.evaluate(field.folders / name)
    code, names = WARNED[name]
    told = lines_with("note: ", result.stdout) + lines_with("Warning: ", result.stderr)
    (message,) = (line for line in told if result.codes[line] == code)
    assert all(holds(message, name) for name in names)
    assert list(reports) == ["SGR", "SAF", "SGRAF"]


def test_rows_stored_once_per_caption_are_stored_once(
    field: Field, good: dict[int, dict[str, Any]]
) -> None:
    reports, result = field.evaluate(field.folders / "22-rows-repeated")
    line_naming(result.stdout, 4, 20)
    assert (reports, result.stderr) == (good[4], "")


def test_captions_that_are_alike_are_no_ties_where_others_are_better(field: Field) -> None:
    reports, _ = field.evaluate(field.folders / "32d-duplicate-captions")
    assert 90 <= reports["SGRAF"]["image_to_text"]["r1"] < 100
    assert reports["SGRAF"]["ties"] == "last"


def test_tied_ground_truths_are_counted_and_rank_last(field: Field, tmp_path: Path) -> None:
    folder = field.copy("32d-duplicate-captions", tmp_path / "data")
    captions = (folder / "test_caps.txt").read_text("utf-8").splitlines()[::5]
    assert len(set(captions)) == 1
    (folder / "test_caps.txt").write_text("\n".join(captions), encoding="utf-8")

    reports, result = field.evaluate(folder, "--captions-per-image", 1)

    assert reports["SGRAF"]["tied_image_to_text"] == 20
    assert reports["SGRAF"]["image_to_text"] == {
        **dict.fromkeys(("r1", "r5", "r10"), 0.0),
        **dict.fromkeys(("median_rank", "mean_rank"), 20.0),
    }
    line_naming(result.stdout, 40, "SGR 20", "SAF 20", "SGRAF 20")


@pytest.mark.parametrize("per_image", [1, 2, 3])
@pytest.mark.parametrize("stored", ["once", "per-caption"])
def test_other_numbers_of_captions(
    field: Field, tmp_path: Path, per_image: int, stored: str
) -> None:
    good = open_precomp(field.folders / "37-good", "test")
    kept = [caption for i, caption in enumerate(good.captions) if i % 5 < per_image]
    repeat = per_image if stored == "per-caption" else 1
    np.save(tmp_path / "test_ims.npy", np.repeat(good.regions, repeat, axis=0))
    (tmp_path / "test_caps.txt").write_text("\n".join(kept), encoding="utf-8")

    reports, result = field.evaluate(tmp_path, "--captions-per-image", per_image)

    line_naming(result.stdout, tmp_path, 20, 20 * per_image)
    assert result.stderr == ""
    assert reports["SGRAF"]["image_to_text"]["mean_rank"] < 2
    assert reports["SGRAF"]["captions"] == 20 * per_image


def test_one_caption_per_image_is_evaluated_as_such(field: Field) -> None:
    folder = field.folders / "20-one-caption-per-image"
    reports, _ = field.evaluate(folder, "--captions-per-image", 1)
    assert reports["SGRAF"]["captions"] == 20
    assert reports["SGRAF"]["image_to_text"]["r10"] == 100


@pytest.mark.parametrize("per_image", [1, 2, 3, 4, 5, 10, 20])
def test_tiled_rows_are_never_evaluated(field: Field, per_image: int) -> None:
    data = ("--data", field.folders / "23-rows-tiled", "--split", "test")
    result = run("eval", field.bundle, *data, "--captions-per-image", per_image)
    assert result.exit_code == 2
    assert not holds(error_line(result), "--captions-per-image")


@pytest.mark.parametrize(
    "name", ["20-one-caption-per-image", "24-caps-missing-last", "31-latin1", "34-tsv", "37-good"]
)
def test_images_are_ranked_whatever_the_captions_are(field: Field, name: str) -> None:
    arguments = ("--split", "test", "--caption", "a big sphere", "--top-k", 3)
    result = done("rerank", field.bundle, "--data", field.folders / name, *arguments)
    expected = done("rerank", field.bundle, "--data", field.folders / "37-good", *arguments)
    rows = [line.split()[:4] for line in expected.stdout.splitlines()[-3:]]
    assert [line.split()[:4] for line in result.stdout.splitlines()[-3:]] == rows
    assert result.stderr == ""


def test_captions_are_ranked_only_where_they_are_there(field: Field) -> None:
    data = ("--data", field.folders / "34-tsv", "--split", "test")
    result = run("rerank", field.bundle, *data, "--image", 3)
    got = naming("test_caps.tsv")
    refused_line(result, DataError, "34-tsv", "'test'", expected="test_caps.txt", got=got)
