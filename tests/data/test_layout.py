from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sgraf_deploy.data.layout import Layout, arrangement, of_array
from sgraf_deploy.errors import DataError

MODEL = (36, 64)
ORDERED = np.random.default_rng(1).standard_normal((5, *MODEL), dtype=np.float32)
GRID = ORDERED.reshape(5, 4, 9, 64)

DISORDERED = {
    "transposed": ORDERED.transpose(0, 2, 1),
    "regions-first": ORDERED.transpose(1, 0, 2),
    "img-dim-first": ORDERED.transpose(2, 1, 0),
    "grid": GRID,
    "grid-of-channels": GRID.transpose(0, 3, 1, 2),
    "in-a-row": ORDERED.reshape(5, -1),
    "axis-of-one": ORDERED[:, None],
    "batch-of-one": ORDERED[None],
    "batches": np.concatenate([ORDERED, ORDERED]).reshape(2, 5, *MODEL),
}


@pytest.mark.parametrize("kind", DISORDERED)
def test_the_line_of_the_hint_puts_an_array_in_order(kind: str) -> None:
    array = DISORDERED[kind]

    expression = arrangement(array.shape, MODEL)

    assert expression is not None
    found = eval(expression, {"x": array})
    expected = np.concatenate([ORDERED, ORDERED]) if kind == "batches" else ORDERED
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("kind", ["grid", "grid-of-channels"])
def test_a_grid_is_told_without_a_model(kind: str) -> None:
    expression = arrangement(DISORDERED[kind].shape, None)
    assert expression is not None
    np.testing.assert_array_equal(eval(expression, {"x": DISORDERED[kind]}), ORDERED)


@pytest.mark.parametrize("image", [ORDERED[0], ORDERED[0].T], ids=["image", "transposed"])
def test_one_image_lacks_an_axis(image: np.ndarray[Any, Any]) -> None:
    expression = arrangement(image.shape, MODEL)
    assert expression is not None
    np.testing.assert_array_equal(eval(expression, {"x": image}), ORDERED[:1])


@pytest.mark.parametrize(
    "shape", [(), (5,), (5, 64), (5, 49, 64), (5, 36, 32), (2, 3, 4, 5), (1, 1, 1, 1, 1)], ids=str
)
def test_other_shapes_have_none(shape: tuple[int, ...]) -> None:
    assert arrangement(shape, MODEL) is None


def error_of(shape: tuple[int, ...], dtype: str = "<f4", model: Any = MODEL) -> DataError:
    with pytest.raises(DataError) as caught:
        Layout(shape, dtype).check("the regions", model, of_array("given"))
    assert caught.value.reason.startswith("the regions")
    return caught.value


@pytest.mark.parametrize(
    ("shape", "mend"),
    [
        ((5, 64, 36), "give given.transpose(0, 2, 1)"),
        ((5, 4, 9, 64), "give given.reshape(len(given), 36, 64)"),
        ((5, 64), "one vector of each image"),
        ((36, 64), "give given[None] if this is one image; if not, give region features"),
        ((5, 49, 64), "extract 36 regions of each image"),
        ((5, 36, 32), "vectors of 64"),
        ((5,), "give region features, 36 vectors of 64"),
    ],
    ids=str,
)
def test_a_shape_is_named_with_what_to_do(shape: tuple[int, ...], mend: str) -> None:
    error = error_of(shape)
    assert "(any, 36, 64)" in error.reason
    assert f"got {shape}" in error.reason
    assert mend in (error.mend or "")


@pytest.mark.parametrize(
    ("dtype", "got", "mend"),
    [
        ("|O", "Python objects", "numpy.array(given.tolist(), numpy.float32)"),
        ("<i8", "integers (<i8)", "give given.astype(numpy.float32)"),
        ("|u1", "integers", "give given.astype(numpy.float32)"),
        ("|b1", "booleans", "give given.astype(numpy.float32)"),
        ("<f16", "floats (<f16)", "give given.astype(numpy.float32)"),
        ("<c8", "complex numbers", "real"),
        ("|V2", "raw bytes", "bfloat16"),
        ("|S5", "bytes", ""),
        ("[('a', '<f4')]", "records of several fields", "the field of the features alone"),
        ("\x0bf4", "an unknown dtype", ""),
    ],
)
def test_a_dtype_is_named_with_what_to_do(dtype: str, got: str, mend: str) -> None:
    error = error_of((5, *MODEL), dtype)
    assert f"got {got}" in error.reason
    assert mend in (error.mend or "")


@pytest.mark.parametrize(("axis", "name"), [(0, "images"), (1, "regions"), (2, "img_dim")])
def test_an_axis_without_length_is_named(axis: int, name: str) -> None:
    shape = tuple(0 if place == axis else size for place, size in enumerate((5, *MODEL)))
    layout = Layout(shape, "<f4")
    layout.check("the regions", None, of_array("given"))
    with pytest.raises(DataError, match=f"^the regions have no {name}"):
        layout.check_filled("the regions")


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8", "=f4"])
def test_floats_of_either_byte_order_are_read(dtype: str) -> None:
    Layout((5, *MODEL), dtype).check("the regions", MODEL, of_array("given"))


@pytest.mark.parametrize("rows", [False, True], ids=["values", "rows"])
def test_objects_of_one_shape_are_made_floats(rows: bool) -> None:
    array: Any = ORDERED.astype(object)
    if rows:
        array = np.empty(ORDERED.shape[:2], dtype=object)
        for place in np.ndindex(array.shape):
            array[place] = ORDERED[place]
    mend = error_of(array.shape, "|O").mend or ""
    found = eval(mend.partition("give ")[2], {"numpy": np, "given": array})
    np.testing.assert_array_equal(found, ORDERED)
    assert found.dtype == np.float32


def test_a_pickled_dict_is_told() -> None:
    error = error_of((), "|O")
    assert "such as a dict" in error.reason
    assert "given.item()['NAME']" in (error.mend or "")


def test_objects_are_filled_up_to_the_models_number() -> None:
    several = np.empty(3, dtype=object)
    for row, regions in enumerate((20, 36, 50)):
        several[row] = np.full((regions, 64), row + 1.0)
    mend = error_of((3,), "|O").mend or ""

    found = eval(mend[mend.index("numpy.stack") :], {"numpy": np, "given": several})

    assert (found.shape, found.dtype) == ((3, *MODEL), np.float32)
    assert (found != 0).sum(axis=(1, 2)).tolist() == [20 * 64, 36 * 64, 36 * 64]
