"""Ranks beside those of a random order: the null hypothesis is simulated, and so is a model."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import holds, naming

from sgraf_deploy.evaluation.chance import (
    CHANCE_DEVIATIONS,
    FEWEST_IMAGES,
    chance_findings,
    deviations,
    is_clear,
)
from sgraf_deploy.evaluation.recall import chance_level, evaluate

SIZES = (FEWEST_IMAGES, 20, 100, 300)


def noise(images: int, seed: int, *, alike: float = 0.0) -> NDArray[Any]:
    """Logits of nothing; `alike` is how much the captions of an image have in common."""
    rng = np.random.default_rng(seed)
    shared = np.repeat(rng.standard_normal((images, images)), 5, axis=1)
    hubs = rng.standard_normal((1, 5 * images)) + rng.standard_normal((images, 1))
    return rng.standard_normal((images, 5 * images)) + alike * shared + hubs


def model(images: int, seed: int, strength: float) -> NDArray[Any]:
    """Logits that say something of what belongs together."""
    return noise(images, seed) + strength * np.repeat(np.eye(images), 5, axis=1)


@pytest.mark.parametrize("images", SIZES)
@pytest.mark.parametrize("alike", [0.0, 5.0])
def test_a_random_order_is_never_clear(images: int, alike: float) -> None:
    found = [evaluate(noise(images, seed, alike=alike)) for seed in range(60)]

    assert not any(is_clear(report) for report in found)
    backward = np.array([deviations(report)[1] for report in found])
    assert np.abs(backward).max() < 4  # 60 draws of at most one standard deviation
    assert backward.std() < 1.3


@pytest.mark.parametrize("images", SIZES)
def test_a_model_is_clear(images: int) -> None:
    report = evaluate(model(images, 1, strength=6.0))

    assert is_clear(report)
    assert min(deviations(report)) > CHANCE_DEVIATIONS
    assert chance_findings({"SGR": report}) == ()


def test_what_is_significant_but_hardly_better_is_not_clear() -> None:
    """As a wrong vocabulary on thousands of images: captions' lengths alone tell a little."""
    report = evaluate(model(1000, 2, strength=0.4))

    assert min(deviations(report)) > CHANCE_DEVIATIONS
    assert not is_clear(report)


def test_one_direction_is_not_enough() -> None:
    good, bad = evaluate(model(100, 3, strength=6.0)), evaluate(noise(100, 3))

    assert not is_clear(replace(good, image_to_text=bad.image_to_text))
    assert not is_clear(replace(good, text_to_image=bad.text_to_image))


def test_equal_logits_are_at_chance_or_below() -> None:
    report = evaluate(np.zeros((20, 100)))

    assert max(deviations(report)) < 0
    assert [finding.code for finding in chance_findings({"SGR": report})] == ["at-chance"]


def test_the_models_at_chance_are_named() -> None:
    good, bad = evaluate(model(50, 4, strength=6.0)), evaluate(noise(50, 4))

    (finding,) = chance_findings({"SGR": bad, "SAF": good, "SGRAF": bad})

    assert finding.is_warning
    mean_rank = chance_level(50).text_to_image.mean_rank
    naming("SGR", "SGRAF", f"{mean_rank:.1f}").check("message", finding.message)
    assert not holds(finding.message, "SAF")


@pytest.mark.parametrize("images", [1, 2, FEWEST_IMAGES - 1])
def test_nothing_is_said_of_few_images(images: int) -> None:
    assert chance_findings({"SGR": evaluate(noise(images, 5))}) == ()
    assert len(deviations(evaluate(noise(images, 5)))) == 2
