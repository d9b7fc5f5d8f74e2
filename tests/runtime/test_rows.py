"""Which rows a caller means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.refusals import naming, refused

from sgraf_deploy.errors import DataError
from sgraf_deploy.runtime.rows import check_index, resolve_rows


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (3, slice(3, 4)),
        (-1, slice(9, 10)),
        (np.int64(2), slice(2, 3)),
        (slice(None), slice(0, 10)),
        (slice(2, 5), slice(2, 5)),
        (slice(-3, None), slice(7, 10)),
        (slice(5, 2), slice(5, 5)),
        (slice(20, 30), slice(10, 10)),
    ],
    ids=str,
)
def test_contiguous_rows_are_a_slice(rows: Any, expected: slice) -> None:
    assert resolve_rows(rows, 10, "image") == expected


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([2, 0, 2], [2, 0, 2]),
        ([-1, 0], [9, 0]),
        (np.array([7, 3], dtype=np.uint8), [7, 3]),
        (slice(None, None, 4), [0, 4, 8]),
        (slice(None, None, -5), [9, 4]),
        ([], []),
    ],
    ids=str,
)
def test_other_rows_are_an_index(rows: Any, expected: list[int]) -> None:
    found = resolve_rows(rows, 10, "image")
    assert isinstance(found, np.ndarray)
    assert found.dtype == np.int32
    assert found.tolist() == expected


@given(st.slices(12))
def test_a_slice_means_what_it_means_in_python(rows: slice) -> None:
    assert np.arange(12)[resolve_rows(rows, 12, "image")].tolist() == list(range(12))[rows]


@pytest.mark.parametrize(
    ("rows", "place", "got"),
    [(10, 0, 10), (-11, 0, -11), ([0, 1, 10], 2, 10), (2**40, 0, 2**40)],
    ids=str,
)
def test_rows_out_of_range_are_refused(rows: Any, place: int, got: int) -> None:
    with refused(DataError, "image", place, expected=naming(-10, 9), got=got):
        resolve_rows(rows, 10, "image")


@pytest.mark.parametrize(
    ("rows", "got"),
    [
        (True, "bool"),
        ([0.5], "float64"),
        (np.ones(10, dtype=bool), "bool"),
        ([[1, 2]], "(1, 2)"),
        ([[1], [2, 3]], "inhomogeneous"),
        ("dog", "<U3"),
    ],
    ids=str,
)
def test_other_things_are_refused(rows: Any, got: str) -> None:
    with refused(DataError, "image", expected=naming(), got=naming(got)):
        resolve_rows(rows, 10, "image")


def test_nothing_can_be_taken_from_nothing() -> None:
    with refused(DataError, "image", expected=naming(), got=0):
        resolve_rows(0, 0, "image")


def test_an_index_counts_from_the_start_only() -> None:
    assert check_index([0, 9], 10, "image_index").tolist() == [0, 9]
    with refused(DataError, "image_index", 1, expected=naming(0, 9), got=-1):
        check_index([0, -1], 10, "image_index")
