"""The layout in which a model reads regions, and hints for converting other arrays to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import permutations
from typing import Protocol

from sgraf_deploy.data.npy import kind_of
from sgraf_deploy.errors import DataError

Dimensions = tuple[int, int]
"""A model's regions and img_dim."""

AXES = ("images", "regions", "img_dim")


class Remedy(Protocol):
    """Makes a hint from a NumPy expression that converts an array `x`, which may hold objects."""

    def __call__(self, expression: str, *, objects: bool = False) -> str:
        """The hint: the code or the advice that applies the expression."""


_READ = frozenset(f"{order}f{size}" for order in "<>=" for size in (2, 4, 8))
"""The dtypes that are read, in either byte order; all but native float16 and float32 are
converted."""

_FILLED = (
    "numpy.stack([numpy.pad(numpy.asarray(i, numpy.float32)[:{0}], ((0, max(0, {0} - len(i))), "
    "(0, 0))) for i in x])"
)
"""The expression for images with different numbers of regions."""


def of_array(variable: str) -> Remedy:
    """The remedy for an array that is the caller's `variable`."""

    def remedy(expression: str, *, objects: bool = False) -> str:
        return "give " + re.sub(r"\bx\b", variable, expression)

    return remedy


@dataclass(frozen=True)
class Layout:
    """The shape of an array of regions, and its dtype as NumPy writes it."""

    shape: tuple[int, ...]
    dtype: str

    def check(self, name: str, model: Dimensions | None, remedy: Remedy) -> None:
        """Raise DataError, which begins with `name`, unless a model can read the array.

        Without a `model`, any number of regions and any img_dim are accepted. An array without
        images is accepted, too.
        """
        if self.dtype not in _READ:
            raise self._wrong_values(name, model, remedy)
        fits = len(self.shape) == len(AXES) and (model is None or self.shape[1:] == model)
        if not fits:
            raise self._wrong_shape(name, model, remedy)

    def check_filled(self, name: str) -> None:
        """Raise DataError, which begins with `name`, for an axis of length 0."""
        for axis, length in zip(AXES, self.shape, strict=True):
            if length < 1:
                raise DataError(f"{name} have no {axis}", got=f"shape {self.shape}")

    def _wrong_values(self, name: str, model: Dimensions | None, remedy: Remedy) -> DataError:
        kind = kind_of(self.dtype)
        got, hint = f"{kind} ({self.dtype}), shape {self.shape}", None
        if kind == "Python objects":
            return self._objects(name, model, remedy)
        if kind in {"integers", "booleans", "floats"}:
            hint = remedy("x.astype(numpy.float32)")
        elif kind == "complex numbers":
            hint = "save real features"
        elif kind == "raw bytes":
            hint = "save them as float32: NumPy writes types that it does not know, such as "
            hint += "bfloat16, as raw bytes"
        elif kind == "records of several fields":
            hint = "save only the field with the features, as float32"
        return DataError(name, expected="float32 or float16", got=got, hint=hint)

    def _objects(self, name: str, model: Dimensions | None, remedy: Remedy) -> DataError:
        """The error for an array that NumPy pickled, of which only the shape is known."""
        got = f"Python objects ({self.dtype}), shape {self.shape}"
        takes, trusted = "the same number of regions for each image", "if you trust its source, "
        if model is not None:
            takes = f"{model[0]} regions for each image, which is what the model takes"
        if not self.shape:
            got += ", such as a dict"
            taken = remedy("x.item()['NAME']", objects=True)
            hint = f"{trusted}extract the array: {taken}, where NAME is its name in there"
        elif len(self.shape) > 1:
            hint = trusted + remedy("numpy.array(x.tolist(), numpy.float32)", objects=True)
        else:
            got += ", probably because images have different numbers of regions"
            hint = "keep the same number of regions for each image"
            if model is not None:
                filled = remedy(_FILLED.format(model[0]), objects=True)
                hint = f"{trusted}keep the first {model[0]} regions of each image and pad with "
                hint += f"zeros: {filled}"
        return DataError(name, expected=f"floats, {takes}", got=got, hint=hint)

    def _wrong_shape(self, name: str, model: Dimensions | None, remedy: Remedy) -> DataError:
        axes = f"({', '.join(AXES)})"
        expected = f"{len(AXES)} axes {axes}"
        if model is not None:
            name = f"{name} do not fit the model"
            expected = f"{axes} = (any, {model[0]}, {model[1]})"
        expression = arrangement(self.shape, model)
        hint = _advice(self.shape, model) if expression is None else remedy(expression)
        if self.shape == model:
            hint += f" if this is a single image; otherwise, {_advice(self.shape, model)}"
        return DataError(name, expected=expected, got=self.shape, hint=hint)


def arrangement(shape: tuple[int, ...], model: Dimensions | None) -> str | None:
    """The NumPy expression that gives an array `x` a model's axes; None if there is none.

    Without a `model`, the longest axis of a grid is taken as its img_dim.
    """
    if model is None:
        if len(shape) != 4 or max(shape[1:]) not in (shape[1], shape[3]):
            return None
        model = (
            (shape[1] * shape[2], shape[3])
            if shape[3] == max(shape[1:])
            else (shape[2] * shape[3], shape[1])
        )
    regions, width = model
    if len(shape) == 2:
        return _of_two(shape, model)
    if len(shape) == 3:
        for order in permutations(range(3)):
            if (shape[order[1]], shape[order[2]]) == model and order != (0, 1, 2):
                return f"x.transpose{order}"
    elif shape[-2:] == model:
        return f"x.reshape(-1, {regions}, {width})"
    elif len(shape) == 4 and (shape[1] * shape[2], shape[3]) == model:
        return f"x.reshape(len(x), {regions}, {width})"
    elif len(shape) == 4 and (shape[2] * shape[3], shape[1]) == model:
        return f"x.reshape(len(x), {width}, {regions}).transpose(0, 2, 1)"
    return None


def _of_two(shape: tuple[int, ...], model: Dimensions) -> str | None:
    """The expression for one image without an image axis, or for flattened regions per image."""
    if shape == model:
        return "x[None]"
    if shape == model[::-1]:
        return "x.T[None]"
    if shape[1] == model[0] * model[1]:
        return f"x.reshape(len(x), {model[0]}, {model[1]})"
    return None


def _advice(shape: tuple[int, ...], model: Dimensions | None) -> str:
    """The hint for a shape that cannot be rearranged to fit."""
    needed = "give region features"
    if model is not None:
        needed += f", {model[0]} vectors of length {model[1]} for each image"
    if len(shape) == 2:
        return f"{needed}: these are a single vector for each image, as VSE++ takes them"
    if model is not None and len(shape) == 3:
        if shape[2] != model[1]:
            return f"extract them as for the training: vectors of length {model[1]}"
        return (
            f"extract {model[0]} regions for each image, as for the training: the model takes no "
            "other number"
        )
    return needed
