"""The page of an explanation: whole by itself, and honest about weights that say nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from support.pages import read_page
from support.small_models import SGR, random_regions

import sgraf_deploy
from sgraf_deploy import Explanation, Scorer, explain
from sgraf_deploy.bundle.bundle import Bundle
from sgraf_deploy.explanation.page import UNIFORM_TEXT, Shown, page, verdict
from sgraf_deploy.explanation.picture import Picture
from sgraf_deploy.explanation.regions import RegionLayout, grid, numbered

CAPTION = "word3 <b>word7</b> nowhere"
PICTURE = Picture(70, 50, "data:image/png;base64,AAAA")


@pytest.fixture(scope="module")
def scorer(exported: Bundle) -> Iterator[Scorer]:
    with sgraf_deploy.load(exported, "ort", "fp32", threads=1) as opened:
        yield opened


@pytest.fixture(scope="module")
def found(scorer: Scorer) -> Explanation:
    return explain(scorer, random_regions(SGR, 2)[0], CAPTION)


@pytest.fixture(scope="module")
def other(scorer: Scorer) -> Explanation:
    return explain(scorer, random_regions(SGR, 2)[1], CAPTION)


def boxes() -> RegionLayout:
    places = np.tile(np.array([1, 2, 30, 40], np.float32), (SGR.regions, 1))
    return RegionLayout(numbered(SGR.regions).names, places, (70, 50))


LAYOUTS = {
    "numbers": (numbered(SGR.regions), None),
    "grid": (grid(f"1x{SGR.regions}", SGR.regions), None),
    "grid-picture": (grid(f"1x{SGR.regions}", SGR.regions, (70, 50)), PICTURE),
    "boxes": (boxes(), None),
    "boxes-picture": (boxes(), PICTURE),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_page_says_all_and_loads_nothing(
    name: str, found: Explanation, other: Explanation
) -> None:
    layout, picture = LAYOUTS[name]
    shown = [
        Shown(f"<{row}>.jpg", each, layout, picture) for row, each in enumerate((found, other))
    ]

    for several in (shown[:1], shown):
        text = page(several, "small.sgraf & more")
        read = read_page(text)

        assert read.loads == []
        assert read.tags["b"] == 0  # The caption's own.
        assert read.tags["image"] == (len(several) if picture else 0)
        assert text.count(PICTURE.uri) == read.tags["image"]
        assert (read.tags["use"] > 0) == (picture is not None)
        assert verdict(several) in read.text
        assert read.title == verdict(several)
        for one in several:
            assert f"{one.explanation.similarity:.4f}" in read.text
            for change in one.explanation.without_word[1:-1]:
                assert f"{change:+.3f}" in read.labels
        assert "small.sgraf & more" in read.text


def test_the_higher_image_stands_first_in_the_verdict(
    found: Explanation, other: Explanation
) -> None:
    layout = numbered(SGR.regions)
    low, high = sorted((found, other), key=lambda each: each.logit)
    for order in ((low, high), (high, low)):
        names = {id(low): "low", id(high): "high"}
        told = verdict([Shown(names[id(each)], each, layout) for each in order])
        assert told.index("high") < told.index("low")


def flat(weights: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.full_like(weights, 1 / weights.shape[-1])


def test_uniform_weights_are_called_an_average_and_not_drawn(found: Explanation) -> None:
    sgr, saf = found.members.values()
    assert saf.kept is not None
    assert sgr.edges is not None
    members = {
        "sgr": replace(sgr, attention=flat(sgr.attention), edges=flat(sgr.edges)),
        "saf": replace(saf, attention=flat(saf.attention), kept=flat(saf.kept)),
    }
    layout, _ = LAYOUTS["grid"]
    before = read_page(page([Shown("a", found, layout)], "small"))
    after = read_page(page([Shown("a", replace(found, members=members), layout)], "small"))

    rows = 2 * len(found.tokens) + 1 + SGR.sgr_steps
    assert after.text.count(UNIFORM_TEXT) == rows + 1  # And in how to read it.
    assert before.text.count(UNIFORM_TEXT) < rows
    # What is left are the bars of changes, and the regions.
    assert after.tags["svg"] == len(found.tokens) - 2 + 1
    assert before.tags["svg"] > after.tags["svg"]


def test_unknown_words_are_marked(found: Explanation) -> None:
    text = page([Shown("a", found, numbered(SGR.regions))], "small")

    assert text.count('class="unknown"') == 2 * sum(not token.known for token in found.tokens)


def test_an_encoded_image_has_no_drawing_of_its_regions(scorer: Scorer) -> None:
    encoded = explain(scorer, scorer.encode_images(random_regions(SGR, 1)), "word3")

    read = read_page(page([Shown("a", encoded, LAYOUTS["grid"][0])], "small"))

    assert (
        read.tags["figure"]
        < read_page(
            page(
                [
                    Shown(
                        "a",
                        replace(encoded, region_changes=np.ones(7, np.float32)),
                        LAYOUTS["grid"][0],
                    )
                ],
                "s",
            )
        ).tags["figure"]
    )
