"""Checks what graphs are given, in the same way for every engine; and the names of such arrays.

Nothing is copied from a device for it: shapes and dtypes are known without waiting, and lengths and
indices are compared only where the host knows their extremes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.config import GraphSignature, TensorSpec
from sgraf_deploy.errors import InputError

Array = NDArray[Any]
Buffer = Any
"""An array on an engine's device: what it really is, only the engine that made it knows."""

Sizes = dict[str, int]
"""The size of each dynamic axis, by name."""

Extremes = tuple[int, int]
"""The lowest and the highest number of an array."""

_RANGES = {
    "lengths": (1, "words", 0),
    "offsets": (0, "words", -1),
    "image_index": (0, "images", -1),
    "caption_index": (0, "captions", -1),
}
"""By input: the lowest number allowed, and the axis and offset that give the highest."""


@dataclass(frozen=True)
class BufferKind:
    """What an engine's buffers are, and how they are checked."""

    type: type[Any]
    """The class that every buffer is of."""
    dtypes: Mapping[str, Any]
    """The buffers' dtype for each dtype of a signature."""
    extremes: Callable[[Any], Extremes | None]
    """Gives a buffer's extremes; None for an empty one, and where the host does not know them."""
    in_order: bool = False
    """Whether contiguity has to be checked: NumPy arrays may lack it."""


def host_extremes(array: NDArray[Any]) -> Extremes | None:
    """The lowest and the highest number of a host array; None for an empty one."""
    return (int(array.min()), int(array.max())) if array.size else None


HOST = BufferKind(
    np.ndarray,
    {name: np.dtype(name) for name in ("float32", "float16", "int32")},
    host_extremes,
    in_order=True,
)


class InputCheck:
    """Compares what a graph is given with its signature; `base.Graph.run` does so at every run."""

    def __init__(
        self,
        signature: GraphSignature,
        kind: BufferKind = HOST,
        also_float16: Collection[str] = (),
    ) -> None:
        """Prepare the check of a graph of this signature on buffers of this kind.

        Inputs of the names `also_float16` may be float16 in place of float32.
        """
        self._kind = kind
        half = (kind.dtypes["float16"],)
        self._inputs = [
            (spec, (kind.dtypes[spec.dtype], *(half if spec.name in also_float16 else ())))
            for spec in signature.inputs
        ]
        self._outputs = {
            spec.name: (spec, (kind.dtypes[spec.dtype],)) for spec in signature.outputs
        }
        self._ranges = [
            (spec.name, *_RANGES[spec.name]) for spec in signature.inputs if spec.name in _RANGES
        ]

    def inputs(self, given: Mapping[str, Buffer]) -> Sizes:
        """The sizes of the dynamic axes.

        Raises InputError unless exactly the signature's inputs are given, each of its dtype and
        axes and contiguous, with axes of one name equal, and with lengths and indices in range as
        far as the host knows them.
        """
        sizes: Sizes = {}
        for spec, dtypes in self._inputs:
            array = given.get(spec.name)
            if not self._fits(array, dtypes, spec.axes, sizes):
                raise _misfit("input", spec, array, sizes)
        if len(given) != len(self._inputs):
            raise _unknown("input", given, [spec.name for spec, _ in self._inputs])
        for name, lowest, axis, more in self._ranges:
            extremes = self._kind.extremes(given[name])
            highest = sizes[axis] + more
            if extremes is not None and (extremes[0] < lowest or extremes[1] > highest):
                got = f"{extremes[0]} … {extremes[1]}"
                raise InputError(f"values of {name}", expected=f"{lowest} … {highest}", got=got)
        return sizes

    def outputs(self, given: Mapping[str, Buffer], sizes: Sizes) -> None:
        """Raise InputError for bound outputs that the graph does not have or cannot write.

        Their dynamic axes are of the `sizes` that the inputs have.
        """
        for name, array in given.items():
            if name not in self._outputs:
                raise _unknown("output", given, list(self._outputs))
            spec, dtypes = self._outputs[name]
            if not self._fits(array, dtypes, spec.axes, sizes):
                raise _misfit("output", spec, array, sizes)
            if self._kind.in_order and not array.flags.writeable:
                raise InputError(f"output {name}", expected="writeable memory")

    def _fits(
        self, array: Any, dtypes: tuple[Any, ...], axes: tuple[str | int, ...], sizes: Sizes
    ) -> bool:
        if not isinstance(array, self._kind.type) or array.dtype not in dtypes:
            return False
        shape = array.shape
        if len(shape) != len(axes):
            return False
        if self._kind.in_order and not (array.flags.c_contiguous and array.flags.aligned):
            return False
        for axis, size in zip(axes, shape, strict=True):
            if size != (axis if isinstance(axis, int) else sizes.setdefault(axis, size)):
                return False
        return True


def shape_of(axes: tuple[str | int, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """The shape that axes have, each dynamic one of its size."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in axes)


def _misfit(what: str, spec: TensorSpec, array: Any, sizes: Sizes) -> InputError:
    axes = ", ".join(f"{axis} {sizes[axis]}" if axis in sizes else str(axis) for axis in spec.axes)
    got = type(array).__name__
    if array is None:
        got = "none"
    elif hasattr(array, "dtype") and hasattr(array, "shape"):
        got += f" of {array.dtype}, shape {tuple(array.shape)}"
        flags = getattr(array, "flags", None)
        if flags is not None and not (flags.c_contiguous and flags.aligned):
            got += ", not contiguous"
    return InputError(f"{what} {spec.name}", expected=f"contiguous {spec.dtype} ({axes})", got=got)


def _unknown(what: str, given: Mapping[str, Buffer], known: list[str]) -> InputError:
    others = [name for name in given if name not in known]
    return InputError(
        f"{what}s", expected=", ".join(known), got=f"also {', '.join(map(str, others))}"
    )
