"""Precomp folders as people have them: each behaves as its README says."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli.world import done, error_line, run
from data.hinted import type_python

from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.demo import assets
from sgraf_deploy.errors import DataError

SAME = {
    "21-ids-per-caption": "20 images × 100 captions",
    "24b-trailing-blank": "20 images × 100 captions",
    "27d-float64": "8 images × 40 captions",
    "27e-big-endian": "8 images × 40 captions",
    "27f-fortran": "20 images × 100 captions",
    "31c-crlf-bom": "20 images × 100 captions",
    "37-good": "20 images × 100 captions",
}
"""Folders with the figures of `37-good`, or of as many of its images."""

SAID = {
    "21-ids-per-caption": "Warning: the images' names are left out",
    "27d-float64": "note: the regions of split test are float64;",
    "27e-big-endian": "note: the regions of split test are float32, big-endian;",
}
"""What is said of some of those, once; nothing of the others."""

REFUSED = {
    "20-one-caption-per-image": ("(20)", "--captions-per-image 1"),
    "23-rows-tiled": ("row 1 differs from row 0", "rows 0 … 3 stand there 5 times as a whole"),
    "24-caps-missing-last": ("20 rows and 99 captions", ""),
    "26-object-array": ("Python objects", "keep the first 36 regions"),
    "27-global-2d": ("got (20, 64)", "give region features"),
    "27b-channels-first": ("got (20, 64, 36)", "x.transpose(0, 2, 1)"),
    "27c-grid": ("got (20, 6, 6, 64)", "x.reshape(len(x), 36, 64)"),
    "27g-36-vs-49": ("(any, 36, 64), got (8, 49, 64)", "extract 36 regions"),
    "28-npz": ("got test_ims.npz, an .npz archive", "numpy.save("),
    "31-latin1": ("line 100: expected UTF-8", "convert the file to UTF-8"),
    "31d-cr-only": ("CR alone at the end of 100 lines", "tr '\\r' '\\n'"),
    "32-blank-caption": ("line 38: expected one entry per line, got a blank line", "fill it in"),
    "32c-long-caption": ("got 11,999", "--max-caption-words"),
    "33-dev-named-val": ("the splits val", ": val"),
    "34-tsv": ("expected test_caps.txt, got test_caps.tsv, a table (TSV)", "import pathlib"),
    "35-nan-features": ("image 5 (counted from 0), region 3", ""),
    "36-truncated-npy": ("expected 92288 bytes for (20, 36, 64), got 46144", "download"),
}
"""Folder -> what is wrong, and what to do."""

MENDED = {"26-object-array", "27b-channels-first", "27c-grid", "28-npz", "34-tsv"}
"""Those whose hint is Python that puts them right."""

WARNED = {
    "25-shuffled": "R@K of SGR, SAF, SGRAF is not clearly above chance",
    "29-zero-padded": "320 of 720 regions are all zero",
    "30-foreign-features": "the regions' mean norm is 40",
    "30b-all-zero": "20 of 20 images are all zero",
    "31e-flickr-token": "begin with a file's name",
    "31f-py3-bytes-repr": "are Python's text of bytes",
    "32b-punct-caption": "3 of 100 captions have no word that the vocabulary knows",
}

_NUMBERS = {str(number) for number in range(20, 38)}

OTHERWISE = {"22-rows-repeated", "32d-duplicate-captions"}
"""Those that have a test of their own."""


@dataclass(frozen=True)
class Field:
    """The demo's bundle, and the folders to evaluate it on."""

    bundle: Path
    folders: Path

    def evaluate(self, folder: Path, *more: object) -> tuple[dict[str, Any], str, str]:
        """R@K by model, and what was printed to either stream."""
        report = self.bundle.parent / "report.json"
        split = ("--data", folder, "--split", "test", "--json", report)
        result = done("eval", self.bundle, *split, *more)
        return json.loads(report.read_text("utf-8"))["reports"], result.stdout, result.stderr

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
    reports, stdout, stderr = field.evaluate(field.folders / name)

    assert SAME[name] in stdout
    assert reports == good[int(SAME[name].partition(" ")[0])]
    said = [line for line in stdout.splitlines() if line.startswith("note: ")]
    said += stderr.splitlines()
    assert len(said) == (name in SAID)
    assert all(line.startswith(SAID[name]) for line in said)


@pytest.mark.parametrize("name", REFUSED)
def test_an_error_says_what_is_wrong_and_what_to_do(field: Field, name: str) -> None:
    split = "dev" if name == "33-dev-named-val" else "test"

    result = run("eval", field.bundle, "--data", field.folders / name, "--split", split)

    message, (wrong, mend) = error_line(result), REFUSED[name]
    assert result.exit_code == 2
    assert wrong in message.rpartition("; ")[0] or not mend
    assert wrong in message
    assert mend in message


@pytest.mark.parametrize("name", sorted(MENDED))
def test_the_python_of_the_hint_puts_it_right(
    field: Field, good: dict[int, dict[str, Any]], name: str, tmp_path: Path
) -> None:
    folder = field.copy(name, tmp_path / "data")
    with pytest.raises(DataError) as caught:
        open_precomp(folder, "test", model=(36, 64))

    type_python(caught.value)

    reports, stdout, _ = field.evaluate(folder)
    assert "20 images × 100 captions" in stdout
    if name != "26-object-array":
        assert reports == good[20]


@pytest.mark.parametrize("name", WARNED)
def test_it_is_evaluated_with_a_word(field: Field, name: str) -> None:
    reports, stdout, stderr = field.evaluate(field.folders / name)
    assert WARNED[name] in stdout + stderr
    assert list(reports) == ["SGR", "SAF", "SGRAF"]


def test_rows_stored_once_per_caption_are_stored_once(
    field: Field, good: dict[int, dict[str, Any]]
) -> None:
    reports, stdout, stderr = field.evaluate(field.folders / "22-rows-repeated")
    assert "4 images × 20 captions" in stdout
    assert (reports, stderr) == (good[4], "")


def test_captions_that_are_alike_are_no_ties_where_others_are_better(field: Field) -> None:
    reports, stdout, _ = field.evaluate(field.folders / "32d-duplicate-captions")
    assert 90 <= reports["SGRAF"]["image_to_text"]["r1"] < 100
    assert "a tied ground truth ranks last" in stdout


def test_tied_ground_truths_are_counted_and_rank_last(field: Field, tmp_path: Path) -> None:
    folder = field.copy("32d-duplicate-captions", tmp_path / "data")
    captions = (folder / "test_caps.txt").read_text("utf-8").splitlines()[::5]
    assert len(set(captions)) == 1
    (folder / "test_caps.txt").write_text("\n".join(captions), encoding="utf-8")

    reports, stdout, _ = field.evaluate(folder, "--captions-per-image", 1)

    assert reports["SGRAF"]["tied_image_to_text"] == 20
    assert reports["SGRAF"]["image_to_text"] == {
        **dict.fromkeys(("r1", "r5", "r10"), 0.0),
        **dict.fromkeys(("median_rank", "mean_rank"), 20.0),
    }
    assert "queries with a tied ground truth, of 40: SGR 20, SAF 20, SGRAF 20" in stdout


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

    reports, stdout, stderr = field.evaluate(tmp_path, "--captions-per-image", per_image)

    assert f"20 images × {20 * per_image} captions" in stdout
    assert stderr == ""
    assert reports["SGRAF"]["image_to_text"]["mean_rank"] < 2
    assert reports["SGRAF"]["captions"] == 20 * per_image


def test_one_caption_per_image_is_evaluated_as_such(field: Field) -> None:
    folder = field.folders / "20-one-caption-per-image"
    reports, stdout, _ = field.evaluate(folder, "--captions-per-image", 1)
    assert "20 images × 20 captions" in stdout
    assert reports["SGRAF"]["image_to_text"]["r10"] == 100


@pytest.mark.parametrize("per_image", [1, 2, 3, 4, 5, 10, 20])
def test_tiled_rows_are_never_evaluated(field: Field, per_image: int) -> None:
    data = ("--data", field.folders / "23-rows-tiled", "--split", "test")
    result = run("eval", field.bundle, *data, "--captions-per-image", per_image)
    assert result.exit_code == 2
    assert "--captions-per-image" not in error_line(result)


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
    assert "expected test_caps.txt, got test_caps.tsv" in error_line(result)
