"""Sigmoids and the ensemble's logit, against decimal arithmetic of 120 digits."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from decimal import Decimal, localcontext
from functools import partial
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from support import host_kernel
from support.closeness import assert_close
from support.refusals import check_error

from sgraf_deploy.engines.ensemble import (
    BLOCK,
    combine_logits,
    ensemble_logits,
    not_a_number,
    similarities,
    with_ensemble,
)
from sgraf_deploy.engines.torch import ranks as torch_ranks

VALUES = [0.0, 1e-30, 1e-8, 1e-3, 0.3, 1.0, 5.5, 17.0, 40.0, 88.9, 100.0, 200.0]
SIGNED = [*VALUES, *(-value for value in VALUES[1:])]

EPS, TINY, SMALLEST = (
    float(getattr(np.finfo(np.float32), name))
    for name in ("eps", "smallest_normal", "smallest_subnormal")
)
LARGEST = 12.0
EXTREME = [0.0, 1e-8, 0.5, 1.0, 3.0, 18.0, -18.5, -90.0, 90.0, -1e4, 1e4]

TO_THE_BIT = [
    *((0.25, -3.0, -0.8245382), (1.5, 1.25, 1.370353), (-2.75, -0.5, -1.2725933)),
    *((0.1, -0.1, 0.0), (0.001, 0.0005, 0.00075), (-0.0625, 0.03125, -0.015616421)),
    *((4.5, -4.25, 0.0061533884), (7.125, 6.5, 6.764552), (-9.75, 3.5, -0.05852458)),
    *((12.5, -12.25, 2.1169103e-06), (20.0, 19.0, 19.379885), (-31.5, -30.25, -30.691217)),
    *((60.0, -55.0, 2.5816499e-24), (-88.0, -90.0, -88.566216), (2.0, 2.0, 2.0)),
]
"""Two members' logits and their ensemble's, as they were when there were never more than two."""

logits = st.floats(-120, 120, width=32)

Combine = Callable[[Sequence[NDArray[Any]]], NDArray[np.float32]]


@pytest.fixture(params=["numpy", "torch", "kernel"])
def combine(request: pytest.FixtureRequest) -> Combine:
    """The formula where logits are on the host, with PyTorch, and in a kernel."""
    if request.param == "numpy":
        return lambda members: combine_logits(*members)
    if request.param == "torch":
        return combine_in_torch
    return partial(host_kernel.combine, request.getfixturevalue("kernel"))


def combine_in_torch(members: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    tensors = [torch.from_numpy(each).double() for each in members]
    found: NDArray[np.float32] = torch_ranks.combine(tensors).numpy()
    return found


def exact_mean_logit(*members: float) -> float:
    """The logit of the mean of the sigmoids."""
    with localcontext() as context:
        context.prec = 200
        exps = [Decimal(float(logit)).exp() for logit in members]
        yes, no = (sum((e**sign / (1 + e) for e in exps), Decimal(0)) for sign in (1, 0))
        return float((yes / no).ln())


def columns(cases: Sequence[Sequence[float]]) -> list[NDArray[np.float32]]:
    """Each member's logits of all cases."""
    return [np.array(each, dtype=np.float32) for each in zip(*cases, strict=True)]


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


def test_two_members_have_the_bits_they_always_had() -> None:
    first, second, expected = columns(TO_THE_BIT)

    assert combine_logits(first, second).tolist() == expected.tolist()


@pytest.mark.parametrize("count", [2, 3, 6])
def test_any_number_of_members_in_any_arithmetic(combine: Combine, count: int) -> None:
    rng = np.random.default_rng(count)
    cases = [
        *rng.normal(0, 1, (60, count)).astype(np.float32).tolist(),
        *rng.normal(0, 15, (60, count)).astype(np.float32).tolist(),
        *rng.choice(EXTREME, (200, count)).tolist(),
    ]
    assert len(cases) == 320

    found = combine(columns(cases))

    assert found.dtype == np.float32
    expected = [exact_mean_logit(*case) for case in zip(*columns(cases), strict=True)]
    # Half a unit of float32; where members cancel each other, a few units of float64 at 1.
    np.testing.assert_allclose(found, expected, rtol=6.1e-8, atol=1e-15)


@given(st.lists(logits, min_size=1, max_size=6))
def test_it_is_the_logit_of_the_mean(members: list[float]) -> None:
    (found,) = combine_logits(*(np.array([each], dtype=np.float32) for each in members))

    assert found == pytest.approx(exact_mean_logit(*members), rel=6.1e-8, abs=1e-15)


@given(st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=6), st.randoms())
def test_neither_order_nor_sign_matters(members: list[float], random: Any) -> None:
    one = [np.array([each], dtype=np.float32) for each in members]
    (found,) = combine_logits(*one)

    assert combine_logits(*(-each for each in one)) == -found
    assert min(members) - 1e-3 <= found <= max(members) + 1e-3
    random.shuffle(one)
    assert combine_logits(*one)[0] == pytest.approx(found, rel=1.2e-7, abs=1e-15)


@pytest.mark.parametrize("others", list(product(EXTREME, repeat=2)), ids=str)
def test_it_grows_with_every_member(combine: Combine, others: tuple[float, float]) -> None:
    grid = np.concatenate([np.linspace(-1e4, 1e4, 201), np.linspace(-100, 100, 401)])
    rising = np.unique(grid).astype(np.float32)

    found = combine([rising, *(np.full_like(rising, each) for each in others)])

    assert np.isfinite(found).all()
    assert (np.diff(found) >= 0).all()


@pytest.mark.parametrize("x", [0.125, 1.0, 3.0, 19.0, 90.0])
def test_opposite_members_are_undecided_in_any_order(combine: Combine, x: float) -> None:
    cases = [*permutations([x, -x, 0.0])]

    assert combine(columns(cases)).tolist() == [0.0] * len(cases)


@pytest.mark.parametrize("others", [(), (0.0,), (0.0,) * 4], ids=str)
def test_saturated_members_of_opposite_signs_are_still_told_apart(
    combine: Combine, others: tuple[float, ...]
) -> None:
    """Their tanh are ±1 in float64, and what is left of their sum is what they lack of that."""
    cases = [(high, low, *others) for high in (90.0, 60.0, 38.0) for low in (-50.0, -45.5, -40.5)]

    found = combine(columns(cases))

    expected = [exact_mean_logit(*case) for case in cases]
    assert len({f"{each:.3g}" for each in expected}) >= 5
    np.testing.assert_allclose(found, expected, rtol=6.1e-8)


@pytest.mark.parametrize("count", [2, 3, 6])
def test_equal_members_are_their_own_ensemble(combine: Combine, count: int) -> None:
    alone = np.array([value for value in EXTREME if value], dtype=np.float32)

    np.testing.assert_allclose(combine([alone] * count), alone, rtol=6.1e-8)


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


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("shape", [(0,), (3, 0), (1,), (2, 3), (2, BLOCK), (BLOCK + 1,)], ids=str)
def test_any_shape_comes_back_in_blocks(shape: tuple[int, ...], count: int) -> None:
    rng = np.random.default_rng(3)
    members = [rng.normal(size=shape).astype(np.float32) for _ in range(count)]
    combined = combine_logits(*members)
    assert combined.shape == shape
    assert similarities(members[0]).shape == shape
    yes, no = (sum(similarities(sign * each) for each in members) for sign in (1, -1))
    assert_close(combined, np.log(yes) - np.log(no), depth=2 * count)


def test_a_transposed_matrix_keeps_its_places() -> None:
    a = np.arange(6, dtype=np.float32).reshape(2, 3).T
    assert np.array_equal(similarities(a), similarities(a.copy()))
    assert np.array_equal(combine_logits(a, a), a)


def test_nan_stays_nan() -> None:
    nan = np.array([np.nan, 1.0], dtype=np.float32)
    for count in (1, 2, 3):
        assert np.isnan(combine_logits(*[nan] * count)).tolist() == [True, False]
    assert np.isnan(combine_logits(nan, -nan, 0 * nan)).tolist() == [True, False]
    assert np.isnan(similarities(nan)).tolist() == [True, False]


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2,\).*\(1,\)"):
        combine_logits(np.zeros(2), np.zeros(1))


def test_one_member_is_its_own_ensemble() -> None:
    alone = np.array([0.25, -3.0], dtype=np.float32)
    assert ensemble_logits({"saf": alone}) is alone
    assert ensemble_logits({"sgr": alone, "saf": -alone}).tolist() == [0.0, 0.0]
    assert with_ensemble({"saf": alone}) == {"saf": alone}


@pytest.mark.parametrize(
    ("members", "name"),
    [
        (("sgr", "saf"), "sgraf"),
        (("sgr", "sgr-2"), "ensemble"),
        (("sgr", "sgr-2", "saf"), "ensemble"),
    ],
)
def test_the_ensemble_stands_behind_its_members(members: tuple[str, ...], name: str) -> None:
    each = {member: np.array([row, -2.0]) for row, member in enumerate(members)}

    found = with_ensemble(each)

    assert list(found) == [*members, name]
    assert np.array_equal(found[name], combine_logits(*each.values()))


def test_the_error_for_nan_names_the_pair() -> None:
    error = not_a_number(3, 7)
    check_error(error, hint="sgraf-deploy verify")
    assert re.findall("[0-9]+", error.what) == ["3", "7"]
