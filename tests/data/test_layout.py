from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.hinted import python_in
from support.refusals import check_error, naming, refused

from sgraf_deploy.data.layout import Layout, arrangement, of_array
from sgraf_deploy.errors import DataError, SgrafDeployError

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


def error_of(shape: tuple[int, ...], dtype: str = "<f4", model: Any = MODEL) -> SgrafDeployError:
    with refused(DataError, "the regions") as found:
        Layout(shape, dtype).check("the regions", model, of_array("given"))
    return found.error


@pytest.mark.parametrize(
    ("shape", "hint"),
    [
        ((5, 64, 36), ["given.transpose(0, 2, 1)"]),
        ((5, 4, 9, 64), ["given.reshape(len(given), 36, 64)"]),
        ((5, 64), [36, 64, "VSE++"]),
        ((36, 64), ["given[None]", 36, 64]),
        ((5, 49, 64), [36]),
        ((5, 36, 32), [64]),
        ((5,), [36, 64]),
    ],
    ids=str,
)
def test_a_shape_is_named_with_what_to_do(shape: tuple[int, ...], hint: list[object]) -> None:
    check_error(error_of(shape), expected=naming(36, 64), got=shape, hint=hint)


@pytest.mark.parametrize(
    ("dtype", "hint"),
    [
        ("|O", "numpy.array(given.tolist(), numpy.float32)"),
        ("<i8", "given.astype(numpy.float32)"),
        ("|u1", "given.astype(numpy.float32)"),
        ("|b1", "given.astype(numpy.float32)"),
        ("<f16", "given.astype(numpy.float32)"),
        ("<c8", []),
        ("|V2", ["float32", "bfloat16"]),
        ("|S5", None),
        ("[('a', '<f4')]", "float32"),
        ("\x0bf4", None),
    ],
)
def test_a_dtype_is_named_with_what_to_do(dtype: str, hint: str | None) -> None:
    error = error_of((5, *MODEL), dtype)
    check_error(error, got=naming(dtype, (5, *MODEL)), hint=hint)
    assert isinstance(hint, str) or "astype" not in str(error.hint)


@pytest.mark.parametrize(("axis", "name"), [(0, "images"), (1, "regions"), (2, "img_dim")])
def test_an_axis_without_length_is_named(axis: int, name: str) -> None:
    shape = tuple(0 if place == axis else size for place, size in enumerate((5, *MODEL)))
    layout = Layout(shape, "<f4")
    layout.check("the array", None, of_array("given"))
    with refused(DataError, "the array", name, got=naming(shape)):
        layout.check_filled("the array")


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
    code = python_in(error_of(array.shape, "|O"), "numpy.array")
    found = eval(code, {"numpy": np, "given": array})
    np.testing.assert_array_equal(found, ORDERED)
    assert found.dtype == np.float32


def test_a_pickled_dict_is_told() -> None:
    check_error(error_of((), "|O"), got=naming("|O", ()), hint="given.item()['NAME']")


def test_objects_are_filled_up_to_the_models_number() -> None:
    several = np.empty(3, dtype=object)
    for row, regions in enumerate((20, 36, 50)):
        several[row] = np.full((regions, 64), row + 1.0)
    code = python_in(error_of((3,), "|O"), "numpy.stack")

    found = eval(code, {"numpy": np, "given": several})

    assert (found.shape, found.dtype) == ((3, *MODEL), np.float32)
    assert (found != 0).sum(axis=(1, 2)).tolist() == [20 * 64, 36 * 64, 36 * 64]
