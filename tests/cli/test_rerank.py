"""`sgraf-deploy rerank` in both directions."""

from __future__ import annotations

import pytest
from support.cli_world import IMAGES, World, done, line_naming

import sgraf_deploy
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.runtime import RerankResult


def ranking(stdout: str) -> list[list[str]]:
    """The cells of the rows of the table."""
    lines = stdout.splitlines()
    rule = next(index for index, line in enumerate(lines) if line.strip().startswith("---"))
    return [line.split() for line in lines[rule + 1 :]]


def shown(result: RerankResult) -> list[list[str]]:
    """What the numeric columns must be."""
    return [
        [str(rank), f"{similarity:.4f}", f"{logit:+.3f}", str(row)]
        for rank, (similarity, logit, row) in enumerate(
            zip(result.similarities, result.logits, result.indices, strict=True), start=1
        )
    ]


def rerank(world: World, *more: object) -> str:
    arguments = ("--data", world.data, "--split", "dev")
    result = done("rerank", world.bundle, *arguments, *more)
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize("top_k", [1, 4, 99])
def test_images_for_a_caption(world: World, top_k: int) -> None:
    caption = "word3 word7 nowhere word11"

    stdout = rerank(world, "--caption", caption, "--top-k", top_k)

    split = open_precomp(world.data, "dev")
    with sgraf_deploy.load(world.bundle) as scorer:
        expected = scorer.rerank(caption, scorer.encode_images(split.regions), top_k)
    assert len(expected) == min(top_k, IMAGES)
    found = ranking(stdout)
    assert [row[:4] for row in found] == shown(expected)
    assert [row[4] for row in found] == [f"photo{row}.jpg" for row in expected.indices]
    line_naming(stdout, "word3 word7 nowhere word11", 1, 4)
    line_naming(stdout, len(expected), 6)


@pytest.mark.parametrize("image", [0, 5])
def test_captions_for_an_image(world: World, image: int) -> None:
    stdout = rerank(world, "--image", image, "--top-k", 30)

    split = open_precomp(world.data, "dev")
    with sgraf_deploy.load(world.bundle) as scorer:
        expected = scorer.rerank(split.regions[image], split.captions, 30)
    found = ranking(stdout)
    assert [row[:4] for row in found] == shown(expected)
    for row, caption in zip(found, expected.indices, strict=True):
        own = ["*"] if caption // 5 == image else []
        assert row[4:] == [*own, *split.captions[caption].split()]
    assert sum(row[4] == "*" for row in found) == 5
    line_naming(stdout, image, f"photo{image}.jpg")
    line_naming(stdout, 30, "*")


def test_ten_are_shown_unless_asked_for_more(world: World) -> None:
    assert len(ranking(rerank(world, "--image", 1))) == 10


def test_images_without_names_have_their_rows(world: World) -> None:
    data = world.precomp()
    (data / "dev_ids.txt").unlink()
    arguments = ("--data", data, "--split", "dev", "--caption", "word5")

    stdout = done("rerank", world.bundle, *arguments).stdout

    assert [row[4:] for row in ranking(stdout)] == [["image", row[3]] for row in ranking(stdout)]


def test_only_the_first_images_are_candidates(world: World) -> None:
    stdout = rerank(world, "--caption", "word5", "--limit-images", 2)

    assert {row[3] for row in ranking(stdout)} == {"0", "1"}


def test_engines_agree(world: World) -> None:
    one = ranking(rerank(world, "--image", 2, "--engine", "ort"))
    other = ranking(rerank(world, "--image", 2, "--engine", "torch"))

    assert [row[3] for row in one] == [row[3] for row in other]
    first = rerank(world, "--image", 2, "--engine", "torch").splitlines()[0]
    line_naming(first, "small.sgraf", "SGRAF", "sgr", "saf", "torch", "fp32", "cpu")


def test_a_query_that_the_model_cannot_see_is_warned_of(world: World) -> None:
    arguments = ("--data", world.data, "--split", "dev")

    unknown = done("rerank", world.bundle, *arguments, "--caption", "zebras graze")
    partly = done("rerank", world.bundle, *arguments, "--caption", "zebras graze word3")

    assert unknown.warned == ["unknown-captions"]
    assert partly.stderr == ""
