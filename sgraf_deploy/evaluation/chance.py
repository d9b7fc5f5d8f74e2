"""Whether ranks are clearly better than those of a random order.

If images and captions are in different orders, the vocabulary is in another order, or the features
come from another extractor, everything runs and every gate passes. Only the ranks show it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from sgraf_deploy.data.findings import Finding
from sgraf_deploy.evaluation.recall import RecallReport, chance_level

CHANCE_DEVIATIONS = 3.0
"""How many standard deviations the mean rank must lie below that of a random order. Measured on 20
to 500 images: at most 2.3 with wrong orders and vocabularies, at least 4.9 with the right ones."""

CHANCE_SHARE = 0.75
"""The largest share of a random order's mean rank. On thousands of images even ranks by a wrong
vocabulary differ significantly from chance, by the captions' lengths alone: shares of 0.87 to 2.7
were measured, and at most 0.1 with the right one."""

FEWEST_IMAGES = 16
"""On fewer images not even good ranks are far enough from chance, and nothing is reported."""


def deviations(report: RecallReport) -> tuple[float, float]:
    """How far the mean ranks lie below a random order's, image to text and text to image.

    The unit is the standard deviation of the mean rank if the images' order is random. For text to
    image it is at most sqrt((images + 1) / 12), for any matrix: a row of ranks has the variance
    (images² - 1) / 12, and the captions of one image count as one query (Hoeffding 1951). For image
    to text, each image is a query whose rank is the lowest of `captions / images` random ranks.
    """
    images, captions = report.images, report.captions
    own = captions // images
    chance = chance_level(images, own)
    lowest = own * (captions + 1) * (captions - own) / ((own + 1) ** 2 * (own + 2))  # variance
    forward = math.sqrt(lowest / images)
    backward = math.sqrt((images + 1) / 12)
    return (
        (chance.image_to_text.mean_rank - report.image_to_text.mean_rank) / (forward or 1.0),
        (chance.text_to_image.mean_rank - report.text_to_image.mean_rank) / backward,
    )


def is_clear(report: RecallReport) -> bool:
    """Whether the mean ranks of both directions are clearly below those of a random order."""
    chance = chance_level(report.images, report.captions // report.images)
    sides = (
        (report.image_to_text, chance.image_to_text),
        (report.text_to_image, chance.text_to_image),
    )
    return min(deviations(report)) >= CHANCE_DEVIATIONS and all(
        side.mean_rank - 1 <= CHANCE_SHARE * (random.mean_rank - 1) for side, random in sides
    )


def chance_findings(reports: Mapping[str, RecallReport]) -> tuple[Finding, ...]:
    """A warning that names the models whose ranks could be a random order's."""
    names = [
        name
        for name, report in reports.items()
        if report.images >= FEWEST_IMAGES and not is_clear(report)
    ]
    if not names:
        return ()
    report = reports[names[-1]]
    chance = chance_level(report.images, report.captions // report.images)
    ranks = ", ".join(
        f"{arrow} {side.mean_rank:.1f} where a random order has {random.mean_rank:.1f}"
        for arrow, side, random in (
            ("image → text", report.image_to_text, chance.image_to_text),
            ("text → image", report.text_to_image, chance.text_to_image),
        )
    )
    return (
        Finding(
            "at-chance",
            f"R@K of {', '.join(names)} is not clearly above chance (mean rank of {names[-1]}: "
            f"{ranks}): do images and captions stand in the same order? Are these the vocabulary "
            "and the kind of features that the model was trained with?",
        ),
    )
