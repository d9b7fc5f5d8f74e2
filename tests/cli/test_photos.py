"""Photographs on the command line: `rerank --images`, `rerank --photo` and `index --photos`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.cli_world import Ran, World, done, line_naming, refused_line, run
from support.refusals import naming
from support.tiny_backbone import png, random_photo, write_photos

import sgraf_deploy
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.cli.photos import SKIPPED
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.errors import BundleError, DataError, InputError
from sgraf_deploy.features.photographs import extract_photos
from sgraf_deploy.gallery import Gallery
from sgraf_deploy.runtime import RerankResult

CAPTION = "word3 word7 word11"
PHOTOS = 4


@pytest.fixture
def photos(world: World) -> list[Path]:
    """Photographs in a folder and one below it, by their ids."""
    paths = write_photos(world.folder / "photos", range(PHOTOS))
    below = world.folder / "photos" / "trip"
    below.mkdir()
    return [*paths[:-1], paths[-1].rename(below / "last.png")]


def ranking(stdout: str) -> list[list[str]]:
    """The cells of the rows of the table."""
    lines = stdout.splitlines()
    rule = next(index for index, line in enumerate(lines) if line.strip().startswith("---"))
    return [line.split() for line in lines[rule + 1 :]]


def shown(result: RerankResult) -> list[list[str]]:
    """What the numeric columns must be."""
    return [
        [str(rank), f"{item.similarity:.4f}", f"{item.logit:+.3f}"]
        for rank, item in enumerate(result, start=1)
    ]


def test_photographs_are_ranked_for_a_caption(
    world: World, photos: list[Path], photographed: Bundle
) -> None:
    (world.folder / "photos" / "notes.txt").write_text("no photograph")

    result = done("rerank", photographed.path, "--images", "photos", "--caption", CAPTION)

    with sgraf_deploy.load(photographed) as scorer:
        expected = scorer.rerank(CAPTION, scorer.encode_photos(photos))
    names = ["photo0.png", "photo1.png", "photo2.png", "trip/last.png"]
    found = ranking(result.stdout)
    assert [row[:3] for row in found] == shown(expected)
    assert [row[-1] for row in found] == [names[row] for row in expected.indices]
    line_naming(result.stdout, PHOTOS, "photographs")


@pytest.mark.parametrize("images", [True, False], ids=["split", "captions-alone"])
def test_captions_are_ranked_for_a_photograph(
    world: World, photos: list[Path], photographed: Bundle, images: bool
) -> None:
    split = open_precomp(world.data, "dev")
    data = world.precomp(split.regions)
    if not images:
        (data / "dev_ims.npy").unlink()
    options = ("--photo", photos[1], "--data", data, "--split", "dev", "--top-k", 30)

    result = done("rerank", photographed.path, *options)

    with sgraf_deploy.load(photographed) as scorer:
        expected = scorer.rerank(scorer.encode_photos(photos[1:2]), split.captions)
    assert [row[:3] for row in ranking(result.stdout)] == shown(expected)
    line_naming(result.stdout, photos[1])
    line_naming(result.stdout, split.captions[expected.indices[0]])


def test_a_gallery_of_captions_is_ranked_for_a_photograph(
    world: World, photos: list[Path], photographed: Bundle
) -> None:
    split = ("--data", world.data, "--split", "dev")
    done("index", photographed.path, *split, "--captions", "-o", "captions")

    gallery = ("--gallery", "captions", "--photo", photos[0], "--top-k", 30, "--json", "a.json")
    result = done("rerank", photographed.path, *gallery)

    texts = open_precomp(world.data, "dev").captions
    with sgraf_deploy.load(photographed) as scorer:
        expected = scorer.rerank(scorer.encode_photos(photos[:1]), texts)
    found = [row[:3] for row in ranking(result.stdout) if row[0] != "wrote"]
    assert found == shown(expected)
    assert '"photo": ' in Path("a.json").read_text()


def test_photographs_are_indexed_with_boxes_and_sizes(
    world: World, photos: list[Path], photographed: Bundle
) -> None:
    ids = ["photo0.png", "photo1.png", "photo2.png", "trip/last.png"]
    index = ("index", photographed.path, "--photos", "photos", "-o", "g")
    line_naming(done(*index, "--limit-images", 2).stdout, "gallery g", 2, 0)
    line_naming(done(*index).stdout, "gallery g", 2, 2, PHOTOS)

    with sgraf_deploy.load(photographed) as scorer, Gallery.open("g") as gallery:
        made = extract_photos(scorer.extractor, photos)
        assert gallery.ids() == ids
        for details, boxes, size in zip(
            gallery.details(ids), made.features.boxes, made.sizes, strict=True
        ):
            assert details.size == tuple(size)
            assert details.boxes is not None
            np.testing.assert_array_equal(details.boxes, boxes)
        expected = scorer.score(scorer.encode_photos(photos), [CAPTION])
        found = scorer.score(gallery.images(scorer, ids), [CAPTION])
        np.testing.assert_allclose(found, expected, atol=1e-6)
    ranked = done("rerank", photographed.path, "--gallery", "g", "--caption", CAPTION)
    assert {row[3] for row in ranking(ranked.stdout)} == {*ids}


def test_another_photograph_of_the_same_name_is_told(
    world: World, photos: list[Path], photographed: Bundle
) -> None:
    index = ("index", photographed.path, "--photos", "photos", "-o", "g")
    done(*index)
    photos[2].write_bytes(png(random_photo(77)))

    refused_line(run(*index), DataError, "gallery g", 1, got=naming("photo2.png"))


@pytest.mark.parametrize(
    "given",
    [
        ("rerank", "--images", "photos", "--caption", CAPTION),
        ("rerank", "--photo", "photos/photo0.png", "--data", "DATA", "--split", "dev"),
        ("index", "--photos", "photos", "-o", "g"),
    ],
    ids=["images", "photo", "index"],
)
@pytest.mark.usefixtures("photos")
def test_a_bundle_without_an_extractor_says_how_to_get_one(
    world: World, given: tuple[str, ...]
) -> None:
    command, *options = (str(world.data) if one == "DATA" else one for one in given)

    result = run(command, world.bundle, *options)

    refused_line(result, BundleError, world.bundle, hint="export --extractor")
    assert not Path("g").exists()


WRONG: dict[str, tuple[tuple[object, ...], str]] = {
    "no-caption": (("--images", "photos", "--image", "3"), "--images"),
    "photo-and-caption": (("--photo", "photos/photo0.png", "--caption", CAPTION), "query"),
    "images-and-data": (
        ("--images", "photos", "--caption", CAPTION, "--data", "d", "--split", "dev"),
        "--data",
    ),
    "photo-alone": (("--photo", "photos/photo0.png"), "candidates"),
    "images-and-json": (("--images", "photos", "--caption", CAPTION, "--json", "a"), "--json"),
}


@pytest.mark.parametrize(("options", "named"), WRONG.values(), ids=WRONG)
@pytest.mark.usefixtures("photos")
def test_options_that_do_not_go_together_are_refused(
    photographed: Bundle, options: tuple[object, ...], named: str
) -> None:
    refused_line(run("rerank", photographed.path, *options), InputError, named)


@pytest.mark.parametrize(
    "more", [("--data", "d"), ("--captions",), ("--ids", "a.txt"), ("--from-npz", "a.npz")]
)
@pytest.mark.usefixtures("photos")
def test_photos_are_the_only_source_of_an_index(
    photographed: Bundle, more: tuple[str, ...]
) -> None:
    result = run("index", photographed.path, "--photos", "photos", "-o", "g", *more)

    refused_line(result, InputError)
    assert not Path("g").exists()


@pytest.mark.parametrize("limit", [-1, 0, PHOTOS + 1])
@pytest.mark.usefixtures("photos")
def test_a_limit_of_images_is_one_of_the_photographs(photographed: Bundle, limit: int) -> None:
    result = on(photographed, INDEX, "--limit-images", limit)

    refused_line(result, InputError, "--limit-images", expected=naming(PHOTOS), got=limit)
    assert not Path("g").exists()


RERANK = ("rerank", "--images", "photos", "--caption", CAPTION)
INDEX = ("index", "--photos", "photos", "-o", "g")


def on(bundle: Bundle, given: tuple[str, ...], *more: object) -> Ran:
    """Run a command on a bundle."""
    command, *options = given
    return run(command, bundle.path, *options, *more)


@pytest.mark.parametrize("given", [RERANK, INDEX], ids=["rerank", "index"])
def test_a_file_that_is_no_photograph_stops_on_request(
    photos: list[Path], photographed: Bundle, given: tuple[str, ...]
) -> None:
    photos[1].write_bytes(photos[1].read_bytes()[:100])

    refused_line(on(photographed, given, "--on-error", "stop"), DataError, "photo1.png")


def damage(photos: list[Path]) -> None:
    """A file that is cut off, and one that is not there: photo1.png and photo2.png."""
    photos[1].write_bytes(photos[1].read_bytes()[:100])
    photos[2].unlink()
    photos[2].symlink_to("nowhere")


def left_out(result: Ran) -> list[str]:
    """The photographs that were left out, once the exit code says that some were."""
    assert result.exit_code == SKIPPED, result.output
    return [line.split()[1].removesuffix(":") for line in result.warned]


@pytest.mark.usefixtures("world")
def test_what_cannot_be_read_is_left_out_of_a_ranking(
    photos: list[Path], photographed: Bundle
) -> None:
    damage(photos)
    result = on(photographed, RERANK)

    with sgraf_deploy.load(photographed) as scorer:
        expected = scorer.rerank(CAPTION, scorer.encode_photos([photos[0], photos[3]]))
    found = ranking(result.stdout)
    assert [row[:3] for row in found] == shown(expected)
    names = ["photo0.png", "trip/last.png"]
    assert [row[-1] for row in found] == [names[row] for row in expected.indices]
    assert left_out(result) == ["photo1.png", "photo2.png"]


@pytest.mark.usefixtures("world")
def test_what_cannot_be_read_is_left_out_of_a_gallery(
    photos: list[Path], photographed: Bundle
) -> None:
    damage(photos)
    result = on(photographed, INDEX)
    assert left_out(result) == ["photo1.png", "photo2.png"]
    line_naming(result.stdout, "gallery g", 2, 0)
    # It is tried again, and one that was read before stays as it was.
    photos[0].unlink()
    photos[0].symlink_to("nowhere")
    again = on(photographed, INDEX)
    assert left_out(again) == ["photo0.png", "photo1.png", "photo2.png"]
    with Gallery.open("g") as gallery:
        assert gallery.ids() == ["photo0.png", "trip/last.png"]


@pytest.mark.usefixtures("world")
def test_where_nothing_can_be_read_nothing_is_ranked(
    photos: list[Path], photographed: Bundle
) -> None:
    for photo in photos:
        photo.write_bytes(b"none")

    refused_line(on(photographed, RERANK), DataError, "photographs", got=naming("photo0.png"))


def test_photographs_of_a_gallery_are_encoded_anew(
    photos: list[Path], photographed: Bundle
) -> None:
    done(INDEX[0], photographed.path, *INDEX[1:])
    photos[0].write_bytes(png(random_photo(77)))
    refused_line(on(photographed, INDEX), DataError, hint="sgraf-deploy gallery update")
    update = ("gallery", "update", "g", photographed.path, "--photos", "photos")

    line_naming(done(*update, "photo0.png").stdout, "gallery g", 1)

    line_naming(on(photographed, INDEX).stdout, "gallery g", 0, PHOTOS)
    with sgraf_deploy.load(photographed) as scorer, Gallery.open("g") as gallery:
        expected = scorer.score(scorer.encode_photos(photos), [CAPTION])
        found = scorer.score(gallery.images(scorer, gallery.ids()), [CAPTION])
        np.testing.assert_allclose(found, expected, atol=1e-6)
        before = found[1:3]
    damage(photos)
    result = run(*update)
    assert left_out(result) == ["photo1.png", "photo2.png"]
    line_naming(result.stdout, "gallery g", 2)
    with sgraf_deploy.load(photographed) as scorer, Gallery.open("g") as gallery:
        found = scorer.score(gallery.images(scorer, gallery.ids()), [CAPTION])
        np.testing.assert_array_equal(found[1:3], before)
    refused_line(run(*update, "--on-error", "stop"), DataError, "photo1.png")
    refused_line(run(*update, "--data", "d"), InputError)
    refused_line(run(*update[:4]), InputError, expected=naming("--data", "--photos"))


@pytest.mark.parametrize(
    "given",
    [
        ("rerank", "--photo", "photos/photo0.png", "--gallery", "g"),
        ("rerank", "--gallery", "g", "--images", "h", "--image", "3"),
        ("index", "--data", "d", "--split", "dev", "-o", "g"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_on_error_goes_with_a_folder_of_photographs(
    photographed: Bundle, given: tuple[str, ...]
) -> None:
    refused_line(on(photographed, given, "--on-error", "skip"), InputError, "--on-error")


@pytest.mark.usefixtures("world")
def test_a_folder_that_grows_and_changes_is_indexed_again(
    photos: list[Path], photographed: Bundle
) -> None:
    ids = ["photo0.png", "photo1.png", "photo2.png", "trip/last.png"]
    done(INDEX[0], photographed.path, *INDEX[1:])
    photos[1].write_bytes(png(random_photo(77)))
    new = photos[0].with_name("new.png")
    new.write_bytes(png(random_photo(78)))
    update = run("gallery", "update", "g", photographed.path, "--photos", "photos")
    refused_line(update, DataError, "gallery g", 1, hint="index --replace")
    refused_line(on(photographed, INDEX), DataError, "gallery g", 1, hint="index --replace")

    result = done(INDEX[0], photographed.path, *INDEX[1:], "--replace")

    line_naming(result.stdout, "gallery g", 1, PHOTOS - 1, PHOTOS + 1)
    with sgraf_deploy.load(photographed) as scorer, Gallery.open("g") as gallery:
        assert gallery.ids() == [*ids, "new.png"]
        expected = scorer.score(scorer.encode_photos([*photos, new]), [CAPTION])
        found = scorer.score(gallery.images(scorer, gallery.ids()), [CAPTION])
        np.testing.assert_allclose(found, expected, atol=1e-6)
    line_naming(on(photographed, INDEX).stdout, "gallery g", 0, PHOTOS + 1)
