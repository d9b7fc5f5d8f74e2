"""Regions as callers have them: converted with one warning, or refused with what to type."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from support.refusals import ANY, holds, naming, refused
from support.scorers import CAPTIONS, Faked

from sgraf_deploy.data.regions import open_regions
from sgraf_deploy.errors import DataError, RegionsWarning
from sgraf_deploy.runtime import Scorer

MakeFaked = Callable[..., Faked]
DTYPES = ["<f8", ">f8", ">f4", ">f2"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_other_floats_are_converted(
    scorer: Scorer, regions: NDArray[np.float32], dtype: str
) -> None:
    given = regions.astype(dtype)
    expected = scorer.score(given.astype(np.float32), CAPTIONS)

    with pytest.warns(RegionsWarning) as caught:
        found = scorer.score(given, CAPTIONS)

    np.testing.assert_array_equal(found, expected)
    assert [warning.filename for warning in caught] == [__file__]
    assert holds(str(caught[0].message), "regions.astype(numpy.float32)")


def test_a_scorer_warns_once(faked: MakeFaked, regions: NDArray[np.float32]) -> None:
    scorer = faked().scorer
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            scorer.encode_images(regions.astype(np.float64))
        scorer.rerank(regions[0].astype(">f4"), CAPTIONS)
    assert [warning.category for warning in caught] == [RegionsWarning]


@pytest.mark.parametrize("dtype", DTYPES)
def test_whoever_opened_a_file_has_told_of_it(
    faked: MakeFaked, regions: NDArray[np.float32], tmp_path: Path, dtype: str
) -> None:
    np.save(tmp_path / "dev_ims.npy", regions.astype(dtype))
    opened = open_regions(tmp_path / "dev_ims.npy")
    scorer = faked().scorer
    expected = scorer.score(regions.astype(dtype).astype(np.float32), CAPTIONS)
    np.testing.assert_array_equal(scorer.score(opened, CAPTIONS), expected)
    np.testing.assert_array_equal(scorer.score(opened[[2, 1]], CAPTIONS), expected[[2, 1]])


@pytest.mark.filterwarnings("ignore::sgraf_deploy.errors.RegionsWarning")
@pytest.mark.parametrize("dtype", [np.float64, ">f4", np.float32])
@pytest.mark.parametrize("value", [np.nan, -np.inf, 1e39])
def test_what_is_not_finite_is_named(
    faked: MakeFaked, regions: NDArray[np.float32], dtype: Any, value: float
) -> None:
    with np.errstate(over="ignore"):
        given = regions.astype(dtype)
        given[5, 2, 1] = value
    with refused(DataError, "regions", 5, 2, expected=naming(), got=naming()):
        faked().scorer.encode_images(given)


REFUSED: dict[str, tuple[Callable[[NDArray[Any]], object], Any]] = {
    "list": (list, "numpy.stack(regions)"),
    "tuple": (tuple, "numpy.stack(regions)"),
    "nested-lists": (lambda regions: regions.tolist(), "numpy.stack(regions)"),
    "image": (lambda regions: regions[0], "regions[None]"),
    "transposed": (lambda regions: regions.transpose(0, 2, 1), "regions.transpose(0, 2, 1)"),
    "grid": (
        lambda regions: regions.reshape(9, 2, 2, 6),
        "regions.reshape(len(regions), 4, 6)",
    ),
    "in-a-row": (lambda regions: regions.reshape(9, 24), "regions.reshape(len(regions), 4, 6)"),
    "batch-of-one": (lambda regions: regions[None], "regions.reshape(-1, 4, 6)"),
    "integers": (lambda regions: regions.astype(np.int32), "regions.astype(numpy.float32)"),
    "booleans": (lambda regions: regions > 0, "regions.astype(numpy.float32)"),
    "objects": (
        lambda regions: np.array([*[*regions], None], dtype=object)[:-1],
        4,
    ),
    "complex": (lambda regions: regions.astype(complex), naming()),
    "records": (
        lambda regions: np.zeros(9, dtype=[("features", "<f4", (4, 6))]),
        naming(),
    ),
    "globals": (lambda regions: regions[:, 0], ["4", "6", "VSE++"]),
    "too-few-regions": (lambda regions: regions[:, :3], 4),
    "wrong-width": (lambda regions: regions[:, :, :5], 6),
    "none": (lambda regions: None, "numpy.asarray(regions)"),
    "text": (lambda regions: "dev_ims.npy", ANY),
}


@pytest.mark.parametrize(("make", "hint"), REFUSED.values(), ids=REFUSED)
def test_other_regions_are_refused_with_what_to_type(
    faked: MakeFaked,
    regions: NDArray[np.float32],
    make: Callable[[NDArray[Any]], Any],
    hint: Any,
) -> None:
    scorer, given = faked().scorer, make(regions)
    for use in (scorer.encode_images, lambda regions: scorer.score(regions, CAPTIONS)):
        with refused(DataError, "regions", hint=hint) as caught:
            use(given)
        if isinstance(hint, naming):  # No conversion puts that right.
            assert "astype" not in str(caught.error.hint)
    if make is list or str(hint).startswith("regions"):
        repaired = eval(hint, {"regions": given, "numpy": np})
        assert scorer.encode_images(repaired)
