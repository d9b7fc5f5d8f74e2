"""`sgraf-deploy rerank --gallery` in both directions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from support.cli_world import World, done, line_naming, refused_line, run
from support.refusals import naming

import sgraf_deploy
from sgraf_deploy.data.precomp import PrecompSplit, open_precomp
from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.gallery import Batch, Details
from sgraf_deploy.runtime import RerankResult

CAPTION = "word3 word7 nowhere word11"


@dataclass(frozen=True)
class Stored:
    """A split's images and captions as galleries, and the scorer that encoded them."""

    scorer: sgraf_deploy.Scorer
    split: PrecompSplit
    images: Path
    captions: Path

    @property
    def names(self) -> list[str]:
        return [f"photo{row}.jpg" for row in range(self.split.images)]


@pytest.fixture
def stored(world: World) -> Iterator[Stored]:
    split = open_precomp(world.data, "dev")
    images, captions = world.folder / "dev.images", world.folder / "dev.captions"
    with sgraf_deploy.load(world.bundle) as scorer:
        found = Stored(scorer, split, images, captions)
        details = [Details({"row": row}) for row in range(split.images)]
        sgraf_deploy.Gallery.create(images, scorer).write(
            Batch.of(found.names, scorer.encode_images(split.regions), details=details)
        )
        texts = [Details({"caption": text}) for text in split.captions]
        ids = [f"line-{row}" for row in range(len(texts))]
        sgraf_deploy.Gallery.create(captions, scorer, "captions").write(
            Batch.of(ids, scorer.encode_captions(split.captions), details=texts)
        )
        yield found


def ranking(stdout: str) -> list[list[str]]:
    """The cells of the rows of the table."""
    lines = stdout.splitlines()
    rule = next(index for index, line in enumerate(lines) if line.strip().startswith("---"))
    return [line.split() for line in lines[rule + 1 :] if not line.startswith("wrote ")]


def shown(result: RerankResult) -> list[list[str]]:
    """What the first columns must be."""
    return [
        [str(rank), f"{item.similarity:.4f}", f"{item.logit:+.3f}", item.id]
        for rank, item in enumerate(result, start=1)
    ]


def test_images_for_a_caption(world: World, stored: Stored) -> None:
    asked = [stored.names[row] for row in (4, 0, 2, 5)]
    ids = world.write("ids.txt", "\n".join(asked) + "\n")
    arguments = ("--gallery", stored.images, "--ids", ids, "--caption", CAPTION, "--top-k", 3)

    result = done("rerank", world.bundle, *arguments, "--json", "ranking.json")

    regions = stored.split.regions[[4, 0, 2, 5]]
    expected = stored.scorer.rerank(CAPTION, regions, 3, ids=asked)
    assert result.stderr == ""
    found = ranking(result.stdout)
    assert [row[:4] for row in found] == shown(expected)
    assert [row[4:] for row in found] == [
        json.dumps({"row": stored.names.index(item.id)}).split() for item in expected
    ]
    line_naming(result.stdout, *CAPTION.split(), 1, 4)
    line_naming(result.stdout, 3, 4)
    report = json.loads((world.folder / "ranking.json").read_text("utf-8"))
    assert [row["id"] for row in report["results"]] == list(expected.ids or ())
    assert [row["rank"] for row in report["results"]] == [1, 2, 3]
    np.testing.assert_allclose(
        [row["logit"] for row in report["results"]], expected.logits, atol=1e-5
    )
    assert report["query"] == {"caption": CAPTION}
    assert report["candidates"] == 4
    assert (report["direction"], report["missing"]) == ("text_to_image", [])
    assert report["bundle"] == {"name": world.bundle.name, "sha256": stored.scorer.bundle.sha256}
    assert (report["engine"], report["executed"]) == (stored.scorer.engine_name, "fp32")


@pytest.mark.parametrize("more", [(), ("--resident", "all")], ids=["read", "resident"])
def test_without_ids_it_ranks_the_whole_gallery(
    world: World, stored: Stored, more: tuple[str, ...]
) -> None:
    query = ("--gallery", stored.images, "--caption", CAPTION, *more)

    stdout = done("rerank", world.bundle, *query).stdout

    expected = stored.scorer.rerank(CAPTION, stored.split.regions, ids=stored.names)
    assert [row[:4] for row in ranking(stdout)] == shown(expected)


@pytest.mark.parametrize("way", ["id", "regions"])
def test_captions_for_an_image(world: World, stored: Stored, way: str) -> None:
    np.save(world.folder / "one.npy", stored.split.regions[2:3])
    query = {
        "id": ("--image", "photo2.jpg", "--images", stored.images),
        "regions": ("--regions", "one.npy"),
    }[way]

    stdout = done("rerank", world.bundle, "--gallery", stored.captions, *query).stdout

    ids = [f"line-{row}" for row in range(len(stored.split.captions))]
    expected = stored.scorer.rerank(stored.split.regions[2], stored.split.captions, 10, ids=ids)
    found = ranking(stdout)
    assert [row[:4] for row in found] == shown(expected)
    for row, item in zip(found, expected, strict=True):
        assert row[4:] == stored.split.captions[item.index].split()
    line_naming(stdout, "photo2.jpg" if way == "id" else "one.npy")
    line_naming(stdout, 10, len(ids))


def test_ids_that_are_missing_are_an_error_or_a_warning(world: World, stored: Stored) -> None:
    ids = world.write("ids.txt", "photo1.jpg\nnone.jpg\nphoto0.jpg\n")
    query = ("--gallery", stored.images, "--caption", CAPTION, "--ids", ids)

    refused_line(run("rerank", world.bundle, *query), DataError, 1, got=repr("none.jpg"))
    result = done("rerank", world.bundle, *query, "--skip-missing", "--json", "ranking.json")

    (warning,) = result.warned
    assert "none.jpg" in warning
    assert {row[3] for row in ranking(result.stdout)} == {"photo0.jpg", "photo1.jpg"}
    line_naming(result.stdout, "the best", 2)
    report = json.loads((world.folder / "ranking.json").read_text("utf-8"))
    assert (report["missing"], report["candidates"]) == (["none.jpg"], 2)


def test_what_does_not_go_together_is_refused(world: World, stored: Stored) -> None:
    images, captions = ("--gallery", stored.images), ("--gallery", stored.captions)
    caption, image = ("--caption", "word3"), ("--image", "photo1.jpg")
    split = ("--data", world.data, "--split", "dev")
    np.save(world.folder / "two.npy", stored.split.regions[:2])
    for arguments, names, expected in (
        (caption, ["candidates"], naming("--gallery", "--data", "--split")),
        ((*split[:2], *caption), ["candidates"], naming("--split")),
        ((*images, *image), ["query", "images"], naming("--caption")),
        ((*captions, *caption), ["query", "captions"], naming("--image", "--regions")),
        ((*captions, *image), ["--image", "--images"], naming()),
        ((*images, *caption, "--images", stored.images), ["--image", "--images"], naming()),
        ((*images, *caption, *image), ["query"], naming("--caption", "--image", "--regions")),
        ((*images, *caption, *split), ["--data"], naming("--gallery")),
        ((*images, *caption, "--limit-images", 0), ["--limit-images"], naming("--gallery")),
        ((*split, *caption, "--ids", "a.txt"), ["--ids"], naming("--gallery")),
        ((*split, *caption, "--json", "a.json"), ["--json"], naming("--gallery")),
        ((*split, *caption, "--resident", "all"), ["--resident"], naming("--gallery")),
        ((*split, *caption, "--skip-missing"), ["--skip-missing"], naming("--gallery")),
        ((*split, "--regions", "two.npy"), ["--regions"], naming("--gallery")),
    ):
        result = run("rerank", world.bundle, *arguments)
        refused_line(result, InputError, *names, expected=expected)
    result = run("rerank", world.bundle, *captions, "--regions", "two.npy")
    refused_line(result, DataError, "two.npy", got=2)
    result = run("rerank", world.bundle, *images, *caption, "--json", "no/where.json")
    refused_line(result, InputError, "--json")


def test_a_gallery_of_other_images_is_refused(world: World, stored: Stored) -> None:
    query = ("--gallery", stored.images, "--caption", CAPTION)
    result = run("rerank", world.bundle, *query, "--engine", "torch", "--precision", "fp16")
    refused_line(result, DataError, "precision", expected="fp16", got="fp32", hint=naming())


def test_an_image_may_be_named_in_a_split_too(world: World) -> None:
    split = ("--data", world.data, "--split", "dev", "--top-k", 3)
    by_name = done("rerank", world.bundle, *split, "--image", "photo4.jpg").stdout
    assert by_name == done("rerank", world.bundle, *split, "--image", 4).stdout
