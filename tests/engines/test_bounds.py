"""Bounds of an ensemble's logit hold for the very bits of the logit that is computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from sgraf_deploy.engines import bounds
from sgraf_deploy.engines.bounds import ANY, Range, Rest, filtration_range
from sgraf_deploy.engines.ensemble import combine_logits

GRID = np.linspace(-40, 40, 20001, dtype=np.float32)

logits = st.floats(-200, 200, width=32) | st.sampled_from([0.0, -0.0, 1e-30, 1e5, -3e38])


def violations(known: list[NDArray[Any]], unknown: list[NDArray[Any]], rest: Rest) -> int:
    """How many computed logits of the ensemble lie outside of their bounds."""
    lower, upper = rest.bounds(known)
    computed = combine_logits(*known, *unknown)
    assert lower.dtype == upper.dtype == computed.dtype == np.float32
    assert lower.shape == upper.shape == computed.shape
    return int(np.count_nonzero((computed < lower) | (computed > upper)))


@given(st.lists(logits, min_size=2, max_size=5), st.data())
def test_hold_for_any_members(members: list[float], data: st.DataObject) -> None:
    values = [np.array([each], np.float32) for each in members]
    count = data.draw(st.integers(1, len(values) - 1))
    ranges: list[Range] = []
    for value in values[count:]:
        here = float(value[0])
        ranges.append(data.draw(st.sampled_from([ANY, (here, here), (here, np.inf), (-400, here)])))
        ranges[-1] = (min(ranges[-1][0], here), ranges[-1][1])
    assert violations(values[:count], values[count:], Rest(ranges)) == 0


def at_the_edge() -> int:
    """Members at the very end of the other's range, so opposite that hardly anything is left."""
    known = np.geomspace(1e-3, 30, 500, dtype=np.float32)
    other = np.nextafter(-known, np.float32(0))
    return sum(
        violations([known[[at]]], [other[[at]]], Rest([(float(other[at]), float(other[at]))]))
        for at in range(len(known))
    )


def test_hold_where_the_other_member_is_at_the_end_of_its_range() -> None:
    assert at_the_edge() == 0


def test_do_not_hold_without_the_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "RELATIVE", 0.0)
    monkeypatch.setattr(bounds, "ABSOLUTE", 0.0)
    assert at_the_edge() > 0


def test_of_two_members_are_half_of_a_similarity_and_half_more() -> None:
    lower, upper = Rest([ANY]).bounds([GRID])
    similarity = 1 / (1 + np.exp(-GRID.astype(np.float64)))
    for bound, expected in (lower, similarity / 2), (upper, (1 + similarity) / 2):
        found = 1 / (1 + np.exp(-bound.astype(np.float64)))
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_rise_with_the_known_logit_and_shrink_with_the_range() -> None:
    wide, narrow = (Rest([each]).bounds([GRID]) for each in (ANY, (-3.0, 3.0)))
    for side in (*wide, *narrow):
        assert (np.diff(side) >= 0).all()
    assert (wide[0] <= narrow[0]).all()
    assert (narrow[1] <= wide[1]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_of_what_is_not_finite_are_the_widest(value: float) -> None:
    lower, upper = Rest([ANY, ANY]).bounds([np.array([value, 1.0]), np.array([2.0, 1.0])])
    assert np.isfinite([lower, upper]).all()
    assert (lower[0], upper[0]) == (np.finfo(np.float32).min, np.finfo(np.float32).max)
    assert upper[1] < 10


def last_logits(size: int, seed: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """A last layer, and what it gives in float32 of vectors of norm 1 along its weights."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(size=(size, 1)).astype(np.float32)
    bias = rng.normal(size=1).astype(np.float32)
    along = weight[:, 0] * np.linspace(0.3, 3, 500, dtype=np.float32)[:, None]
    vectors = np.concatenate([along, -along])
    norms = np.sqrt((vectors * vectors).sum(axis=1, keepdims=True, dtype=np.float32))
    found = (vectors / (norms + np.float32(1e-8))) @ weight + bias
    return weight, bias, found


@pytest.mark.parametrize("size", [3, 16, 64, 256, 2048])
def test_a_filtration_gives_no_logit_out_of_its_range(size: int) -> None:
    outside = 0
    for seed in range(5):
        weight, bias, found = last_logits(size, seed)
        low, high = filtration_range(weight, bias)
        assert found.dtype == np.float32
        assert ((found >= low) & (found <= high)).all()
        norm = float(np.linalg.norm(weight.astype(np.float64)))
        assert high - low < 2 * norm * 1.001 + 1e-3
        exact = float(bias[0]) - norm, float(bias[0]) + norm
        outside += int(np.count_nonzero((found < exact[0]) | (found > exact[1])))
    assert outside > 0, "no rounding that needs the slack"
