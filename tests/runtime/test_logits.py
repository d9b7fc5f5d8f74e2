"""Sigmoids and the ensemble's logit, against decimal arithmetic of 120 digits."""

from __future__ import annotations

from decimal import Decimal, localcontext

import numpy as np
import pytest
from closeness import assert_close
from hypothesis import given
from hypothesis import strategies as st

from sgraf_deploy.runtime.logits import (
    BLOCK,
    combine_logits,
    ensemble_logits,
    not_a_number,
    similarities,
)

VALUES = [0.0, 1e-30, 1e-8, 1e-3, 0.3, 1.0, 5.5, 17.0, 40.0, 88.9, 100.0, 200.0]
SIGNED = [*VALUES, *(-value for value in VALUES[1:])]

EPS, TINY, SMALLEST = (
    float(getattr(np.finfo(np.float32), name))
    for name in ("eps", "smallest_normal", "smallest_subnormal")
)
LARGEST = 12.0

logits = st.floats(-120, 120, width=32)


def exact_mean_logit(a: float, b: float) -> float:
    """The logit of (sigmoid(a) + sigmoid(b)) / 2."""
    with localcontext() as context:
        context.prec = 200
        exp_a, exp_b = Decimal(a).exp(), Decimal(b).exp()
        yes = exp_a / (1 + exp_a) + exp_b / (1 + exp_b)
        no = 1 / (1 + exp_a) + 1 / (1 + exp_b)
        return float((yes / no).ln())


@pytest.mark.parametrize("logit", SIGNED, ids=str)
def test_a_similarity_is_the_sigmoid(logit: float) -> None:
    with localcontext() as context:
        context.prec = 200
        expected = float(1 / (1 + (-Decimal(float(np.float32(logit)))).exp()))
    found = similarities(np.array([logit], dtype=np.float32))
    assert found.dtype == np.float32
    assert found[0] == pytest.approx(expected, rel=2 * EPS, abs=SMALLEST)


@pytest.mark.parametrize("a", SIGNED, ids=str)
def test_the_ensembles_logit_is_that_of_the_mean_similarity(a: float) -> None:
    found = combine_logits(np.full(len(SIGNED), a), np.array(SIGNED))
    expected = [exact_mean_logit(a, b) for b in SIGNED]
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=EPS, atol=TINY)


def test_close_to_saturation_the_order_is_kept() -> None:
    first = np.array([100.0, 100.5, 101.0], dtype=np.float32)
    combined = combine_logits(first, first - 1)
    assert np.all(np.diff(combined) > 0)
    assert len(set(similarities(combined))) == 1


@given(logits, logits)
def test_the_ensemble_lies_between_and_is_symmetric(a: float, b: float) -> None:
    one, two = np.array([a], dtype=np.float32), np.array([b], dtype=np.float32)
    combined = combine_logits(one, two)
    low, high = min(a, b), max(a, b)
    assert low - EPS * abs(low) <= combined[0] <= high + EPS * abs(high)
    assert combined == combine_logits(two, one)
    assert combined == -combine_logits(-one, -two)


@given(st.floats(-LARGEST, LARGEST, width=32), st.floats(-LARGEST, LARGEST, width=32))
def test_its_sigmoid_is_the_mean_of_the_similarities(a: float, b: float) -> None:
    one, two = np.array([a], dtype=np.float32), np.array([b], dtype=np.float32)
    mean = (similarities(one) + similarities(two)) / 2
    # A logit x that is rounded moves its similarity by at most |x| roundings, of its own size.
    assert similarities(combine_logits(one, two)) == pytest.approx(mean, rel=LARGEST * EPS)


@pytest.mark.parametrize("shape", [(0,), (3, 0), (1,), (2, 3), (2, BLOCK), (BLOCK + 1,)], ids=str)
def test_any_shape_comes_back_in_blocks(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=shape).astype(np.float32), rng.normal(size=shape).astype(np.float32)
    combined = combine_logits(a, b)
    assert combined.shape == shape
    assert similarities(a).shape == shape
    expected = np.log((similarities(a) + similarities(b)) / (similarities(-a) + similarities(-b)))
    assert_close(combined, expected, depth=4)


def test_a_transposed_matrix_keeps_its_places() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(similarities(a), similarities(a.copy()))
    assert np.array_equal(combine_logits(a, a), a)


def test_nan_stays_nan() -> None:
    nan = np.array([np.nan, 1.0], dtype=np.float32)
    assert np.isnan(combine_logits(nan, nan)).tolist() == [True, False]
    assert np.isnan(similarities(nan)).tolist() == [True, False]


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\) and \(1,\)"):
        combine_logits(np.zeros(2), np.zeros(1))


def test_one_member_is_its_own_ensemble() -> None:
    alone = np.array([0.25, -3.0], dtype=np.float32)
    assert ensemble_logits({"saf": alone}) is alone
    assert ensemble_logits({"sgr": alone, "saf": -alone}).tolist() == [0.0, 0.0]


def test_the_error_for_nan_names_the_pair() -> None:
    assert "image 3 and caption 7" in str(not_a_number(3, 7))
