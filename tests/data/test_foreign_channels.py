"""Regions of another kind than a bundle's, told by what their channels are like."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import refused

from sgraf_deploy.data.checks import region_findings
from sgraf_deploy.data.foreign_channels import (
    MEAN_IMAGES,
    STD_IMAGES,
    channel_findings,
    read_statistics,
)
from sgraf_deploy.data.regions import check_regions, open_regions, region_statistics
from sgraf_deploy.errors import BundleError

Regions = NDArray[np.float32]
DRAWS = 100


def codes(regions: NDArray[Any], statistics: dict[str, Any] | None) -> list[str]:
    survey = check_regions(regions, regions.shape[1], regions.shape[2], "regions")
    return [found.code for found in region_findings(survey, statistics)]


def made(images: int, seed: int = 0, img_dim: int = 24) -> Regions:
    """Regions whose channels differ in mean and in standard deviation."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((images, 5, img_dim), dtype=np.float32)
    scale = np.geomspace(0.1, 3, img_dim, dtype=np.float32)
    centre = np.cos(np.arange(img_dim, dtype=np.float32)) * scale
    return np.asarray(values * scale + centre, np.float32)


def reversed_channels(regions: Regions) -> Regions:
    return np.ascontiguousarray(regions[..., ::-1])


def rotated(regions: Regions) -> Regions:
    """In another basis: multiplied by a random orthogonal matrix."""
    size = regions.shape[-1]
    basis = np.linalg.qr(np.random.default_rng(1).standard_normal((size, size)))[0]
    return np.asarray(regions @ basis, np.float32)


def noise(regions: Regions) -> Regions:
    """Noise whose every region has the norm of the one that it stands for."""
    values = np.random.default_rng(2).standard_normal(regions.shape, dtype=np.float32)
    scale = np.linalg.norm(regions, axis=2) / np.linalg.norm(values, axis=2)
    return np.asarray(values * scale[..., None], np.float32)


def flipped(regions: Regions) -> Regions:
    """With the sign of every second channel changed, which no standard deviation shows."""
    signs = np.where(np.arange(regions.shape[-1]) % 2, 1, -1)
    return np.asarray(regions * signs, np.float32)


FOREIGN: dict[str, Callable[[Regions], Regions]] = {
    "reversed": reversed_channels,
    "rotated": rotated,
    "noise": noise,
    "flipped": flipped,
}


@pytest.fixture(scope="module")
def trained(shared: Any) -> dict[str, Any]:
    """The statistics of the training features of Flickr8K."""
    return region_statistics(open_regions(shared / "data/f8k_precomp/train_ims.npy"))


@pytest.fixture(scope="module")
def dev(shared: Any) -> Regions:
    return np.asarray(open_regions(shared / "data/f8k_precomp/dev_ims.npy"), np.float32)


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_foreign_features_of_flickr8k_are_told(
    change: Callable[[Regions], Regions], dev: Regions, trained: dict[str, Any]
) -> None:
    few = dev[:32]
    foreign = change(few)

    norms = np.linalg.norm(foreign, axis=2)
    np.testing.assert_allclose(norms, np.linalg.norm(few, axis=2), rtol=1e-4)  # no scale tells
    assert codes(foreign, trained) == ["foreign-channels"]


@pytest.mark.parametrize("images", [8, 32])
def test_honest_draws_of_flickr8k_are_not(
    images: int, dev: Regions, trained: dict[str, Any]
) -> None:
    rng = np.random.default_rng(3)
    draws = [dev[rng.choice(len(dev), images, replace=False)] for _ in range(DRAWS)]

    assert [codes(draw, trained) for draw in draws] == [[]] * DRAWS


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_foreign_features_are_told(change: Callable[[Regions], Regions]) -> None:
    statistics = region_statistics(made(400))

    assert codes(change(made(MEAN_IMAGES, seed=1)), statistics) == ["foreign-channels"]
    assert codes(made(MEAN_IMAGES, seed=1), statistics) == []


def test_too_few_images_tell_nothing() -> None:
    statistics = region_statistics(made(400))
    foreign, signs = reversed_channels(made(STD_IMAGES)), flipped(made(MEAN_IMAGES))

    assert codes(foreign[:-1], statistics) == []
    assert codes(foreign, statistics) == ["foreign-channels"]
    assert codes(signs[:-1], statistics) == []
    assert codes(signs, statistics) == ["foreign-channels"]


def test_channels_that_are_all_alike_tell_nothing() -> None:
    whitened = np.random.default_rng(4).standard_normal((1000, 5, 24), dtype=np.float32)
    statistics = region_statistics(whitened[:900])

    assert codes(whitened[900:], statistics) == []
    assert codes(reversed_channels(whitened[900:]), statistics) == []


def test_constant_channels_are_no_fault() -> None:
    regions = made(500)
    regions[..., :7] = 0.25
    statistics = region_statistics(regions[:400])

    assert codes(regions[400:], statistics) == []
    assert codes(reversed_channels(regions[400:]), statistics) == ["foreign-channels"]
    same = np.ones((40, 5, 24), np.float32)
    assert codes(same, region_statistics(same)) == []
    assert "foreign-channels" in codes(same, statistics)


def test_padding_does_not_change_what_channels_are_like() -> None:
    regions = made(40)
    padded = np.concatenate([regions, np.zeros_like(regions)], axis=1)

    whole, more = (
        check_regions(each, each.shape[1], 24, "regions").channels for each in (regions, padded)
    )
    np.testing.assert_allclose(more.mean, whole.mean, rtol=1e-9)
    np.testing.assert_allclose(more.std, whole.std, rtol=1e-9)


def test_channels_are_those_of_numpy() -> None:
    regions = made(700) + np.float32(100)
    found = check_regions(regions, 5, 24, "regions").channels

    assert found.images == 700
    exact = regions.astype(np.float64)
    np.testing.assert_allclose(found.mean, exact.mean(axis=(0, 1)), rtol=1e-12)
    np.testing.assert_allclose(found.std, exact.std(axis=(0, 1)), rtol=1e-8)


def test_statistics_have_six_digits() -> None:
    statistics = region_statistics(made(50))

    for name in ("channel_mean", "channel_std"):
        assert [float(f"{value:.6g}") for value in statistics[name]] == statistics[name]


def test_older_bundles_have_no_channels() -> None:
    statistics = region_statistics(made(400))
    older = {name: value for name, value in statistics.items() if "channel" not in name}

    assert read_statistics(older, 24) is None
    assert read_statistics(None, 24) is None
    assert codes(reversed_channels(made(32)), older) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channel_mean", None),
        ("channel_mean", [0.5] * 23),
        ("channel_mean", [0.5] * 23 + ["x"]),
        ("channel_mean", [0.5] * 23 + [float("inf")]),
        ("channel_std", [0.5] * 23 + [-0.5]),
        ("channel_std", [True] * 24),
        ("images", 0),
        ("images", 2.5),
    ],
)
def test_wrong_statistics_are_named(field: str, value: object) -> None:
    statistics = {**region_statistics(made(40)), field: value}
    channels = check_regions(made(40), 5, 24, "regions").channels

    with refused(BundleError, f"region_statistics.{field}"):
        channel_findings(channels, statistics)
