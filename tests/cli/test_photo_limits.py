"""Photographs that are too large, by one limit everywhere, and what Pillow says of photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.cli_world import Ran, World, done, line_naming, refused_line, run
from support.photographs import bomb, exif, picture_file, quarters
from support.refusals import naming
from support.tiny_backbone import write_photos

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.cli.photos import SKIPPED
from sgraf_deploy.config import MAX_PIXELS, MOST_PIXELS
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.features.decode import decode_photo

RERANK = ("rerank", "--images", "photos", "--caption", "word3 word7 word11")
INDEX = ("index", "--photos", "photos", "-o", "g")


@pytest.fixture
def photos(world: World) -> list[Path]:
    """Photographs of 64, 80 and 96 × 64 pixels."""
    return write_photos(world.folder / "photos", range(3))


def on(bundle: Bundle, given: tuple[str, ...], *more: object) -> Ran:
    """Run a command on a bundle."""
    command, *options = given
    return run(command, bundle.path, *options, *more)


def left_out(result: Ran) -> list[str]:
    """The photographs that were left out, once the exit code says that some were."""
    assert result.exit_code == SKIPPED, result.output
    return [line.split()[1].removesuffix(":") for line in result.warned]


@pytest.mark.parametrize(
    "given",
    [
        ("rerank", "--data", "d", "--split", "dev", "--caption", "word3"),
        ("rerank", "--gallery", "g", "--images", "h", "--image", "3"),
        ("index", "--data", "d", "--split", "dev", "-o", "g"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_max_pixels_goes_with_photographs(photographed: Bundle, given: tuple[str, ...]) -> None:
    refused_line(on(photographed, given, "--max-pixels", 9), InputError, "--max-pixels")


LIMIT = 5000
"""Pixels, of which photo1.png and photo2.png have more."""


@pytest.mark.parametrize("given", [RERANK, INDEX], ids=["rerank", "index"])
@pytest.mark.usefixtures("photos")
def test_larger_photographs_are_left_out_by_a_limit(
    photographed: Bundle, given: tuple[str, ...]
) -> None:
    result = on(photographed, given, "--max-pixels", LIMIT)
    assert left_out(result) == ["photo1.png", "photo2.png"]
    for line in result.warned:
        line_naming(line, LIMIT, "--max-pixels")
    assert on(photographed, given, "--max-pixels", 100 * LIMIT).exit_code == 0


def test_a_limit_holds_where_galleries_are_updated_and_asked(
    world: World, photos: list[Path], photographed: Bundle
) -> None:
    limit = ("--max-pixels", LIMIT)
    done(INDEX[0], photographed.path, *INDEX[1:])
    update = ("gallery", "update", "g", photographed.path, "--photos", "photos")
    assert left_out(run(*update, *limit)) == ["photo1.png", "photo2.png"]
    split = ("--data", world.data, "--split", "dev")
    refused_line(run(*update[:4], *split, *limit), InputError, "--max-pixels")
    done("index", photographed.path, *split, "--captions", "-o", "captions")
    for candidates in (("--gallery", "captions"), split):
        query = ("rerank", photographed.path, *candidates, "--photo", photos[1])
        expected = naming(LIMIT)
        refused_line(
            run(*query, *limit), DataError, photos[1], expected=expected, hint="--max-pixels"
        )
        done(*query, "--max-pixels", 2 * LIMIT)


@pytest.mark.parametrize("more", [0, MOST_PIXELS + 1])
def test_the_limit_is_at_most_pillows(photographed: Bundle, more: int) -> None:
    result = on(photographed, RERANK, "--max-pixels", more)
    assert result.exit_code == 2
    line_naming(result.stderr, "--max-pixels", MOST_PIXELS)


@pytest.mark.parametrize("given", [RERANK, INDEX], ids=["rerank", "index"])
@pytest.mark.usefixtures("photos")
def test_nothing_that_pillow_says_shows(
    world: World, photographed: Bundle, given: tuple[str, ...]
) -> None:
    """It warns of 10,000 × 10,000 pixels, which are refused, and of EXIF, which is left aside."""
    (world.folder / "photos" / "a.png").write_bytes(bomb(10_000))
    (world.folder / "photos" / "b.jpg").write_bytes(broken_exif())

    result = on(photographed, given)

    assert left_out(result) == ["a.png"]
    line_naming(result.warned[0], MAX_PIXELS, "--max-pixels")


def broken_exif() -> bytes:
    """A JPEG whose EXIF ends early, of which Pillow warns."""
    content = picture_file(quarters(), "JPEG", exif=exif(6))
    fields = content.index(b"Exif\0\0") + 14
    damaged = content[: fields + 1] + b"\x09" + content[fields + 2 :]  # nine fields, of one
    with pytest.warns(UserWarning, match="EXIF"):
        decode_photo(damaged)
    return damaged
