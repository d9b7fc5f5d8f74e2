"""The shapes of a graph's inputs and outputs on a GPU, from its signature."""

from __future__ import annotations

from collections.abc import Mapping

from sgraf_deploy.config import GraphSignature
from sgraf_deploy.errors import InputError
from sgraf_deploy.runtime.cuda.memory import DeviceArray


def sizes_of(signature: GraphSignature, inputs: Mapping[str, DeviceArray]) -> dict[str, int]:
    """The sizes of the dynamic axes; InputError for an input that the signature has not."""
    sizes: dict[str, int] = {}
    for spec in signature.inputs:
        array = inputs[spec.name]
        expected = tuple(
            sizes.setdefault(axis, size) if isinstance(axis, str) else axis
            for axis, size in zip(spec.axes, array.shape, strict=False)
        )
        if array.shape != expected or array.dtype != spec.dtype:
            raise InputError(
                f"input {spec.name}",
                expected=f"{spec.dtype} of {spec.axes}, that is {expected}",
                got=f"{array.dtype} of {array.shape}",
            )
    return sizes


def shape_of(axes: tuple[str | int, ...], sizes: Mapping[str, int]) -> tuple[int, ...]:
    """A shape, its dynamic axes by size."""
    return tuple(sizes[axis] if isinstance(axis, str) else axis for axis in axes)
