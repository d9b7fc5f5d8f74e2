"""Recognises regions that were not extracted as a model's were, by what their channels are like.

Another order of the channels, another basis, or noise leaves norms as they are, but not the
standard deviations of the channels; a channel that changes its sign leaves that as it is, but not
the mean. So both are correlated with those that the bundle keeps, over the channels: those of the
training, or of `--gate-data`.

A correlation tells nothing where all channels are alike but for chance, as those of whitened
features are. What chance does to them is bounded from the number of images, as if the regions of an
image were all the same; where even features of one kind might fall below a threshold, nothing is
said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.data.channels import Channels
from sgraf_deploy.data.findings import Finding
from sgraf_deploy.errors import BundleError, InputError

LEAST_STD_CORRELATION, STD_IMAGES = 0.8, 8
"""The correlation of standard deviations below which there is a warning, and the images that it
takes: of 200 draws of 8 images of Flickr8K none was below 0.957."""

LEAST_MEAN_CORRELATION, MEAN_IMAGES = 0.6, 32
"""The same of means: of 200 draws of 32 images of Flickr8K none was below 0.873."""

_DIGITS = 6
_SHOWN = 60


def statistics_of(channels: Channels) -> dict[str, list[float]]:
    """What a manifest and a checkpoint keep of channels, to six significant digits."""
    return {
        "channel_mean": [float(f"{value:.{_DIGITS}g}") for value in channels.mean],
        "channel_std": [float(f"{value:.{_DIGITS}g}") for value in channels.std],
    }


def channel_findings(
    channels: Channels, statistics: Mapping[str, Any] | None
) -> tuple[Finding, ...]:
    """A warning if regions are of another kind than those of a bundle's `region_statistics`.

    Bundles of earlier versions have no statistics of channels, and nothing is found then. Raises
    BundleError for statistics that cannot be those of these channels.
    """
    exported = read_statistics(statistics, len(channels.mean))
    if exported is None:
        return ()
    chance = 1 / channels.images + 1 / exported.images
    std = np.array(exported.std)
    found = {}
    if channels.images >= STD_IMAGES:
        unit = float(std.mean()) ** 2
        found["standard deviations"] = _too_low(
            channels.std, exported.std, unit, chance, LEAST_STD_CORRELATION
        )
    if channels.images >= MEAN_IMAGES:
        unit = float(np.square(std).mean())
        found["means"] = _too_low(
            channels.mean, exported.mean, unit, chance, LEAST_MEAN_CORRELATION
        )
    correlations = " and ".join(
        f"{low:.2f} for their {what}" for what, low in found.items() if low is not None
    )
    if not correlations:
        return ()
    return (
        Finding(
            "foreign-channels",
            "the regions' channels are not like those that the bundle keeps, of the training or of "
            "--gate-data: the correlation with them is "
            f"{correlations}, where {LEAST_STD_CORRELATION} and {LEAST_MEAN_CORRELATION} are the "
            "least for features of the same kind: were these features extracted in the same way?",
        ),
    )


def read_statistics(
    statistics: Mapping[str, Any] | None,
    img_dim: int,
    place: str = "manifest: region_statistics",
    error: type[InputError] = BundleError,
) -> Channels | None:
    """The channels of `region_statistics`, None if it has none.

    Raises `error`, which begins with `place`, if they are wrong.
    """

    def wrong(name: str, expected: str, got: object) -> InputError:
        hint = "export again with `sgraf-deploy export`" if error is BundleError else None
        return error(f"{place}.{name}", expected=expected, got=repr(got)[:_SHOWN], hint=hint)

    if statistics is None or not {"channel_mean", "channel_std"} & statistics.keys():
        return None
    images = statistics.get("images")
    if type(images) is not int or images < 1:
        raise wrong("images", "a number of images", images)
    found = {}
    for name, least in (("channel_mean", -math.inf), ("channel_std", 0.0)):
        values = statistics.get(name)
        if not isinstance(values, list) or len(values) != img_dim:
            got = f"{len(values)} of them" if isinstance(values, list) else values
            raise wrong(name, f"a list of {img_dim} numbers", got)
        for value in values:
            if type(value) not in (int, float) or not least <= value < math.inf:
                raise wrong(name, "finite numbers" + (" from 0" if least == 0 else ""), value)
        found[name] = tuple(map(float, values))
    return Channels(images, found["channel_mean"], found["channel_std"])


def _too_low(
    ours: tuple[float, ...], theirs: tuple[float, ...], unit: float, chance: float, least: float
) -> float | None:
    """The correlation with the bundle's values (channels,), None if it is high enough.

    So it is where features of one kind could be as low by chance: `chance` is the variance, in
    `unit`, that sampling adds at most to the variance over the bundle's channels, `spread`; they
    correlate by √(spread / (spread + chance)) or more.
    """
    spread = float(np.var(theirs)) / unit if unit else 0.0
    if spread == 0 or math.sqrt(spread / (spread + chance)) < least:
        return None
    found = _correlation(np.array(ours), np.array(theirs))
    return None if found >= least else found


def _correlation(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Pearson's correlation (channels,); 0 where one of the two is the same in all channels."""
    one, other = ours - ours.mean(), theirs - theirs.mean()
    scale = math.sqrt(float(one @ one) * float(other @ other))
    return float(one @ other) / scale if scale > 0 else 0.0
