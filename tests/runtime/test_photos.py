"""Photographs in a scorer: the regions of the bundle's extractor, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import refused
from support.tiny_backbone import png, random_photo, spec_of, write_photos

from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.engines.base import TileAdvice
from sgraf_deploy.errors import BundleError, DataError, InputError
from sgraf_deploy.features.base import RegionExtractor
from sgraf_deploy.features.decode import Source, decode_photo
from sgraf_deploy.features.photographs import Extracted, extract_photos
from sgraf_deploy.features.spec import open_extractor
from sgraf_deploy.runtime.encoded import EncodedImages
from sgraf_deploy.runtime.photos import reader_of
from sgraf_deploy.runtime.scorer import Scorer, load
from sgraf_deploy.runtime.tiles import TileLimits

CAPTIONS = [[1, 17, 9, 2], [1, 30, 2], [1, 5, 6, 7, 8, 2]]


@pytest.fixture(params=["native", "ort", "torch"])
def seeing(request: pytest.FixtureRequest, photographed: Bundle) -> Iterator[Scorer]:
    """A scorer of a bundle that takes photographs, on each engine."""
    with load(photographed, engine=request.param) as scorer:
        yield scorer


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    return write_photos(tmp_path / "photos", range(5))


def rows_of(images: EncodedImages) -> dict[tuple[str, str], NDArray[Any]]:
    """What was encoded, by member and name."""
    return {
        (member, name): array
        for member, named in images.to_host().items()
        for name, array in named.items()
    }


def same_rows(one: EncodedImages, other: EncodedImages) -> None:
    found, expected = rows_of(one), rows_of(other)
    assert list(found) == list(expected)
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=str(name))


def test_photos_are_the_regions_of_the_extractor(seeing: Scorer, photos: list[Path]) -> None:
    regions = extract_photos(seeing.extractor, photos).features.regions

    encoded = seeing.encode_photos(photos)

    assert len(encoded) == len(photos) == len(regions)
    same_rows(encoded, seeing.encode_images(regions))
    one, other = seeing.rerank(CAPTIONS[0], encoded), seeing.rerank(CAPTIONS[0], regions)
    assert one.indices.tolist() == other.indices.tolist()


def test_paths_bytes_and_pictures_are_all_the_same(
    photographed: Bundle, photos: list[Path]
) -> None:
    pictures = [decode_photo(path) for path in photos]
    mixed: list[Source] = [str(photos[0]), photos[1], photos[2].read_bytes(), *pictures[3:]]
    with load(photographed) as scorer:
        expected = scorer.encode_photos(photos)
        same_rows(scorer.encode_photos(mixed), expected)
        same: Any = np.stack([random_photo(seed) for seed in range(3)])
        same_rows(scorer.encode_photos(same), scorer.encode_photos([png(one) for one in same]))
        assert len(scorer.encode_photos([])) == 0


def test_batches_are_those_of_regions_and_progress_counts_photos(
    photographed: Bundle, photos: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []

    def counted(extractor: RegionExtractor, chosen: list[Path], *more: Any) -> Extracted:
        taken.append(len(chosen))
        return extract_photos(extractor, chosen, *more)

    monkeypatch.setattr("sgraf_deploy.runtime.photos.extract_photos", counted)
    told: list[tuple[int, int]] = []
    with load(photographed, engine="ort") as whole:
        small = TileLimits(2**20, TileAdvice(2**20, encoder_bytes=12_000))
        engine = whole._context.engine
        scorer = Scorer(photographed, engine, precision="fp32", limits=small)
        encoded = scorer.encode_photos(photos, progress=lambda *counts: told.append(counts))
        regions = extract_photos(whole.extractor, photos).features.regions
        same_rows(encoded, scorer.encode_images(regions))

    assert len(taken) > 1
    assert sum(taken) == len(photos)
    assert told == [(done, 5) for done in range(1, 6)]


def test_what_cannot_be_read_is_left_out_and_told_in_order(
    photographed: Bundle, photos: list[Path]
) -> None:
    mixed: list[Source] = [photos[0], b"none", photos[1], "nowhere.jpg", photos[2]]
    small = TileLimits(2**20, TileAdvice(2**20, encoder_bytes=12_000))
    with load(photographed, engine="ort") as whole:
        scorer = Scorer(photographed, whole._context.engine, precision="fp32", limits=small)
        told: list[tuple[int, type[Exception]]] = []
        encoded = scorer.encode_photos(
            mixed, unread=lambda row, reason: told.append((row, type(reason)))
        )
        same_rows(encoded, scorer.encode_photos(photos[:3]))
        assert told == [(1, DataError), (3, DataError)]
        nothing = scorer.encode_photos([b"none"], unread=lambda row, reason: None)
        assert len(nothing) == 0
        with refused(DataError, "photo 1"):
            scorer.encode_photos(mixed)


def test_a_batch_that_is_halved_is_not_counted_twice(backbone_file: Path) -> None:
    told: list[int] = []
    extractor = open_extractor(spec_of(backbone_file))
    pictures = [random_photo(seed) for seed in range(4)]
    read = reader_of(extractor, pictures, lambda done, total: told.append(done))

    for rows in (slice(0, 4), slice(0, 2), slice(2, 4)):
        assert len(read(rows)) == rows.stop - rows.start

    assert told == [1, 2, 3, 4]


def test_without_an_extractor_the_error_says_how_to_get_one(exported: Bundle) -> None:
    with load(exported) as scorer:
        for call in (lambda: scorer.encode_photos(["a.jpg"]), lambda: scorer.extractor):
            with refused(BundleError, exported.path, hint="export --extractor"):
                call()


@pytest.mark.parametrize("given", [["a.jpg"], "a.jpg", Path("a.jpg"), [b"\xff\xd8"], b"\xff\xd8"])
def test_photographs_given_as_regions_are_told_where_to_go(exported: Bundle, given: object) -> None:
    with load(exported) as scorer, refused(DataError, "regions", hint="encode_photos"):
        scorer.encode_images(given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("photo.png", ("photos",)),
        (b"\xff\xd8", ("photos",)),
        (random_photo(0), ("photos",)),
        ([3.5], ("photo 0",)),
        ([random_photo(0).astype(np.float32)], ("photo 0",)),
        (["absent.png"], ("absent.png",)),
        ([random_photo(0), b"no picture"], ("photo 1",)),
    ],
    ids=["one-path", "one-file", "one-picture", "number", "floats", "absent", "no-picture"],
)
def test_what_is_no_photograph_is_named(
    photographed: Bundle, given: Any, names: tuple[str, ...]
) -> None:
    with load(photographed) as scorer, refused(DataError, *names):
        scorer.encode_photos(given)


def test_a_closed_scorer_has_no_extractor(photographed: Bundle) -> None:
    scorer = load(photographed)
    extractor = scorer.extractor
    assert scorer.extractor is extractor
    scorer.close()
    with refused(InputError, "closed"):
        scorer.encode_photos([random_photo(0)])


def test_loading_and_scoring_need_no_pillow(photographed: Bundle, tmp_path: Path) -> None:
    """In a process of its own, in which neither Pillow nor PyTorch can be imported."""
    code = (
        "import sys\n"
        "sys.modules['PIL'] = sys.modules['torch'] = None\n"
        "import numpy as np, sgraf_deploy\n"
        "from sgraf_deploy.errors import UnavailableError\n"
        f"scorer = sgraf_deploy.load({str(photographed.path)!r}, engine='ort')\n"
        "print(scorer.score(np.ones((1, 7, 64), np.float32), [[1, 5, 2]]).shape)\n"
        "try:\n"
        "    scorer.encode_photos(['a.png'])\n"
        "except UnavailableError as error:\n"
        "    print(error.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    shape, hint = done.stdout.splitlines()
    assert shape == "(1, 1)"
    assert "images" in hint


def test_images_are_bound_to_the_extractor(photographed: Bundle, exported: Bundle) -> None:
    made = photographed.manifest.extractor
    assert made is not None
    with load(photographed) as one, load(exported) as other:
        for member in one.members:
            assert one.image_encoding.members[member]["extractor"] == made.identity
            assert "extractor" not in other.image_encoding.members[member]
        assert one.text_encoding == other.text_encoding
        with refused(InputError, "extractor", got="none"):
            one.image_encoding.check(other.image_encoding, "images")
