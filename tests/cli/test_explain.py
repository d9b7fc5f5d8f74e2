"""`sgraf-deploy explain`: the table, the second image, JSON, and the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from support.cli_world import IMAGES, World, done, line_naming, refused_line, run
from support.pages import read_page
from support.refusals import ANY, naming
from support.small_models import SGR

import sgraf_deploy
from sgraf_deploy.data.precomp import open_precomp
from sgraf_deploy.errors import DataError, InputError, SgrafDeployError

CAPTION = "word3 word7 nowhere word11"
PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x46\0\0\0\x32" + bytes(9)
"""The beginning of a picture of 70 × 50 pixels."""


def arguments(world: World, *more: object, image: object = 2) -> tuple[object, ...]:
    given = ("--data", world.data, "--split", "dev", "--image", image, "--caption", CAPTION)
    return ("explain", world.bundle, *given, *more)


def explained(world: World, row: int) -> sgraf_deploy.Explanation:
    regions = open_precomp(world.data, "dev").regions
    with sgraf_deploy.load(world.bundle) as scorer:
        return sgraf_deploy.explain(scorer, regions[row], CAPTION)


@pytest.mark.parametrize("image", [2, "photo2.jpg"])
def test_the_table_has_a_row_for_every_node(world: World, image: object) -> None:
    stdout = done(*arguments(world, image=image)).stdout

    found = explained(world, 2)
    line_naming(stdout, "photo2.jpg", f"{found.similarity:.4f}", f"{found.logit:+.3f}")
    line_naming(stdout, "<unk>", "nowhere")
    for place, token in enumerate(found.tokens):
        row = line_naming(stdout, *([token.text] if token.marker else [token.text, "#"]))
        change = float(found.without_word[place])
        assert token.marker or f"{change:+.3f}" in stdout, row
    saf = found.members["saf"]
    assert saf.contribution is not None
    line_naming(stdout, "(whole)", f"{saf.contribution[0]:+.3f}")
    line_naming(stdout, "sgr edges", "step 1")
    assert len(re.findall("sgr edges, step", stdout)) == SGR.sgr_steps


def test_a_second_image_stands_beside_the_first(world: World) -> None:
    stdout = done(*arguments(world, "--against", "photo4.jpg")).stdout

    first, second = explained(world, 2), explained(world, 4)
    names = ("photo2.jpg", "photo4.jpg")
    high, low = names if first.logit > second.logit else names[::-1]
    verdict = line_naming(stdout, *names, f"{abs(first.logit - second.logit):.3f}")
    assert verdict.index(high) < verdict.index(low)
    row = line_naming(stdout, "word3", f"{first.without_word[1]:+.3f}")
    assert f"{second.without_word[1]:+.3f}" in row


def test_json_has_everything(world: World) -> None:
    done(*arguments(world, "--against", 0, "--json", "it.json"))

    value = json.loads(Path("it.json").read_text(encoding="utf-8"))
    assert value["schema_version"] == 1
    assert [image["row"] for image in value["images"]] == [2, 0]
    assert [image["image"] for image in value["images"]] == ["photo2.jpg", "photo0.jpg"]
    found = explained(world, 2).to_json()
    assert {name: value["images"][0][name] for name in ("tokens", "caption")} == {
        name: json.loads(json.dumps(found[name])) for name in ("tokens", "caption")
    }
    assert value["images"][0]["logit"] == pytest.approx(found["logit"], abs=1e-5)
    assert value["images"][0]["members"].keys() == found["members"].keys()


@pytest.mark.parametrize("place", ["grid", "boxes", "numbers"])
def test_the_page_draws_what_is_known_of_places(world: World, place: str) -> None:
    data, more = world.data, list[object]()
    if place == "boxes":
        data = world.precomp(np.load(world.data / "dev_ims.npy"))
        boxes = np.tile(np.array([1, 2, 30, 40], np.float32), (IMAGES, SGR.regions, 1))
        np.save(data / "dev_boxes.npy", boxes)
    if place == "grid":
        more = ["--grid", f"1x{SGR.regions}"]
    if place != "numbers":
        more += ["--picture", world.write("picture.png", PNG)]

    given = ("--data", data, "--split", "dev", "--image", 1, "--caption", CAPTION)
    done("explain", world.bundle, *given, "--html", "it.html", *more)

    read = read_page(Path("it.html").read_text(encoding="utf-8"))
    assert read.loads == []
    assert read.tags["image"] == (place != "numbers")
    assert (read.tags["use"] > 0) == (place != "numbers")


PAGE = ("--html", "why.html")


@pytest.mark.parametrize(
    ("more", "error", "names"),
    [
        (("--image", IMAGES), InputError, ("--image",)),
        (("--image", "-1"), InputError, ("--image",)),
        (("--image", "photo9.jpg"), InputError, ("--image",)),
        (("--against", "nothing"), InputError, ("--against",)),
        (("--grid", "2x2"), InputError, ("--grid",)),
        (("--caption", " "), DataError, ()),
        (("--split", "test"), DataError, ("test",)),
        ((*PAGE, "--picture", "none.jpg", "--grid", f"1x{SGR.regions}"), DataError, ("none.jpg",)),
        ((*PAGE, "--picture", "a.jpg", "--picture", "b.jpg"), InputError, ("--picture",)),
        (("--html", "no/folder/it.html"), InputError, ("--html",)),
    ],
)
def test_what_is_wrong_is_named(
    world: World, more: tuple[object, ...], error: type[SgrafDeployError], names: tuple[str, ...]
) -> None:
    result = run(*arguments(world, *more))

    refused_line(result, error, *names, expected=ANY, got=ANY, hint=ANY)
    assert not list(world.folder.glob("*.html"))


def test_a_picture_without_places_is_refused(world: World) -> None:
    result = run(*arguments(world, *PAGE, "--picture", world.write("picture.png", PNG)))

    refused_line(result, InputError, "--picture", expected=naming("--grid"), hint=naming("--grid"))
