"""Arrays given for results: refused where elements, or two arrays, share memory."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from support.refusals import naming, refused
from support.scorers import CAPTIONS, Faked, make_regions

from sgraf_deploy.errors import DataError, InputError
from sgraf_deploy.runtime.outputs import check_outputs, overlaps_itself

MakeFaked = Callable[..., Faked]
Array = NDArray[np.float32]
Pair = tuple[Array, Array]

SHAPE = (9, 7)
BYTES = 9 * 7 * 4


def zeros(*shape: int, order: Any = "C") -> Array:
    return np.zeros(shape, np.float32, order=order)


def mapped(path: Path, offset: int = 0, mode: Any = "r+") -> Array:
    if not path.exists():
        path.write_bytes(bytes(4 * BYTES))
    return np.memmap(path, np.float32, mode, offset, SHAPE)


def of(whole: Array, *parts: Any) -> tuple[Array, ...]:
    return tuple(whole[part] for part in parts)


APART: dict[str, Callable[[Path], tuple[Array, ...]]] = {
    "columns": lambda _: of(zeros(9, 14), np.s_[:, :7], np.s_[:, 7:]),
    "rows": lambda _: of(zeros(18, 7), np.s_[:9], np.s_[9:]),
    "interleaved": lambda _: of(zeros(9, 7, 2), np.s_[..., 0], np.s_[..., 1]),
    "every-other-column": lambda _: of(zeros(9, 14), np.s_[:, ::2], np.s_[:, 1::2]),
    "every-other-row": lambda _: of(zeros(18, 7), np.s_[::2], np.s_[1::2]),
    "backwards": lambda _: of(zeros(9, 14), np.s_[::-1, 6::-1], np.s_[:, :6:-1]),
    "column-order": lambda _: of(zeros(9, 14, order="F"), np.s_[:, :7], np.s_[:, 7:]),
    "transposed": lambda _: (zeros(7, 9).T, zeros(7, 9).T),
    "rows-of-a-cube": lambda _: of(zeros(9, 3, 7), np.s_[:, 0], np.s_[:, 2]),
    "two-files": lambda folder: (mapped(folder / "a"), mapped(folder / "b")),
    "one-file": lambda folder: (mapped(folder / "a"), mapped(folder / "a", BYTES)),
}
SHARED: dict[str, Callable[[Path], tuple[Array, ...]]] = {
    "one-array": lambda _: (zeros(*SHAPE),) * 2,
    "a-view": lambda _: of(zeros(*SHAPE), np.s_[:], np.s_[:]),
    "a-column": lambda _: of(zeros(9, 13), np.s_[:, :7], np.s_[:, 6:]),
    "backwards": lambda _: of(zeros(*SHAPE), np.s_[:], np.s_[::-1, ::-1]),
    "one-element": lambda _: tuple(
        part.reshape(SHAPE) for part in of(zeros(125), np.s_[:63], np.s_[62:])
    ),
    "a-file": lambda folder: (mapped(folder / "a"), mapped(folder / "a")),
    "part-of-a-file": lambda folder: (
        mapped(folder / "a"),
        np.asarray(mapped(folder / "a", BYTES - 4)),
    ),
}


@pytest.mark.parametrize("make", APART.values(), ids=APART)
def test_results_go_into_parts_that_lie_apart(
    faked: MakeFaked, regions: Array, tmp_path: Path, make: Callable[[Path], Pair]
) -> None:
    scorer, (one, other) = faked().scorer, make(tmp_path)
    right = scorer.logits(regions, CAPTIONS)
    found = scorer.logits(regions, CAPTIONS, out={"sgr": one, "saf": other})
    assert found["sgr"] is one
    np.testing.assert_array_equal(one, right["sgr"])
    np.testing.assert_array_equal(other, right["saf"])


@pytest.mark.parametrize("make", SHARED.values(), ids=SHARED)
def test_members_that_share_memory_are_refused(
    faked: MakeFaked, regions: Array, tmp_path: Path, make: Callable[[Path], Pair]
) -> None:
    made, (one, other) = faked(), make(tmp_path)
    with refused(DataError, "out['sgr']", "out['saf']", got=naming()):
        made.scorer.logits(regions, CAPTIONS, out={"sgr": one, "saf": other})
    assert made.engine.shapes == []
    assert not one.any()


@pytest.mark.parametrize(
    "strides", [(0, 4), (28, 0), (4, 4), (28, 2), (24, 4), (4, 32), (-4, 4), (20, 8)], ids=str
)
def test_elements_that_share_memory_are_refused(
    faked: MakeFaked, regions: Array, strides: tuple[int, int]
) -> None:
    made = faked()
    out = as_strided(zeros(200)[100:], SHAPE, strides)
    with refused(DataError, "out", expected=naming(), got=naming(strides)):
        made.scorer.score(regions, CAPTIONS, out=out)
    assert made.engine.shapes == []


def test_an_out_that_shares_memory_with_the_regions_is_refused(faked: MakeFaked) -> None:
    whole = zeros(9, 4, 20)
    made, regions = faked(), whole[..., :6]
    regions[:] = make_regions(9)
    with refused(DataError, "out", got=naming("images", "captions")):
        made.scorer.score(regions, CAPTIONS, out=whole[:, 0, 5:12])
    assert made.engine.shapes == []
    found = made.scorer.score(regions, CAPTIONS, out=whole[:, 0, 6:13])
    np.testing.assert_array_equal(found, made.scorer.score(make_regions(9), CAPTIONS))


def test_an_out_that_is_no_mapping_is_refused(faked: MakeFaked, regions: Array) -> None:
    out: Any = zeros(*SHAPE)
    with refused(InputError, "out", expected=naming("sgr", "saf"), got="ndarray"):
        faked().scorer.logits(regions, CAPTIONS, out=out)


@pytest.mark.parametrize("shape", [(0, 7), (9, 0), (0, 0)], ids=str)
def test_nothing_shares_nothing(faked: MakeFaked, shape: tuple[int, int]) -> None:
    out = zeros(*shape)
    regions, captions = make_regions(shape[0]), CAPTIONS[: shape[1]]
    found = faked().scorer.logits(regions, captions, out={"sgr": out, "saf": out})
    assert found["saf"] is out


def test_what_takes_too_long_to_tell_apart_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_hard(*_: Any, **__: Any) -> bool:
        raise np.exceptions.TooHardError

    monkeypatch.setattr(np, "shares_memory", too_hard)
    with refused(DataError, "one", "other", got=naming()):
        check_outputs({"one": zeros(2, 3), "other": zeros(2, 3)}, (2, 3), ())


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 5)),
    st.tuples(st.integers(-60, 60), st.integers(-60, 60)),
)
def test_overlap_is_what_counting_bytes_says(
    shape: tuple[int, int], strides: tuple[int, int]
) -> None:
    places = [i * strides[0] + j * strides[1] for i, j in product(*map(range, shape))]
    taken = [byte for place in places for byte in range(place, place + 4)]
    memory = np.zeros(1000, np.uint8)[480:520].view(np.float32)
    assert overlaps_itself(as_strided(memory, shape, strides)) == (len(set(taken)) < len(taken))


slices = st.builds(
    slice,
    st.none() | st.integers(-8, 8),
    st.none() | st.integers(-8, 8),
    st.integers(-3, 3).filter(bool),
)


@given(st.sampled_from("CF"), slices, slices, st.booleans())
def test_no_part_cut_by_slices_overlaps(order: Any, rows: slice, columns: slice, t: bool) -> None:
    part = zeros(8, 8, 3, order=order)[rows, columns, 1]
    assume(part.size)
    assert not overlaps_itself(part.T if t else part)
