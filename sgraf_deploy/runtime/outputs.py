"""Checks arrays that a caller gives for results: their shape, dtype and memory."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from itertools import combinations
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from sgraf_deploy.errors import DataError, InputError

_WORK = 100_000
"""The steps that NumPy may take to find a shared element; slices of an array need a few."""


def name_outputs(out: object, members: Collection[str]) -> dict[str, object]:
    """Name each member's array as errors do, `out['sgr']`; InputError for other keys."""
    expected = f"the members {sorted(members)}"
    if not isinstance(out, Mapping):
        raise InputError("out", expected=f"an array for {expected}", got=type(out).__name__)
    if set(out) != set(members):
        raise InputError("out", expected=expected, got=list(out))
    return {f"out[{name!r}]": array for name, array in out.items()}


def check_outputs(
    outputs: Mapping[str, object], shape: tuple[int, int], inputs: Iterable[object]
) -> None:
    """Refuse arrays, by name, that a result (images, captions) float32 cannot be written into.

    Raises DataError for another type, shape or dtype, for a read-only array, for an array whose
    elements share memory, and for arrays that share memory with each other or with an input.
    """
    arrays = {name: _fit(array, shape, name) for name, array in outputs.items()}
    for (name, one), (other_name, other) in combinations(arrays.items(), 2):
        if _share(one, other):
            expected = "an array for each member that shares no memory with another"
            raise DataError(f"{name} and {other_name}", expected=expected, got="shared memory")
    given = [each for each in inputs if isinstance(each, np.ndarray)]
    for name, one in arrays.items():
        if any(_share(one, each) for each in given):
            raise DataError(
                name,
                expected="memory that nothing else uses",
                got="memory shared with images or captions",
            )


def _fit(given: object, shape: tuple[int, int], name: str) -> NDArray[np.float32]:
    if not isinstance(given, np.ndarray):
        raise DataError(name, expected="a float32 array", got=type(given).__name__)
    if given.shape != shape or given.dtype != np.float32:
        expected, got = f"float32 of shape {shape}", f"{given.dtype} of shape {given.shape}"
        raise DataError(name, expected=expected, got=got)
    if not given.flags.writeable:
        raise DataError(name, expected="a writeable array", got="a read-only one")
    if overlaps_itself(given):
        expected = "an array whose elements share no memory"
        raise DataError(name, expected=expected, got=f"strides of {given.strides} bytes")
    return given


def overlaps_itself(array: NDArray[Any]) -> bool:
    """Whether two elements of a matrix share a byte, as `as_strided` may make them."""
    size = array.itemsize
    axes = sorted(
        (abs(stride), count)
        for stride, count in zip(array.strides, array.shape, strict=True)
        if count > 1
    )
    if array.size == 0 or not axes:
        return False
    if axes[0][0] < size:
        return True
    (inner, count), (outer, outer_count) = axes[0], axes[-1]
    extent = inner * (count - 1) + size
    if len(axes) == 1 or extent <= outer:
        return False  # Rows follow each other, as in every slice of an array.
    # Rows interlock: an element of a later row may overlap an element of the first row.
    places = outer * np.arange(1, min(outer_count - 1, (extent - 1) // outer) + 1)
    before = np.minimum(places // inner, count - 1)
    after = np.minimum(before + 1, count - 1)
    return bool(
        (np.abs(places - inner * before) < size).any()
        or (np.abs(places - inner * after) < size).any()
    )


def _share(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """Whether two arrays share a byte of memory, or may share a byte of a mapped file."""
    try:
        if np.shares_memory(one, other, max_work=_WORK):  # type: ignore[arg-type]  # any int
            return True
    except np.exceptions.TooHardError:
        return True  # Rows interlock in a way that slices cannot make.
    here, there = _mapped(one), _mapped(other)
    if here is None or there is None or here[0] != there[0]:
        return False
    return here[1] < there[2] and there[1] < here[2]


def _mapped(array: NDArray[Any]) -> tuple[str, int, int] | None:
    """Return the file of a memory map, and at which bytes of it this part begins and ends."""
    root: Any = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or root.filename is None or array.size == 0:
        return None
    first, last = byte_bounds(array)
    shift = root.offset - byte_bounds(root)[0]
    return os.path.realpath(root.filename), first + shift, last + shift
