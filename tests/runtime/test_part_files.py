"""Files of tilings, thresholds and parts: what is read is what was written, or it is refused."""

from __future__ import annotations

import io
import json
import signal
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.parts import KILLED, PARTS, count_into, run_killed, tied_inputs
from support.refusals import naming, refused

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.errors import DataError
from sgraf_deploy.files.writer import FILE_STEPS
from sgraf_deploy.runtime import (
    PartialRanks,
    PartialTopK,
    RankThresholds,
    Scorer,
    Tiling,
)
from sgraf_deploy.runtime.part_file import contents_of

Change = Callable[[dict[str, Any], dict[str, Any]], None]
"""Changes the header and the arrays of a file."""


@pytest.fixture
def files(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds, tmp_path: Path
) -> dict[str, Path]:
    """A file of each kind."""
    paths = {kind: tmp_path / f"{kind}.npz" for kind in ("thresholds", "ranks", "top_k")}
    thresholds.save(paths["thresholds"])
    native.count_tiles(*encoded, thresholds, [1, 4, 7]).save(paths["ranks"])
    native.top_k_tiles(*encoded, 3, [1, 4, 7]).save(paths["top_k"])
    return paths


LOADERS: dict[str, Callable[[Path], Any]] = {
    "thresholds": RankThresholds.load,
    "ranks": PartialRanks.load,
    "top_k": PartialTopK.load,
}


def test_a_saved_part_is_loaded_equal(
    native: Scorer, encoded: tuple[Any, Any], thresholds: RankThresholds, files: dict[str, Path]
) -> None:
    again = RankThresholds.load(files["thresholds"])
    assert again.digest == thresholds.digest
    assert again.execution == thresholds.execution
    np.testing.assert_array_equal(again.values.images["sgraf"], thresholds.values.images["sgraf"])
    part = native.count_tiles(*encoded, again, [1, 4, 7])
    read = PartialRanks.load(files["ranks"])
    assert (read.digest, read.whole, read.tiles.tolist()) == (part.digest, part.whole, [1, 4, 7])
    assert read.scored == part.scored
    best = native.top_k_tiles(*encoded, 3, [1, 4, 7])
    found = PartialTopK.load(files["top_k"])
    assert (found.digest, found.whole, found.scored) == (best.digest, best.whole, best.scored)


def test_a_saved_tiling_has_the_same_tiles(
    native: Scorer, encoded: tuple[Any, Any], tmp_path: Path
) -> None:
    tiling = native.tiling(*encoded)
    tiling.save(tmp_path / "tiling.json")
    again = Tiling.load(tmp_path / "tiling.json")
    assert list(again) == list(tiling)
    assert (again.digest, again.tile_bytes) == (tiling.digest, tiling.tile_bytes)
    np.testing.assert_array_equal(again.order, tiling.order)


@pytest.mark.parametrize(
    ("field", "value", "named"),
    [
        ("images", 0, "images, panel"),
        ("panel", 0, "images, panel"),
        ("lengths", [0] * 35, "lengths"),
        ("lengths", [3] * 34, "blocks"),
        ("blocks", [], "blocks"),
        ("format", 2, "format"),
        ("ragged", None, "ragged"),
        ("more", 1, "more"),
    ],
)
def test_a_tiling_that_covers_no_matrix_is_refused(
    field: str,
    value: object,
    named: str,
    native: Scorer,
    encoded: tuple[Any, Any],
    tmp_path: Path,
) -> None:
    path = tmp_path / "tiling.json"
    native.tiling(*encoded).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))
    with refused(DataError, path, named):
        Tiling.load(path)


def test_a_tiling_that_is_missing_or_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiling.json"
    with refused(DataError, path, hint="Tiling.save"):
        Tiling.load(path)
    path.write_text("{")
    with refused(DataError, path):
        Tiling.load(path)


@pytest.mark.parametrize("kind", LOADERS)
def test_a_missing_or_a_cut_file_is_refused(kind: str, files: dict[str, Path]) -> None:
    content = files[kind].read_bytes()
    for size in (0, 10, len(content) // 2, len(content) - 1):
        files[kind].write_bytes(content[:size])
        with refused(DataError, files[kind]):
            LOADERS[kind](files[kind])
    files[kind].unlink()
    with refused(DataError, files[kind]):
        LOADERS[kind](files[kind])


@pytest.mark.parametrize("kind", LOADERS)
def test_a_file_of_another_kind_is_refused(kind: str, files: dict[str, Path]) -> None:
    for other in files.keys() - {kind}:
        with refused(DataError, files[other], hint=naming()):
            LOADERS[kind](files[other])


@pytest.mark.parametrize("kind", LOADERS)
def test_a_flipped_bit_is_refused(kind: str, files: dict[str, Path]) -> None:
    content = files[kind].read_bytes()
    with zipfile.ZipFile(files[kind]) as opened:
        places = [entry.header_offset + 30 + len(entry.filename) for entry in opened.infolist()]
    for place in places:
        changed = bytearray(content)
        changed[place + 140] ^= 1
        files[kind].write_bytes(changed)
        with refused(DataError, files[kind]):
            LOADERS[kind](files[kind])


def rewrite(path: Path, change: Change, *, hashed: bool) -> None:
    """Change a file; with `hashed` its contents' hash too, as only a program would."""
    with np.load(path) as opened:
        arrays = dict(opened)
    header = json.loads(str(arrays.pop("header")))
    change(header, arrays)
    if hashed:
        header["contents"] = contents_of(arrays)
    stream = io.BytesIO()
    np.savez(stream, header=np.array(json.dumps(header)), **arrays)
    path.write_bytes(stream.getvalue())


def put(name: str, value: Any) -> Change:
    return lambda header, arrays: arrays.update({name: value(arrays[name])})


def set_field(name: str, value: object, inside: str | None = None) -> Change:
    def change(header: dict[str, Any], arrays: dict[str, Any]) -> None:
        (header if inside is None else header[inside])[name] = value

    return change


def remove(name: str) -> Change:
    return lambda header, arrays: arrays.pop(name)


def remove_field(name: str) -> Change:
    return lambda header, arrays: header.pop(name)


def test_other_contents_than_the_header_says_are_refused(files: dict[str, Path]) -> None:
    rewrite(files["ranks"], put("sgr.images.better", lambda each: each + 1), hashed=False)
    with refused(DataError, files["ranks"], "contents", expected=naming(), got=naming()):
        PartialRanks.load(files["ranks"])


@pytest.mark.parametrize(
    ("kind", "change", "named"),
    [
        ("ranks", put("tiles", lambda each: each[::-1]), "tiles"),
        ("ranks", put("tiles", lambda each: each + 10**6), "tiles"),
        ("ranks", put("tiles", lambda each: each[:0]), "tiles"),
        ("ranks", put("images", lambda each: each - 10), "images"),
        ("ranks", put("captions", lambda each: each.astype(np.float32)), "captions"),
        ("ranks", put("truths", lambda each: each[:-1]), "sgr.truths"),
        ("ranks", put("sgr.truths", lambda each: each * np.float32(np.nan)), "sgr.truths"),
        ("ranks", put("sgr.images.better", lambda each: -1 - each), "sgr.images"),
        ("ranks", put("sgr.images.better", lambda each: each[1:]), "sgr.images.better"),
        ("ranks", put("saf.captions.counts", lambda each: each * 0), "saf.captions"),
        ("ranks", put("saf.captions.keys", lambda each: each[::-1]), "saf.captions.keys"),
        ("ranks", put("saf.captions.keys", lambda each: each | (1 << 60)), "saf.captions.keys"),
        ("ranks", put("sgraf.truths", lambda each: each.astype(np.int32)), "sgraf.truths"),
        ("ranks", remove("sgraf.truths"), "sgraf.truths"),
        ("ranks", set_field("models", ["sgr"]), "saf.truths"),
        ("ranks", set_field("models", []), "sgr.truths"),
        ("ranks", set_field("images", 2, "whole"), "images"),
        ("ranks", set_field("tiling", 3, "whole"), "whole.tiling"),
        ("ranks", set_field("format", 2), "format"),
        ("ranks", set_field("more", 2), "more"),
        ("ranks", remove_field("scored"), "scored"),
        ("ranks", set_field("scored", {}), "scored"),
        ("ranks", set_field("scored", {"sgr": 1}), "scored"),
        ("ranks", set_field("scored", {"sgr": 1, "saf": 1, "sgr-2": 1}), "scored"),
        ("ranks", set_field("scored", {"sgr": 0, "saf": 0}), "scored"),
        ("ranks", set_field("scored", {"sgr": 1, "saf": -1}), "scored"),
        ("ranks", set_field("scored", {"sgr": 1, "saf": 7 * 35 + 1}), "scored"),
        ("ranks", set_field("scored", {"sgr": 1, "saf": "1"}), "scored.saf"),
        ("top_k", set_field("scored", {"sgr": 1, "saf": -1}), "scored"),
        ("top_k", remove_field("scored"), "scored"),
        ("thresholds", set_field("captions_per_image", 0), "sgr"),
        ("thresholds", set_field("captions_per_image", 4), "sgr"),
        ("thresholds", set_field("slack", -1.0), "slack"),
        ("thresholds", put("saf", lambda each: each[5:]), "saf"),
        ("thresholds", put("saf", lambda each: each / np.float32(0)), "saf"),
        ("thresholds", remove("sgraf"), "sgraf"),
        ("top_k", put("image_keys", lambda each: each[:, ::-1].copy()), "image_keys"),
        ("top_k", put("image_keys", lambda each: each[:, 1:]), "image_keys"),
        ("top_k", put("caption_keys", lambda each: each | 64), "caption_keys"),
        ("top_k", set_field("k", 2, "whole"), "image_keys"),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
def test_what_no_scorer_writes_is_refused(
    kind: str, change: Change, named: str, files: dict[str, Path]
) -> None:
    rewrite(files[kind], change, hashed=True)
    with refused(DataError, files[kind], named):
        LOADERS[kind](files[kind])


@pytest.mark.parametrize("last", FILE_STEPS)
def test_after_a_kill_the_rest_alone_is_counted(
    last: str, exported: Bundle, native: Scorer, tmp_path: Path
) -> None:
    assert run_killed(exported.path, tmp_path, last) == -signal.SIGKILL
    done = KILLED + (last == "published")
    left = sorted(path.name for path in tmp_path.glob("part*.npz"))
    assert left == [f"part{number}.npz" for number in range(done)]
    for name in left:
        PartialRanks.load(tmp_path / name)

    merged, counted = count_into(native, tmp_path)

    assert counted == list(range(done, PARTS))
    found = merged.counts(RankThresholds.load(tmp_path / "thresholds.npz"))
    for model, counts in native.count_ranks(*tied_inputs()).items():
        for name, values in vars(counts).items():
            np.testing.assert_array_equal(getattr(found[model], name), values)
    names = [*(f"part{number}.npz" for number in range(PARTS)), "thresholds.npz", "tiling.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
