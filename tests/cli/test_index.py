"""`sgraf-deploy index` and `sgraf-deploy gallery`, on images and captions of a split."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.cli_world import IMAGES, Ran, World, done, line_naming, refused_line, run
from support.galleries import batch_of, hear, start
from support.refusals import naming

import sgraf_deploy
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.errors import DataError, GateError, InputError, UnavailableError
from sgraf_deploy.gallery import Gallery, library

NAMES = [f"photo{row}.jpg" for row in range(IMAGES)]


def index(world: World, *more: object, data: Path | None = None) -> Ran:
    source = ("--data", data or world.data, "--split", "dev")
    return run("index", world.bundle, *source, "-o", "g", *more)


def indexed(world: World, *more: object, data: Path | None = None) -> str:
    result = index(world, *more, data=data)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def test_images_are_indexed_under_their_names(world: World) -> None:
    first = indexed(world, "--limit-images", 2)
    line_naming(first, "gallery g", 2, 0)
    line_naming(indexed(world), "gallery g", IMAGES - 2, 2, IMAGES)

    split = open_precomp(world.data, "dev")
    with sgraf_deploy.load(world.bundle) as scorer, Gallery.open("g") as gallery:
        assert gallery.ids() == NAMES
        found = scorer.score(gallery.images(scorer, NAMES), split.captions)
        expected = scorer.score(split.regions, split.captions)
        assert np.abs(found - expected).max() <= 1e-6


def test_captions_are_indexed_under_the_numbers_of_their_lines(world: World) -> None:
    indexed(world, "--captions")
    split = open_precomp(world.data, "dev")
    with sgraf_deploy.load(world.bundle) as scorer, Gallery.open("g") as gallery:
        assert gallery.ids() == [str(line + 1) for line in range(5 * IMAGES)]
        assert gallery.details(["3"])[0].metadata == {"caption": split.captions[2]}
        found = scorer.score(split.regions, gallery.captions(scorer, ["30", "1"]))
        expected = scorer.score(split.regions, [split.captions[29], split.captions[0]])
        assert np.abs(found - expected).max() <= 1e-6


def test_captions_under_given_ids(world: World) -> None:
    ids = world.write("ids.txt", "".join(f"c{row}\n" for row in range(5 * IMAGES)))
    indexed(world, "--captions", "--caption-ids", ids)
    assert Gallery.open("g").ids()[:2] == ["c0", "c1"]
    short = world.write("short.txt", "a\n")
    result = run(
        *("index", world.bundle, "--data", world.data, "--split", "dev", "-o", "h"),
        *("--captions", "--caption-ids", short),
    )
    refused_line(result, DataError, short, expected=naming(5 * IMAGES), got=1)
    assert not Path("h").exists()


def test_images_without_names_have_their_rows_as_ids(world: World) -> None:
    data = world.precomp()
    (data / "dev_ids.txt").unlink()
    indexed(world, data=data)
    assert Gallery.open("g").ids() == [str(row) for row in range(IMAGES)]


def test_names_that_do_not_fit_are_refused(world: World) -> None:
    data = world.precomp()
    (data / "dev_ids.txt").write_text("one\ntwo\n")
    refused_line(index(world, data=data), DataError, "dev_ids.txt", expected=naming(IMAGES))
    assert not Path("g").exists()
    (data / "dev_ids.txt").write_text("one\n" * IMAGES)
    refused_line(index(world, data=data), DataError, "one", got=naming(0, 1))
    assert not Path("g").exists()


def test_boxes_and_sizes_are_kept(world: World) -> None:
    data = world.precomp()
    regions = np.load(data / "dev_ims.npy").shape[1]
    boxes = np.arange(IMAGES * regions * 4, dtype=np.float32).reshape(IMAGES, regions, 4)
    np.save(data / "dev_boxes.npy", boxes)
    np.save(data / "dev_sizes.npy", np.full((IMAGES, 2), 640))
    indexed(world, data=data)
    found = Gallery.open("g").details(["photo4.jpg"])[0]
    assert np.array_equal(found.boxes, boxes[4])  # type: ignore[arg-type]
    assert found.size == (640, 640)


def test_other_contents_are_refused_and_then_updated(world: World) -> None:
    indexed(world)
    regions = np.load(world.data / "dev_ims.npy")
    regions[3] *= 0.5
    data = world.precomp(regions)
    hint = "sgraf-deploy gallery update"
    refused_line(index(world, data=data), DataError, "gallery g", got=naming(NAMES[3]), hint=hint)
    source = ("--data", data, "--split", "dev")
    done("gallery", "update", "g", world.bundle, NAMES[3], *source)
    line_naming(indexed(world, data=data), 0, IMAGES)
    refused_line(index(world), DataError, got=naming(NAMES[3]))
    all_of_them = done("gallery", "update", "g", world.bundle, *source).stdout
    line_naming(all_of_them, "gallery g", IMAGES)
    assert Gallery.open("g").ids() == NAMES


@pytest.mark.filterwarnings("ignore:.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("captions", [False, True])
def test_what_save_encoded_wrote_is_imported(world: World, captions: bool) -> None:
    split = open_precomp(world.data, "dev")
    with sgraf_deploy.load(world.bundle) as scorer:
        encoded: Any = (
            scorer.encode_captions(split.captions)
            if captions
            else scorer.encode_images(split.regions)
        )
        scorer.save_encoded(encoded, "encoded.npz")
        ids = world.write("ids.txt", "".join(f"x{row}\n" for row in range(len(encoded))))
        named = ("--captions", "--caption-ids", ids) if captions else ("--ids", ids)
        for added in (len(encoded), 0):
            result = done("index", world.bundle, "--from-npz", "encoded.npz", "-o", "g", *named)
            line_naming(result.stdout, "gallery g", added, len(encoded) - added)
            assert result.stderr == ""
        other = ("index", world.bundle, "--from-npz", "encoded.npz", "-o", "h")
        refused_line(run(*other, *(() if captions else ("--captions",))), InputError, "--from-npz")
        with Gallery.open("g") as gallery:
            found = (gallery.captions if captions else gallery.images)(scorer, ["x4", "x0"])
            expected = encoded[[4, 0]].to_host()
            for member, rows in found.to_host().items():
                for name, array in rows.items():
                    assert np.array_equal(array, expected[member][name])


def test_rows_rounded_to_float16(world: World) -> None:
    indexed(world, "--dtype", "float16")
    report = json.loads(done("gallery", "stats", "g", "--json").stdout)
    assert (report["dtype"], report["count"], report["kind"]) == ("float16", IMAGES, "images")
    config = sgraf_deploy.Bundle.open(world.bundle).manifest.members["sgr"].config
    expected = 2 * config.regions * config.embed
    assert report["row_bytes"]["sgr"]["region_embeddings"] == expected
    refused_line(index(world, "--dtype", "stored"), InputError, "--dtype", expected="float16")
    line_naming(indexed(world, "--dtype", "float16"), 0, IMAGES)


@pytest.mark.parametrize("size", ["2MB", "2 mb", "2000000"])
def test_the_largest_size_is_chosen_once(world: World, size: str) -> None:
    indexed(world, "--max-size", size)
    assert Gallery.open("g").header.max_size == 2_000_000
    refused_line(index(world, "--max-size", "3MB"), InputError, "--max-size", expected=2_000_000)
    indexed(world, "--max-size", "2MB")


@pytest.mark.parametrize("size", ["0", "-5", "many", "5 bytes", "1e9", "99999TB"])
def test_what_is_no_size_is_refused(world: World, size: str) -> None:
    refused_line(index(world, f"--max-size={size}"), InputError)
    assert not Path("g").exists()


def test_a_full_gallery_says_how_to_make_a_larger_one(world: World) -> None:
    indexed(world, "--max-size", "1MB", "--limit-images", 1)
    regions = np.random.default_rng(1).normal(
        size=(3000, *np.load(world.data / "dev_ims.npy").shape[1:])
    )
    data = world.precomp(regions.astype(np.float32))
    (data / "dev_ids.txt").write_text("".join(f"other{row}\n" for row in range(3000)))
    result = index(world, data=data)
    refused_line(result, DataError, "gallery g", hint="--max-size")
    assert Gallery.open("g").ids()[0] == NAMES[0]


def test_the_gallery_of_another_bundle_is_refused(world: World) -> None:
    indexed(world)
    source = ("--data", world.data, "--split", "dev", "-o", "g")
    refused_line(run("index", world.bare, *source), InputError, "gallery g", "members")
    refused_line(index(world, "--captions"), InputError, "gallery g", "kind", got="images")
    update = ("gallery", "update", "g", world.bare, "--data", world.data, "--split", "dev")
    refused_line(run(*update), InputError, "gallery g", "members")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ((), "--from-npz"),
        (("--data", "x"), "--split"),
        (("--split", "dev"), "--data"),
        (("--data", "x", "--split", "dev", "--from-npz", "y"), "--from-npz"),
        (("--data", "x", "--split", "dev", "--ids", "y"), "--ids"),
        (("--data", "x", "--split", "dev", "--caption-ids", "y"), "--caption-ids"),
    ],
)
def test_sources_that_contradict_each_other(
    world: World, options: tuple[str, ...], named: str
) -> None:
    result = run("index", world.bundle, "-o", "g", *options)
    assert named in refused_line(result, InputError)
    assert not Path("g").exists()


def test_deleting_verifying_and_compacting(world: World) -> None:
    indexed(world)
    ids = world.write("ids.txt", f"{NAMES[0]}\n{NAMES[5]}\n")
    line_naming(done("gallery", "delete", "g", NAMES[2], "--ids", ids).stdout, "gallery g", 3)
    left = [NAMES[1], NAMES[3], NAMES[4]]
    refused_line(run("gallery", "delete", "g", NAMES[0], NAMES[1]), DataError, 1)
    refused_line(run("gallery", "delete", "g"), InputError, expected=naming("--ids"))
    line_naming(done("gallery", "verify", "g").stdout, "gallery g", 3)
    line_naming(done("gallery", "compact", "g").stdout, "gallery g")
    stats = done("gallery", "stats", "g").stdout
    line_naming(stats, "gallery g", 3, "fp32")
    for member in ("sgr", "saf"):
        line_naming(stats, member, "region_embeddings")
    assert Gallery.open("g").ids() == left


def test_damage_is_found_and_the_exit_code_says_so(world: World) -> None:
    indexed(world)
    with Gallery.open("g") as gallery:
        rows = gallery.read([NAMES[4]]).arrays["saf"]["region_embeddings"].tobytes()
        path = gallery.path / gallery.header.data
    content = path.read_bytes()
    path.write_bytes(content.replace(rows, rows[:-1] + bytes([rows[-1] ^ 1])))
    result = run("gallery", "verify", "g")
    refused_line(result, GateError, "gallery g", got=naming(1, IMAGES - 1))
    assert len(result.warned) == 1
    assert NAMES[4] in result.warned[0]
    source = ("--data", world.data, "--split", "dev")
    done("gallery", "update", "g", world.bundle, NAMES[4], *source)
    done("gallery", "verify", "g")


@pytest.mark.parametrize("command", ["stats", "verify", "compact", "delete", "update"])
def test_what_is_no_gallery_is_refused(world: World, command: str) -> None:
    more: tuple[object, ...] = ("some-id",) if command == "delete" else ()
    if command == "update":
        more = (world.bundle, "--data", world.data, "--split", "dev")
    result = run("gallery", command, "nothing", *more)
    assert result.exit_code == 2
    assert "sgraf-deploy index" in (result.error.hint if result.error and result.error.hint else "")


def test_a_second_writer_is_refused(world: World) -> None:
    indexed(world)
    with start("holding", world.folder / "g") as child:
        assert hear(child) == "put"
        refused_line(run("gallery", "delete", "g", NAMES[0]), DataError, child.pid)
        refused_line(run("gallery", "compact", "g"), DataError, child.pid)
        child.communicate("\n")
    with Gallery.open("g") as gallery:
        gallery.write(batch_of(gallery.header, ["more"]))


@pytest.mark.parametrize("package", ["lmdb", "xxhash"])
def test_without_the_extra_one_line_says_what_to_install(world: World, package: str) -> None:
    world.monkeypatch.setitem(sys.modules, package, None)
    refused_line(index(world), UnavailableError, package, got="none", hint=library.INSTALL)
    assert not Path("g").exists()
