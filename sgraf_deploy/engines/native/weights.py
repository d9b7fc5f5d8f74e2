"""Reads the compiled scorer's weights from a bundle's scorer graph, which is untrusted input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sgraf_deploy.bundle.manifest import EXPORT_AGAIN
from sgraf_deploy.config import ModelConfig
from sgraf_deploy.errors import BundleError

if TYPE_CHECKING:
    from onnx import TensorProto


def read_weights(path: Path, config: ModelConfig) -> dict[str, NDArray[np.float32]]:
    """The weights in a scorer's ONNX graph by name; those split along `embed` are joined again.

    Raises BundleError for a file that is no such graph, and for weights that are missing, are not
    float32, have other shapes or fewer numbers than they say, or lie outside the file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise BundleError(f"graph {path} cannot be read", got=error, hint=EXPORT_AGAIN) from error
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for name, shape in _shapes(config):
        parts = [stored[part] for part in _parts(name, stored)]
        _check(f"weight {name} of graph {path}", parts, shape)
        found[name] = _joined(f"weight {name} of graph {path}", parts)
    return found


def _parts(name: str, stored: Mapping[str, TensorProto]) -> Iterator[str]:
    """The names of the parts of a weight, in order: itself, or NAME.0, NAME.1, …"""
    if f"{name}.0" not in stored:
        yield from (each for each in (name,) if each in stored)
        return
    index = 0
    while f"{name}.{index}" in stored:
        yield f"{name}.{index}"
        index += 1


def _check(what: str, parts: list[TensorProto], shape: tuple[int, ...]) -> None:
    """Raise BundleError for parts of the wrong type or shape, before any value is read."""
    from onnx import TensorProto

    for part in parts:
        if part.data_type != TensorProto.FLOAT:
            kinds = {value: name for name, value in TensorProto.DataType.items()}
            got = kinds.get(part.data_type, part.data_type)
            raise BundleError(what, expected="FLOAT", got=got, hint=EXPORT_AGAIN)
        if part.data_location == TensorProto.EXTERNAL:
            raise BundleError(
                what, expected="numbers in the file", got="external", hint=EXPORT_AGAIN
            )
    dims = [tuple(part.dims) for part in parts]
    fits = all(len(each) == len(shape) and each[1:] == shape[1:] for each in dims)
    if not parts or not fits or sum(each[0] for each in dims) != shape[0]:
        got = " + ".join(map(str, dims)) or "none"
        raise BundleError(what, expected=shape, got=got, hint=EXPORT_AGAIN)


def _joined(what: str, parts: list[TensorProto]) -> NDArray[np.float32]:
    from onnx import numpy_helper

    try:
        return np.concatenate([numpy_helper.to_array(part) for part in parts])
    except (ValueError, TypeError) as error:
        raise BundleError(f"{what} cannot be read", got=error, hint=EXPORT_AGAIN) from error


def _shapes(config: ModelConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    """The name and shape of every weight that the scorer reads."""
    square = (config.sim_dim, config.sim_dim)
    layers = {"local_alignment": (config.embed, config.sim_dim), "similarity": (config.sim_dim, 1)}
    layers["global_alignment"] = layers["local_alignment"]
    for step in range(config.sgr_steps):
        layers |= {f"reasoning.{step}.key": square, f"reasoning.{step}.update": square}
    if config.module == "SAF":
        layers["filtration.attention"] = layers["similarity"]
    for name, shape in layers.items():
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[1:]
